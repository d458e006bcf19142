#include "store.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "../common/posix.h"
#include "../common/sha256.h"
#include "args.h"
#include "links.h"
#include "verbs.h"

namespace farm::helper {
namespace {

int64_t mtime_ns(const struct stat& info) {
  return static_cast<int64_t>(info.st_mtim.tv_sec) * 1000000000 + info.st_mtim.tv_nsec;
}

std::string stamp_text(const struct stat& info) {
  return std::to_string(info.st_size) + " " + std::to_string(mtime_ns(info)) + " " +
         std::to_string(info.st_ino) + " " + boot_id() + "\n";
}

json::Value describe(const Store& store, const std::string& sha, bool rehash, bool may_hash) {
  json::Value out = json::Value::object();
  out.set("sha256", sha);
  struct stat info{};
  struct stat part{};
  const bool has_part = is_file(store.part(sha), part);
  std::string state = has_part ? "partial" : "missing";
  if (is_file(store.object(sha), info)) {
    if (!rehash && store.stamped(sha, info)) {
      state = "ok";
    } else if (!may_hash) {
      state = "unstamped";
    } else if (hash_file(store.object(sha)) == sha) {
      store.write_stamp(sha);
      state = "ok";
    } else {
      unlink(store.stamp(sha).c_str());
      state = "changed";
    }
    out.set("size", static_cast<int64_t>(info.st_size));
  } else {
    out.set("size", nullptr);
  }
  out.set("part_size", static_cast<int64_t>(has_part ? part.st_size : 0));
  return out.set("state", state);
}

int64_t free_bytes(const std::string& path) {
  struct statvfs info{};
  if (statvfs(path.c_str(), &info) != 0) {
    throw system_failure("cannot_stat", "cannot ask for the space of " + path);
  }
  return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
}

struct Evictable {
  std::string path;
  std::string sha;
  int64_t size;
};

std::vector<Evictable> evictable(const Store& store, std::set<std::string> keep) {
  // What a work folder uses, and every deployed version: the one before is what a rollback needs.
  collect_references(store.work(), keep);
  collect_references(store.deployments(), keep);
  std::vector<Evictable> out;
  const auto add = [&](const std::string& path, const std::string& sha) {
    struct stat info{};
    if (keep.count(sha) || !is_file(path, info)) return;
    out.push_back({path, sha, static_cast<int64_t>(info.st_blocks) * 512});
  };
  for (const std::string& name : list_folder(store.root + "/objects")) {
    if (name.size() > kShaLength) add(store.root + "/objects/" + name, name.substr(0, kShaLength));
  }
  for (const std::string& sha : store.by_use()) add(store.object(sha), sha);
  return out;
}

}  // namespace

Renewal renewed(const Args& args, const std::string& root) {
  const double ttl_s = args.has("ttl-s") ? args.seconds("ttl-s") : 0;
  return Renewal(root, args.text("run", ""), args.text("epoch", ""), ttl_s);
}

bool Store::stamped(const std::string& sha, const struct stat& info) const {
  std::string text;
  return read_text(stamp(sha), 256, text) && text == stamp_text(info);
}

void Store::write_stamp(const std::string& sha) const {
  struct stat info{};
  if (!is_file(object(sha), info)) return;
  make_folders(root + "/stamps");
  write_atomic(stamp(sha), stamp_text(info));
}

std::vector<std::string> Store::by_use() const {
  std::string text;
  read_text(root + "/used", 1 << 20, text);
  const std::vector<std::string> used = lines_of(text);
  std::vector<std::string> order;
  for (const std::string& name : list_folder(root + "/objects")) {
    const bool known = std::find(used.begin(), used.end(), name) != used.end();
    if (name.size() == kShaLength && !known) order.push_back(name);
  }
  order.insert(order.end(), used.begin(), used.end());
  return order;
}

void Store::mark_used(const std::vector<std::string>& shas) const {
  std::string text;
  for (const std::string& sha : by_use()) {
    const bool newest = std::find(shas.begin(), shas.end(), sha) != shas.end();
    if (!newest && exists(object(sha))) text += sha + "\n";
  }
  for (const std::string& sha : shas) text += sha + "\n";
  write_atomic(root + "/used", text);
}

std::string sha_argument(const std::string& text) {
  const bool hex = text.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (text.size() != kShaLength || !hex) throw Usage("not a sha256 in lowercase hex: " + text);
  return text;
}

std::string name_argument(const std::string& text) {
  const char* allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  if (text.empty() || text.size() > 200 || text[0] == '.' ||
      text.find_first_not_of(allowed) != std::string::npos) {
    throw Usage("not a plain name: " + text);
  }
  return text;
}

std::string hash_file(const std::string& path) {
  const Fd fd = open_file(path, O_RDONLY);
  posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  Sha256 sha;
  std::vector<char> buffer(1 << 18);
  while (true) {
    const ssize_t got = read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw system_failure("read_failed", "cannot read " + path);
    if (got == 0) return sha.hex();
    sha.update(buffer.data(), static_cast<size_t>(got));
  }
}

void hash(const Words& words) {
  const Args args(words, Syntax{{"root", "run", "epoch", "ttl-s"}, {}, 1, 10000});
  const Renewal renewal = renewed(args, args.text("root", ""));
  for (const std::string& path : args.positional()) {
    struct stat info{};
    if (stat(path.c_str(), &info) != 0) throw system_failure("cannot_open", "cannot open " + path);
    if (!S_ISREG(info.st_mode)) throw Failure("not_a_file", path + " is not a regular file");
    print(json::Value::object()
              .set("path", path)
              .set("size", static_cast<int64_t>(info.st_size))
              .set("mtime_ns", mtime_ns(info))
              .set("inode", static_cast<uint64_t>(info.st_ino))
              .set("sha256", hash_file(path)));
  }
}

void have(const Words& words) {
  const Args args(words, Syntax{{"run", "epoch", "ttl-s"}, {"rehash", "no-hash"}, 1, 10000});
  const Store store(args.positional()[0]);
  const Renewal renewal = renewed(args, store.root);
  for (size_t i = 1; i < args.positional().size(); ++i) {
    print(describe(store, sha_argument(args.positional()[i]), args.has("rehash"),
                   !args.has("no-hash")));
  }
}

void commit(const Words& words) {
  const Args args(words, Syntax{{"mode", "run", "epoch", "ttl-s"}, {}, 3, 3});
  const Store store(args.positional()[0]);
  const std::string sha = sha_argument(args.positional()[1]);
  const int64_t size = parse_integer(args.positional()[2], "SIZE");
  const mode_t mode = mode_argument(args.text("mode", "600")) & 0700;
  check_fence(store.root, args.text("run", ""), args.text("epoch", ""));
  const Renewal renewal = renewed(args, store.root);
  const std::string part = store.part(sha);
  struct stat info{};
  if (!is_file(part, info)) throw Failure("missing_part", "nothing was pushed for " + sha);
  const auto part_size = static_cast<int64_t>(info.st_size);
  if (part_size < size) {
    throw Failure("incomplete", sha + " has " + std::to_string(part_size) + " of " +
                                    std::to_string(size) + " bytes; the rest can be sent")
        .with("part_size", part_size);
  }
  const std::string found = part_size == size ? hash_file(part) : "";
  if (found != sha) {
    unlink(part.c_str());
    throw Failure("mismatch", "what arrived for " + sha + " is not that content; it was removed")
        .with("found", found.empty() ? json::Value() : json::Value(found))
        .with("part_size", part_size);
  }
  const Fd fd = open_file(part, O_RDONLY);
  if (fchmod(fd.get(), mode) != 0) throw system_failure("cannot_chmod", "cannot chmod " + part);
  if (fsync(fd.get()) != 0) throw system_failure("write_failed", "cannot sync " + part);
  if (rename(part.c_str(), store.object(sha).c_str()) != 0) {
    throw system_failure("write_failed", "cannot rename " + part);
  }
  const Fd folder = open_file(store.root + "/objects", O_RDONLY | O_DIRECTORY);
  fsync(folder.get());
  store.write_stamp(sha);
  print(json::Value::object().set("sha256", sha).set("size", size).set("state", "ok"));
}

void assemble(const Words& words) {
  const Args args(words, Syntax{{"run", "epoch"}, {}, 2, 2});
  const Store store(args.positional()[0]);
  const std::string name = name_argument(args.positional()[1]);
  check_fence(store.root, args.text("run", ""), args.text("epoch", ""));
  const std::vector<Link> links = parse_links(read_stdin(1 << 20));
  make_folders(store.work());
  const FileLock lock(store.lock());
  const std::string folder = store.work() + "/" + name;
  if (exists(folder)) throw Failure("exists", "the work folder " + name + " is already there");
  const std::string temporary = store.work() + "/.new-" + name;
  remove_tree(temporary);
  try {
    make_folders(temporary);
    std::vector<std::string> shas;
    for (const Link& link : links) {
      place(store, temporary, "../..", link);
      if (std::find(shas.begin(), shas.end(), link.sha) == shas.end()) shas.push_back(link.sha);
    }
    store.mark_used(shas);
    if (rename(temporary.c_str(), folder.c_str()) != 0) {
      throw system_failure("write_failed", "cannot rename to " + folder);
    }
  } catch (...) {
    remove_tree(temporary);
    throw;
  }
  print(json::Value::object().set("work", folder).set("files", links.size()));
}

void gc(const Words& words) {
  const Args args(words, Syntax{{"need", "keep", "run", "epoch"}, {}, 1, 1});
  const Store store(args.positional()[0]);
  const int64_t need = args.integer("need");
  check_fence(store.root, args.text("run", ""), args.text("epoch", ""));
  std::set<std::string> keep;
  for (const std::string& sha : args.all("keep")) keep.insert(sha_argument(sha));
  make_folders(store.root);
  const FileLock lock(store.lock());
  const std::vector<Evictable> candidates = evictable(store, keep);
  int64_t reachable = free_bytes(store.root);
  for (const Evictable& item : candidates) reachable += item.size;
  if (reachable < need) {
    throw Failure("storage_full", "the device can free " + std::to_string(reachable) + " of " +
                                      std::to_string(need) + " bytes; nothing was removed")
        .with("free_bytes", free_bytes(store.root))
        .with("reachable_bytes", reachable);
  }
  json::Value evicted = json::Value::array();
  int64_t freed = 0;
  for (const Evictable& item : candidates) {
    if (free_bytes(store.root) >= need) break;
    if (unlink(item.path.c_str()) != 0) continue;
    unlink(store.stamp(item.sha).c_str());
    freed += item.size;
    evicted.push(item.sha);
  }
  print(json::Value::object()
            .set("evicted", evicted)
            .set("freed_bytes", freed)
            .set("free_bytes", free_bytes(store.root)));
}

}  // namespace farm::helper
