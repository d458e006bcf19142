// Logits in a form for slow links: some rows whole; of each other row its largest values, and what
// the remaining ids have in common, by buckets of neighbouring ids. farm/judge/compact.py reads it.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "../common/posix.h"
#include "../common/sha256.h"
#include "args.h"
#include "store.h"
#include "verbs.h"

namespace farm::helper {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is little-endian");

struct Shape {
  size_t rows;
  size_t cols;
  size_t whole;    // rows that are kept as they are, evenly spread, with the first and the last
  size_t top;      // values that are kept of each other row
  size_t buckets;  // of equal numbers of ids
};

size_t positive(const Args& args, const std::string& name, int64_t most) {
  const int64_t value = args.integer(name);
  if (value < 1 || value > most) throw Usage("--" + name + " is out of range");
  return static_cast<size_t>(value);
}

class Rows {
 public:
  Rows(const std::string& path, const Shape& shape)
      : path_(path), fd_(open_file(path, O_RDONLY)), row_(shape.cols) {
    struct stat info{};
    if (fstat(fd_.get(), &info) != 0) throw system_failure("cannot_open", "cannot open " + path);
    if (static_cast<size_t>(info.st_size) != shape.rows * shape.cols * sizeof(float)) {
      throw Failure("bad_logits", path + " has " + std::to_string(info.st_size) +
                                      " bytes, which is another shape");
    }
  }

  const std::vector<float>& at(size_t index) {
    const size_t size = row_.size() * sizeof(float);
    auto* to = reinterpret_cast<char*>(row_.data());
    for (size_t done = 0; done < size;) {
      const auto got = pread(fd_.get(), to + done, size - done,
                             static_cast<off_t>(index * size + done));
      if (got < 0) throw system_failure("cannot_read", "cannot read " + path_);
      if (got == 0) throw Failure("bad_logits", path_ + " got shorter");
      done += static_cast<size_t>(got);
    }
    return row_;
  }

 private:
  std::string path_;
  Fd fd_;
  std::vector<float> row_;
};

bool is_whole(size_t row, const Shape& shape) {
  if (shape.whole >= shape.rows) return true;
  if (shape.whole == 1) return row == 0;
  // Row i is the k-th whole one where i == k * (rows - 1) / (whole - 1), rounded down.
  const size_t last = shape.rows - 1, gaps = shape.whole - 1;
  const size_t k = (row * gaps + last - 1) / last;
  return k * last / gaps == row;
}

// The ids of the largest values, ascending; of equal values the smaller id. `next` is among them.
void keep_largest(const std::vector<float>& row, int32_t next, std::vector<uint32_t>& ids,
                  size_t top) {
  std::vector<float> order(row);
  const auto last = order.begin() + static_cast<ptrdiff_t>(top - 1);
  std::nth_element(order.begin(), last, order.end(), std::greater<float>());
  const float least = *last;
  size_t equal = top - static_cast<size_t>(std::count_if(order.begin(), last, [least](float x) {
                   return x > least;
                 }));
  ids.clear();
  size_t smallest = 0;
  for (uint32_t id = 0; id < row.size(); ++id) {
    if (row[id] < least || (row[id] == least && equal == 0)) continue;
    if (row[id] == least) {
      --equal;
      smallest = ids.size();
    }
    ids.push_back(id);
  }
  if (next >= 0 && !std::binary_search(ids.begin(), ids.end(), static_cast<uint32_t>(next))) {
    ids[smallest] = static_cast<uint32_t>(next);
    std::sort(ids.begin(), ids.end());
  }
}

// Logarithm of the sum of the exponentials of each bucket's ids that aren't kept.
void sum_rest(const std::vector<float>& row, const std::vector<uint32_t>& kept, const Shape& shape,
              std::vector<double>& sums) {
  const float none = -std::numeric_limits<float>::infinity();
  std::vector<float> rest(row);
  for (const uint32_t id : kept) rest[id] = none;
  sums.clear();
  size_t begin = 0;
  for (size_t bucket = 0; bucket < shape.buckets; ++bucket) {
    const size_t end = ((bucket + 1) * shape.cols + shape.buckets - 1) / shape.buckets;
    const float peak = *std::max_element(rest.begin() + static_cast<ptrdiff_t>(begin),
                                         rest.begin() + static_cast<ptrdiff_t>(end));
    double sum = 0;
    for (size_t id = begin; id < end && peak != none; ++id) {
      sum += std::exp(static_cast<double>(rest[id]) - static_cast<double>(peak));
    }
    sums.push_back(sum > 0 ? static_cast<double>(peak) + std::log(sum) : none);
    begin = end;
  }
}

std::vector<int32_t> next_ids(const std::string& path, const Shape& shape) {
  std::string text;
  if (!read_text(path, shape.rows * sizeof(int32_t), text) ||
      text.size() != shape.rows * sizeof(int32_t)) {
    throw Failure("bad_ids", path + " has not one id a row");
  }
  std::vector<int32_t> ids(shape.rows);
  std::memcpy(ids.data(), text.data(), text.size());
  for (const int32_t id : ids) {
    if (id >= static_cast<int64_t>(shape.cols)) throw Failure("bad_ids", path + ": no such id");
  }
  return ids;
}

}  // namespace

