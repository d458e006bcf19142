#include "lease_file.h"

#include <algorithm>
#include <ctime>

#include "../common/posix.h"

namespace farm::helper {
namespace {

// Runs ask again every few seconds: whoever hasn't for so long waits no more.
constexpr int64_t kWaitsNs = 30'000'000'000;
constexpr size_t kMostWaiting = 32;

std::string lease_path(const std::string& root) { return root + "/lease"; }
std::string waiting_path(const std::string& root) { return root + "/lease.waiting"; }

std::string text_of(const json::Value& value, const std::string& name) {
  const json::Value* found = value.find(name);
  return found ? found->as_string() : "";
}

int64_t integer_of(const json::Value& value, const std::string& name) {
  const json::Value* found = value.find(name);
  return found ? found->as_int() : 0;
}

bool truth_of(const json::Value& value, const std::string& name) {
  const json::Value* found = value.find(name);
  return found && found->as_bool();
}

// Those who asked lately, by the one boot that their times are of.
std::vector<json::Value> recent(const std::string& root) {
  std::vector<json::Value> found;
  std::string text;
  if (!read_text(waiting_path(root), 65536, text)) return found;
  try {
    const json::Value value = json::parse(text);
    const json::Value* list = value.find("waiting");
    if (text_of(value, "boot_id") != boot_id() || !list) return found;
    for (const json::Value& entry : list->items()) {
      if (boottime_ns() - integer_of(entry, "asked_ns") < kWaitsNs) found.push_back(entry);
    }
  } catch (const Failure&) {
    found.clear();  // torn by a power cut: those who wait ask again
  }
  return found;
}

}  // namespace

double Lease::left_s() const {
  if (released) return 0;
  if (boot == boot_id()) {
    return std::max(0.0, static_cast<double>(expires_ns - boottime_ns()) / 1e9);
  }
  if (!lasting) return 0;
  // The wall clock of a board without a battery may stand still while it is off. What is left can't
  // be more than what was asked for less this boot's uptime.
  const double by_clock = static_cast<double>(expires_unix - time(nullptr));
  return std::max(0.0, std::min(by_clock, ttl_s - static_cast<double>(boottime_ns()) / 1e9));
}

void Lease::extend(double seconds) {
  boot = boot_id();
  expires_ns = boottime_ns() + static_cast<int64_t>(seconds * 1e9);
  expires_unix = time(nullptr) + static_cast<int64_t>(seconds);
  ttl_s = seconds;
}

Lease read_lease(const std::string& root) {
  Lease lease;
  std::string text;
  if (!read_text(lease_path(root), 65536, text)) return lease;
  try {
    const json::Value value = json::parse(text);
    lease.owner = text_of(value, "owner");
    lease.run = text_of(value, "run");
    lease.reason = text_of(value, "reason");
    lease.boot = text_of(value, "boot_id");
    lease.epoch = integer_of(value, "epoch");
    lease.expires_ns = integer_of(value, "expires_boottime_ns");
    lease.released = truth_of(value, "released");
    lease.lasting = truth_of(value, "lasting");
    lease.expires_unix = integer_of(value, "expires_unix");
    const json::Value* ttl = value.find("ttl_s");
    lease.ttl_s = ttl ? ttl->as_double() : 0;
    lease.ended_by = text_of(value, "ended_by");
    lease.ended_unix = integer_of(value, "ended_unix");
  } catch (const Failure&) {
    return Lease();  // only a power cut in mid-write leaves such a file, and no owner survives one
  }
  return lease;
}

void write_lease(const std::string& root, const Lease& lease) {
  write_atomic(lease_path(root), json::Value::object()
                                     .set("owner", lease.owner)
                                     .set("run", lease.run)
                                     .set("reason", lease.reason)
                                     .set("epoch", lease.epoch)
                                     .set("boot_id", lease.boot)
                                     .set("expires_boottime_ns", lease.expires_ns)
                                     .set("lasting", lease.lasting)
                                     .set("expires_unix", lease.expires_unix)
                                     .set("ttl_s", lease.ttl_s)
                                     .set("released", lease.released)
                                     .set("ended_by", lease.ended_by)
                                     .set("ended_unix", lease.ended_unix)
                                     .dump() + "\n");
}

void note_asked(const std::string& root, const std::string& owner, const std::string& run,
                bool in_vain) {
  json::Value list = json::Value::array();
  int64_t since = boottime_ns();
  size_t count = 0;
  bool waited = false;
  for (const json::Value& entry : recent(root)) {
    if (text_of(entry, "owner") == owner && text_of(entry, "run") == run) {
      since = integer_of(entry, "since_ns");
      waited = true;
    } else if (++count < kMostWaiting) {
      list.push(entry);
    }
  }
  if (!in_vain && !waited) return;
  if (in_vain) {
    list.push(json::Value::object()
                  .set("owner", owner)
                  .set("run", run)
                  .set("since_ns", since)
                  .set("asked_ns", boottime_ns()));
  }
  write_atomic(waiting_path(root),
               json::Value::object().set("boot_id", boot_id()).set("waiting", list).dump() + "\n");
}

json::Value waiting(const std::string& root) {
  json::Value list = json::Value::array();
  for (const json::Value& entry : recent(root)) {
    list.push(json::Value::object()
                  .set("owner", text_of(entry, "owner"))
                  .set("run", text_of(entry, "run"))
                  .set("waits_s", static_cast<double>(boottime_ns() - integer_of(entry, "since_ns")) / 1e9));
  }
  return list;
}

}  // namespace farm::helper
