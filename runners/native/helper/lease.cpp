// The lease of a device: one file, changed only under flock, expiring in uptime. A released or
// expired lease keeps its epoch, so that a controller that was overtaken can never come back.
#include "../common/posix.h"
#include "args.h"
#include "store.h"
#include "verbs.h"

namespace farm::helper {
namespace {

struct Lease {
  std::string owner;
  std::string run;
  std::string reason;  // of a hold, for people; empty for a run's lease
  int64_t epoch = 0;
  std::string boot;
  int64_t expires_ns = 0;
  bool released = true;

  bool live() const { return !released && boot == boot_id() && expires_ns > boottime_ns(); }
  bool of(const std::string& other_owner, const std::string& other_run) const {
    return owner == other_owner && run == other_run;
  }
};

std::string lease_path(const std::string& root) { return root + "/lease"; }

std::string text_of(const json::Value& value, const std::string& name) {
  const json::Value* found = value.find(name);
  return found ? found->as_string() : "";
}

Lease read_lease(const std::string& root) {
  Lease lease;
  std::string text;
  if (!read_text(lease_path(root), 65536, text)) return lease;
  try {
    const json::Value value = json::parse(text);
    const auto integer = [&](const char* name) {
      const json::Value* found = value.find(name);
      return found ? found->as_int() : 0;
    };
    lease.owner = text_of(value, "owner");
    lease.run = text_of(value, "run");
    lease.reason = text_of(value, "reason");
    lease.boot = text_of(value, "boot_id");
    lease.epoch = integer("epoch");
    lease.expires_ns = integer("expires_boottime_ns");
    const json::Value* released = value.find("released");
    lease.released = released && released->as_bool();
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
                                     .set("released", lease.released)
                                     .dump() + "\n");
}

double left_s(const Lease& lease) {
  return lease.live() ? static_cast<double>(lease.expires_ns - boottime_ns()) / 1e9 : 0.0;
}

json::Value describe(const Lease& lease) {
  const char* state = lease.owner.empty() || lease.released ? "free" : lease.live() ? "held" : "expired";
  json::Value out = json::Value::object();
  out.set("state", state);
  if (lease.owner.empty()) return out;
  return out.set("owner", lease.owner)
      .set("run", lease.run)
      .set("reason", lease.reason)
      .set("epoch", lease.epoch)
      .set("left_s", left_s(lease));
}

Failure held(const Lease& lease) {
  return Failure("held", "the device is held by " + lease.owner + " (run " + lease.run + ") for " +
                             std::to_string(static_cast<int64_t>(left_s(lease)) + 1) + " s more")
      .with("owner", lease.owner)
      .with("run", lease.run)
      .with("reason", lease.reason)
      .with("epoch", lease.epoch)
      .with("left_s", left_s(lease));
}

Failure stale(const Lease& lease, int64_t epoch) {
  return Failure("stale_epoch", "epoch " + std::to_string(epoch) + " of run " + lease.run +
                                    " was overtaken by epoch " + std::to_string(lease.epoch))
      .with("epoch", lease.epoch);
}

void grant(const std::string& root, Lease lease, const Args& args) {
  lease.owner = args.text("owner");
  lease.run = args.text("run");
  lease.reason = args.has("reason") ? args.text("reason") : "";
  lease.epoch = args.integer("epoch");
  lease.boot = boot_id();
  lease.expires_ns = boottime_ns() + static_cast<int64_t>(args.seconds("ttl-s") * 1e9);
  lease.released = false;
  write_lease(root, lease);
  print(describe(lease));
}

void take(const std::string& root, const Lease& now, const Args& args) {
  const bool ours = now.of(args.text("owner"), args.text("run"));
  if (ours && args.integer("epoch") < now.epoch) throw stale(now, args.integer("epoch"));
  const bool forced = args.has("from") && args.text("from") == now.owner;
  if (now.live() && !ours && !forced) throw held(now);
  grant(root, now, args);
}

void renew(const std::string& root, const Lease& now, const Args& args) {
  const bool ours = now.of(args.text("owner"), args.text("run")) && !now.released;
  if (ours && args.integer("epoch") < now.epoch) throw stale(now, args.integer("epoch"));
  if (ours && args.integer("epoch") == now.epoch) return grant(root, now, args);
  if (now.live()) throw held(now);
  throw Failure("not_held", "this lease is not held any more; take it again");
}

void release(const std::string& root, Lease now, const Args& args) {
  const bool forced = args.has("from") && args.text("from") == now.owner;
  if (!forced) {
    const bool ours = now.of(args.text("owner"), args.text("run"));
    if (ours && args.integer("epoch") < now.epoch) throw stale(now, args.integer("epoch"));
    if (!ours && now.live()) throw held(now);
    if (!ours) return print(describe(now));
  }
  now.released = true;
  if (!now.owner.empty()) write_lease(root, now);
  print(describe(now));
}

}  // namespace

void check_fence(const std::string& root, const std::string& run, const std::string& epoch) {
  if (run.empty() && epoch.empty()) return;
  const int64_t wanted = parse_integer(epoch, "--epoch");
  const Lease now = read_lease(root);
  if (now.run == run && now.epoch > wanted) throw stale(now, wanted);
  if (now.run == run && now.epoch == wanted && !now.released) return;
  if (now.live()) throw held(now);
  throw Failure("not_held", "run " + run + " does not hold the device");
}

void lease(const Words& words) {
  const Args args(words, Syntax{{"owner", "run", "epoch", "ttl-s", "from", "reason"}, {}, 2, 2});
  const std::string& root = args.positional()[0];
  const std::string& action = args.positional()[1];
  make_folders(root + "/objects");  // what is pushed next goes there
  const FileLock lock(root + "/lease.lock");
  const Lease now = read_lease(root);
  if (action == "take") return take(root, now, args);
  if (action == "renew") return renew(root, now, args);
  if (action == "release") return release(root, now, args);
  if (action == "show") return print(describe(now));
  throw Usage("lease take, renew, release or show, not " + action);
}

}  // namespace farm::helper
