// The lease of a device: one file, changed only under flock, expiring in uptime. A released or
// expired lease keeps its epoch, so that a controller that was overtaken can never come back.
// A person's hold is the same file with an end of its own: a reboot doesn't end it.
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <ctime>

#include "../common/posix.h"
#include "args.h"
#include "lease_file.h"
#include "store.h"
#include "verbs.h"

namespace farm::helper {
namespace {

json::Value describe(const Lease& lease) {
  const char* state = lease.owner.empty() || lease.released ? "free" : lease.live() ? "held" : "expired";
  json::Value out = json::Value::object();
  out.set("state", state);
  if (lease.owner.empty()) return out;
  out.set("owner", lease.owner)
      .set("run", lease.run)
      .set("reason", lease.reason)
      .set("epoch", lease.epoch)
      .set("left_s", lease.left_s());
  if (!lease.ended_by.empty()) out.set("ended_by", lease.ended_by).set("ended_unix", lease.ended_unix);
  return out;
}

Failure held(const Lease& lease) {
  return Failure("held", "the device is held by " + lease.owner + " (run " + lease.run + ") for " +
                             std::to_string(static_cast<int64_t>(lease.left_s()) + 1) + " s more")
      .with("owner", lease.owner)
      .with("run", lease.run)
      .with("reason", lease.reason)
      .with("epoch", lease.epoch)
      .with("left_s", lease.left_s());
}

Failure stale(const Lease& lease, int64_t epoch) {
  return Failure("stale_epoch", "epoch " + std::to_string(epoch) + " of run " + lease.run +
                                    " was overtaken by epoch " + std::to_string(lease.epoch))
      .with("epoch", lease.epoch);
}

Failure not_held(const Lease& lease) {
  const bool ended = lease.released && !lease.ended_by.empty();
  return Failure("not_held", ended ? "this lease was ended by " + lease.ended_by
                                   : "this lease is not held any more; take it again");
}

void grant(const std::string& root, const Args& args) {
  Lease lease;
  lease.owner = args.text("owner");
  lease.run = args.text("run");
  lease.reason = args.text("reason", "");
  lease.epoch = args.integer("epoch");
  lease.lasting = args.has("lasting");
  lease.released = false;
  lease.extend(args.seconds("ttl-s"));
  write_lease(root, lease);
  print(describe(lease));
}

void take(const std::string& root, const Lease& now, const Args& args) {
  const bool ours = now.of(args.text("owner"), args.text("run"));
  if (ours && args.integer("epoch") < now.epoch) throw stale(now, args.integer("epoch"));
  const bool in_vain = now.live() && !ours;
  note_asked(root, args.text("owner"), args.text("run"), in_vain);
  if (in_vain) throw held(now);
  grant(root, args);
}

void renew(const std::string& root, const Lease& now, const Args& args) {
  const bool ours = now.of(args.text("owner"), args.text("run")) && !now.released;
  if (ours && args.integer("epoch") < now.epoch) throw stale(now, args.integer("epoch"));
  if (ours && args.integer("epoch") == now.epoch) return grant(root, args);
  if (now.live()) throw held(now);
  throw not_held(now);
}

void release(const std::string& root, Lease now, const Args& args) {
  const std::string owner = args.text("owner");
  // Of somebody else only with --force, and then it is written down who did it.
  const bool named = args.has("from") && args.text("from") == now.owner;
  if (named && now.live() && owner != now.owner && !args.has("force")) throw held(now);
  if (named) {
    now.ended_by = owner;
    now.ended_unix = time(nullptr);
  } else {
    const bool ours = now.of(owner, args.text("run"));
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
  throw Failure("not_held", now.run == run ? not_held(now).message()
                                           : "run " + run + " does not hold the device");
}

Renewal::Renewal(const std::string& root, const std::string& run, const std::string& epoch,
                 double ttl_s) {
  if (root.empty() || run.empty() || ttl_s <= 0) return;
  const int64_t wanted = parse_integer(epoch, "--epoch");
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) throw system_failure("no_pipe", "cannot make a pipe");
  const Fd quit(fds[0]);
  end_.reset(fds[1]);
  pid_ = fork();
  if (pid_ < 0) throw system_failure("no_fork", "cannot start a process");
  if (pid_ > 0) return;
  end_.reset();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  pollfd entry{quit.get(), POLLIN, 0};
  // Killed or finished, the verb closes its end of the pipe.
  while (::poll(&entry, 1, static_cast<int>(ttl_s * 1e3 / 3) + 1) == 0) {
    try {
      const FileLock lock(root + "/lease.lock");
      Lease now = read_lease(root);
      // Whoever took it away tells so in the next verb that needs it.
      if (now.run != run || now.epoch != wanted || now.released) _exit(0);
      now.extend(ttl_s);
      write_lease(root, now);
    } catch (const Failure&) {
      continue;
    }
  }
  _exit(0);
}

Renewal::~Renewal() {
  end_.reset();
  if (pid_ > 0) waitpid(pid_, nullptr, 0);
}

void lease(const Words& words) {
  const Args args(words, Syntax{{"owner", "run", "epoch", "ttl-s", "from", "reason"}, {"lasting", "force"}, 2, 2});
  const std::string& root = args.positional()[0];
  const std::string& action = args.positional()[1];
  make_folders(root + "/objects");  // what is pushed next goes there
  const FileLock lock(root + "/lease.lock");
  const Lease now = read_lease(root);
  if (action == "take") return take(root, now, args);
  if (action == "renew") return renew(root, now, args);
  if (action == "release") return release(root, now, args);
  if (action == "show") return print(describe(now).set("waiting", waiting(root)));
  throw Usage("lease take, renew, release or show, not " + action);
}

}  // namespace farm::helper