void compact(const Words& words) {
  const Args args(words, Syntax{{"rows", "cols", "whole", "top", "buckets", "next", "root", "run",
                                 "epoch", "ttl-s"},
                                {},
                                2,
                                2});
  const Renewal renewal = renewed(args, args.text("root", ""));
  Shape shape{};
  shape.rows = positive(args, "rows", 1 << 20);
  shape.cols = positive(args, "cols", 1 << 24);
  shape.whole = std::min(positive(args, "whole", 1 << 20), shape.rows);
  shape.top = std::min(positive(args, "top", 1 << 24), shape.cols);
  shape.buckets = std::min(positive(args, "buckets", 1 << 24), shape.cols);
  Rows rows(args.positional()[0], shape);
  const std::vector<int32_t> next = next_ids(args.text("next"), shape);
  const std::string path = args.positional()[1];
  const Fd out = open_file(path, O_WRONLY | O_CREAT | O_TRUNC);
  const uint32_t header[] = {0x314c4346,  // "FCL1"
                             static_cast<uint32_t>(shape.rows),  static_cast<uint32_t>(shape.cols),
                             static_cast<uint32_t>(shape.whole), static_cast<uint32_t>(shape.top),
                             static_cast<uint32_t>(shape.buckets)};
  write_all(out.get(), header, sizeof(header), path);
  for (size_t i = 0; i < shape.rows; ++i) {
    if (is_whole(i, shape)) write_all(out.get(), rows.at(i).data(), shape.cols * sizeof(float), path);
  }
  std::vector<uint32_t> kept;
  std::vector<float> values(shape.top);
  std::vector<double> sums;
  Sha256 source;
  bool finite = true;
  for (size_t i = 0; i < shape.rows && finite; ++i) {
    const std::vector<float>& row = rows.at(i);
    source.update(row.data(), row.size() * sizeof(float));
    finite = std::all_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); });
    if (!finite || is_whole(i, shape)) continue;
    keep_largest(row, next[i], kept, shape.top);
    sum_rest(row, kept, shape, sums);
    for (size_t k = 0; k < shape.top; ++k) values[k] = row[kept[k]];
    write_all(out.get(), sums.data(), sums.size() * sizeof(double), path);
    write_all(out.get(), kept.data(), kept.size() * sizeof(uint32_t), path);
    write_all(out.get(), values.data(), values.size() * sizeof(float), path);
  }
  json::Value answer = json::Value::object();
  answer.set("finite", finite);
  if (finite) {
    struct stat info{};
    if (fstat(out.get(), &info) != 0) throw system_failure("cannot_stat", "cannot stat " + path);
    answer.set("size", static_cast<int64_t>(info.st_size))
        .set("sha256", hash_file(path))
        .set("source_sha256", source.hex());
  }
  print(answer);
}

}  // namespace farm::helper
