#include "request.h"

#include <functional>
#include <map>
#include <set>

#include "../common/failure.h"
#include "own_code.h"

namespace farm::runner {
namespace {

using json::Value;
using Kind = Value::Kind;

constexpr int64_t kMaxTokens = 1 << 22;
constexpr int64_t kMaxCount = 1 << 20;

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw Failure("bad_request", where + ": " + what).with("where", where);
}

int64_t integer(const Value& value, const std::string& where, int64_t low, int64_t high) {
  if (!value.is(Kind::Int)) refuse(where, "a whole number is needed");
  if (value.as_int() < low || value.as_int() > high) {
    refuse(where, "must be from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return value.as_int();
}

const std::vector<Value>& items(const Value& value, const std::string& where, size_t most) {
  if (!value.is(Kind::Array)) refuse(where, "a list is needed");
  if (value.items().size() > most) refuse(where, "has more than " + std::to_string(most) + " items");
  return value.items();
}

std::vector<int64_t> integers(const Value& value, const std::string& where, size_t most,
                              int64_t low, int64_t high) {
  std::vector<int64_t> out;
  for (const Value& item : items(value, where, most)) {
    out.push_back(integer(item, where + "[" + std::to_string(out.size()) + "]", low, high));
  }
  return out;
}

std::vector<int64_t> token_ids(const Value& value, const std::string& where) {
  return integers(value, where, kMaxTokens, 0, INT32_MAX);
}

std::string text(const Value& value, const std::string& where) {
  if (!value.is(Kind::String)) refuse(where, "a text is needed");
  return value.as_string();
}

// A name that becomes part of a file's name.
std::string plain_name(const Value& value, const std::string& where) {
  const std::string name = text(value, where);
  const char* allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@+";
  if (name.empty() || name.size() > 64 || name[0] == '.' ||
      name.find_first_not_of(allowed) != std::string::npos) {
    refuse(where, "a name of up to 64 letters, digits and ._-@+ is needed");
  }
  return name;
}

using Readers = std::map<std::string, std::function<void(const Value&, const std::string&)>>;

// Hands each member to its reader; refuses members without one, and absent needed ones.
void read_members(const Value& value, const std::string& where, const Readers& readers,
                  const std::set<std::string>& needed) {
  if (!value.is(Kind::Object)) refuse(where, "an object is needed");
  const std::string prefix = where.empty() ? "" : where + ".";
  for (const auto& [name, member] : value.members()) {
    const auto reader = readers.find(name);
    if (reader == readers.end()) refuse(prefix + name, "unknown member");
    reader->second(member, prefix + name);
  }
  for (const std::string& name : needed) {
    if (!value.find(name)) refuse(prefix + name, "is missing");
  }
}

Affinity read_affinity(const Value& value, const std::string& where) {
  Affinity out;
  if (value.is(Kind::Array)) {
    out.automatic = false;
    for (const int64_t core : integers(value, where, 1024, 0, 1023)) {
      out.cores.push_back(static_cast<int>(core));
    }
    if (out.cores.empty()) refuse(where, "the list of cores is empty");
    return out;
  }
  const std::string word = text(value, where);
  if (word != "auto" && word != "none") refuse(where, "auto, none or a list of cores");
  out.automatic = word == "auto";
  return out;
}

bool boolean(const Value& value, const std::string& where) {
  if (!value.is(Kind::Bool)) refuse(where, "true or false is needed");
  return value.as_bool();
}

LogitsPass read_pass(const Value& value, const std::string& where) {
  LogitsPass pass;
  read_members(value, where,
               {{"name", [&](auto& v, auto& w) { pass.name = plain_name(v, w); }},
                {"chunks", [&](auto& v, auto& w) { pass.chunks = integers(v, w, kMaxTokens, 1, kMaxCount); }}},
               {"name", "chunks"});
  if (pass.chunks.empty()) refuse(where + ".chunks", "the list is empty");
  return pass;
}

Measure read_measure(const Value& value, const std::string& where) {
  Measure m;
  const auto count = [&](int64_t& to, int64_t low) {
    return [&to, low](const Value& v, const std::string& w) { to = integer(v, w, low, kMaxCount); };
  };
  read_members(value, where,
               {{"name", [&](auto& v, auto& w) { m.name = plain_name(v, w); }},
                {"prefill", count(m.prefill, 0)},
                {"decode", count(m.decode, 0)},
                {"depth", count(m.depth, 0)},
                {"repetitions", count(m.repetitions, 1)},
                {"warmup", count(m.warmup, 0)},
                {"window_ms", count(m.window_ms, 0)}},
               {"name"});
  if (m.prefill + m.decode == 0) refuse(where, "prefill and decode are both 0");
  return m;
}

Generate read_generate(const Value& value, const std::string& where) {
  Generate out;
  if (value.is(Kind::Null)) return out;
  out.wanted = true;
  read_members(value, where,
               {{"prompt", [&](auto& v, auto& w) { out.prompt = token_ids(v, w); }},
                {"max_new_tokens", [&](auto& v, auto& w) { out.max_new_tokens = integer(v, w, 1, kMaxCount); }},
                {"stop", [&](auto& v, auto& w) { out.stop = token_ids(v, w); }},
                {"stream", [&](auto& v, auto& w) { out.stream = boolean(v, w); }}},
               {"prompt", "max_new_tokens"});
  if (out.prompt.empty()) refuse(where + ".prompt", "the list is empty");
  return out;
}

template <class Item>
std::vector<Item> read_list(const Value& value, const std::string& where,
                            Item (*read)(const Value&, const std::string&)) {
  std::vector<Item> out;
  std::set<std::string> names;
  for (const Value& item : items(value, where, 256)) {
    out.push_back(read(item, where + "[" + std::to_string(out.size()) + "]"));
    if (!names.insert(out.back().name).second) {
      refuse(where, "the name " + out.back().name + " stands twice");
    }
  }
  return out;
}

void check_protocol(const Value& document) {
  const Value* protocol = document.find("protocol");
  if (!document.is(Kind::Object) || !protocol || !protocol->is(Kind::Int)) {
    refuse("protocol", "a request is an object with the protocol's number");
  }
  if (protocol->as_int() != kProtocol) {
    throw Failure("unsupported_protocol", "this runner speaks protocol " + std::to_string(kProtocol) +
                                              ", not " + std::to_string(protocol->as_int()))
        .with("where", "protocol");
  }
}

}  // namespace

Request parse_request(const std::string& source) {
  const Value document = json::parse(source);
  check_protocol(document);
  Request out;
  const Readers readers = {
      {"protocol", [](auto&, auto&) {}},
      {"threads", [&](auto& v, auto& w) { out.threads = integer(v, w, 0, 1024); }},
      {"affinity", [&](auto& v, auto& w) { out.affinity = read_affinity(v, w); }},
      {"load",
       [&](auto& v, auto& w) {
         const std::string how = text(v, w);
         if (how != "mmap" && how != "file") refuse(w, "mmap or file");
         out.map_file = how == "mmap";
       }},
      {"isa", [&](auto& v, auto& w) { out.isa = text(v, w); }},
      {"xnnpack_isa", [&](auto& v, auto& w) { out.xnnpack_isa = text(v, w); }},
      {"sdpa_order",
       [&](auto& v, auto& w) { out.sdpa_order = integer(v, w, 0, attention_orders() - 1); }},
      {"tokens", [&](auto& v, auto& w) { out.tokens = token_ids(v, w); }},
      {"logits", [&](auto& v, auto& w) { out.logits = read_list(v, w, read_pass); }},
      {"generate", [&](auto& v, auto& w) { out.generate = read_generate(v, w); }},
      {"measure", [&](auto& v, auto& w) { out.measure = read_list(v, w, read_measure); }},
      {"turns", [&](auto& v, auto& w) { out.turns = boolean(v, w); }},
      {"profile", [&](auto& v, auto& w) { out.profile = read_list(v, w, read_measure); }}};
  read_members(document, "", readers, {});
  if (!out.profile.empty() && !out.measure.empty()) {
    refuse("profile", "tracing would slow the windows of measure: ask for one of them");
  }
  for (const LogitsPass& pass : out.logits) {
    int64_t total = 0;
    for (const int64_t chunk : pass.chunks) total += chunk;
    if (total > static_cast<int64_t>(out.tokens.size())) {
      refuse("logits", "pass " + pass.name + " feeds " + std::to_string(total) + " tokens, but only " +
                           std::to_string(out.tokens.size()) + " are given");
    }
  }
  return out;
}

}  // namespace farm::runner
