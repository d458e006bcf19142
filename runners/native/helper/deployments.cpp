// ROOT/deployments/NAME/VERSION: links to objects; ROOT/deployments/NAME/current: a link to the
// version that is in use. A version appears whole, and `current` changes by one rename, so that a
// power cut leaves the old one or the new one.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <map>

#include "../common/posix.h"
#include "args.h"
#include "links.h"
#include "store.h"
#include "verbs.h"

namespace farm::helper {
namespace {

constexpr const char* kCurrent = "/current";
// From a version's folder to the store's root.
constexpr const char* kToRoot = "../../..";

// A version that can't be taken for the link to it, or for a folder in the making.
std::string version_argument(const std::string& text) {
  const std::string name = name_argument(text);
  if (name == "current") throw Usage("a version can't be called current");
  return name;
}

void sync_folder(const std::string& path) {
  const Fd folder = open_file(path, O_RDONLY | O_DIRECTORY);
  if (fsync(folder.get()) != 0) throw system_failure("write_failed", "cannot sync " + path);
}

// The version that is in use; empty where there is none.
std::string current_of(const std::string& folder) {
  return read_link(folder + kCurrent);
}

// Something in the place of the link, which no rename could replace or nobody would follow.
bool is_blocked(const std::string& folder) {
  struct stat info{};
  return lstat((folder + kCurrent).c_str(), &info) == 0 && !S_ISLNK(info.st_mode);
}

void check_unblocked(const std::string& folder, const std::string& name) {
  if (!is_blocked(folder)) return;
  throw Failure("blocked", "current of " + name + " is no link: somebody put it there; move " +
                               folder + kCurrent + " away");
}

bool is_folder(const std::string& path, struct stat& info) {
  return lstat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

// Paths of a version, with the object that each is; empty for anything but the link to it that
// `place` makes: another one may lead to a file that only bears an object's name.
void collect_links(const std::string& folder, const std::string& prefix,
                   std::map<std::string, std::string>& out) {
  for (const std::string& name : list_folder(folder + "/" + prefix)) {
    const std::string relative = prefix.empty() ? name : prefix + "/" + name;
    struct stat info{};
    if (lstat((folder + "/" + relative).c_str(), &info) != 0) continue;
    if (S_ISDIR(info.st_mode)) {
      collect_links(folder, relative, out);
    } else {
      const std::string sha = target_of(folder + "/" + relative);
      const bool ours = read_link(folder + "/" + relative) == link_text(kToRoot, relative, sha);
      out[relative] = ours ? sha : "";
    }
  }
}

json::Value describe_version(const std::string& folder, const std::string& name,
                             const std::string& version) {
  struct stat made{};
  const bool there = is_folder(folder + "/" + version, made);
  std::map<std::string, std::string> links;
  // Through a link to a folder elsewhere the same links would lead to other objects.
  if (there) collect_links(folder + "/" + version, "", links);
  json::Value files = json::Value::array();
  for (const auto& [path, sha] : links) {
    struct stat info{};
    const bool found = stat((folder + "/" + version + "/" + path).c_str(), &info) == 0;
    files.push(json::Value::object()
                   .set("path", path)
                   .set("sha256", sha)
                   .set("size", found ? json::Value(static_cast<int64_t>(info.st_size)) : json::Value())
                   .set("mode", found ? json::Value(info.st_mode & 0777) : json::Value()));
  }
  return json::Value::object()
      .set("name", name)
      .set("version", version)
      .set("installed_unix", there ? static_cast<int64_t>(made.st_mtim.tv_sec) : int64_t{0})
      .set("current", current_of(folder) == version)
      .set("files", files);
}

// Versions are told apart in time by their folders: a clock that was set back must not make the
// newest one the oldest.
void date_after(const std::string& parent, const std::string& folder) {
  struct stat info{};
  int64_t newest = 0;
  for (const std::string& version : list_folder(parent)) {
    if (version[0] == '.' || !is_folder(parent + "/" + version, info)) continue;
    newest = std::max(newest, static_cast<int64_t>(info.st_mtim.tv_sec));
  }
  if (!is_folder(folder, info) || info.st_mtim.tv_sec > newest) return;
  const timespec times[2] = {{0, UTIME_OMIT}, {static_cast<time_t>(newest + 1), 0}};
  if (utimensat(AT_FDCWD, folder.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) {
    throw system_failure("write_failed", "cannot date " + folder);
  }
}

void install(const Store& store, const std::string& name, const std::string& version) {
  const std::vector<Link> links = parse_links(read_stdin(1 << 20));
  const std::string parent = store.deployments() + "/" + name;
  const std::string folder = parent + "/" + version;
  make_folders(parent);
  std::map<std::string, std::string> wanted;
  for (const Link& link : links) wanted[link.name] = link.sha;
  std::map<std::string, std::string> found;
  if (exists(folder)) collect_links(folder, "", found);
  const json::Value out = json::Value::object().set("folder", folder).set("files", links.size());
  if (found == wanted) return print(json::Value(out).set("state", "present"));
  // A link to a version that is gone leaves nothing to replace.
  if (exists(folder) && current_of(parent) == version) {
    throw Failure("is_current", version + " of " + name + " is in use and not what it was");
  }
  const std::string temporary = parent + "/.new-" + version;
  remove_tree(temporary);
  try {
    make_folders(temporary);
    std::vector<std::string> shas;
    for (const auto& [path, sha] : wanted) shas.push_back(sha);
    for (const Link& link : links) place(store, temporary, kToRoot, link);
    store.mark_used(shas);
    date_after(parent, temporary);
    sync_folder(temporary);
    remove_tree(folder);
    if (rename(temporary.c_str(), folder.c_str()) != 0) {
      throw system_failure("write_failed", "cannot rename to " + folder);
    }
    sync_folder(parent);
  } catch (...) {
    remove_tree(temporary);
    throw;
  }
  print(json::Value(out).set("state", "installed"));
}

// Refuses when another version is in use than whoever asks has seen: somebody else switched.
void check_expected(const Args& args, const std::string& found, const std::string& name) {
  if (!args.has("expect") || args.text("expect") == found) return;
  throw Failure("changed", "of " + name + " " + (found.empty() ? "nothing" : found) +
                               " is in use, not " + args.text("expect"))
      .with("current", found);
}

void switch_to(const Store& store, const std::string& name, const std::string& version,
               const Args& args) {
  const std::string parent = store.deployments() + "/" + name;
  check_unblocked(parent, name);
  const std::string before = current_of(parent);
  struct stat info{};
  if (!is_folder(parent + "/" + version, info)) {
    throw Failure("no_version", "there is no version " + version + " of " + name);
  }
  if (before != version) {
    check_expected(args, before, name);
    const std::string temporary = parent + "/.current";
    unlink(temporary.c_str());
    if (symlink(version.c_str(), temporary.c_str()) != 0) {
      throw system_failure("cannot_link", "cannot link " + temporary);
    }
    if (rename(temporary.c_str(), (parent + kCurrent).c_str()) != 0) {
      throw system_failure("write_failed", "cannot switch " + name);
    }
    sync_folder(parent);
  }
  print(json::Value::object().set("name", name).set("version", version).set("before", before));
}

// Takes a name out of use: its versions stay.
void unset(const Store& store, const std::string& name, const Args& args) {
  const std::string parent = store.deployments() + "/" + name;
  check_unblocked(parent, name);
  const std::string before = current_of(parent);
  if (!before.empty()) {
    check_expected(args, before, name);
    if (unlink((parent + kCurrent).c_str()) != 0) {
      throw system_failure("write_failed", "cannot take " + name + " out of use");
    }
    sync_folder(parent);
  }
  print(json::Value::object().set("name", name).set("version", "").set("before", before));
}

void remove_version(const Store& store, const std::string& name, const std::string& version) {
  const std::string parent = store.deployments() + "/" + name;
  if (current_of(parent) == version) {
    throw Failure("is_current", version + " of " + name + " is in use");
  }
  const bool there = exists(parent + "/" + version);
  remove_tree(parent + "/" + version);
  if (list_folder(parent).empty()) rmdir(parent.c_str());
  print(json::Value::object().set("name", name).set("version", version).set("removed", there));
}

void list(const Store& store) {
  for (const std::string& name : list_folder(store.deployments())) {
    const std::string parent = store.deployments() + "/" + name;
    bool found = false;
    const std::string current = current_of(parent);
    for (const std::string& version : list_folder(parent)) {
      struct stat info{};
      if (version[0] == '.') continue;
      // What blocks the link is told as a version of its name, which no version can have.
      if (!is_folder(parent + "/" + version, info) && !(version == "current" && is_blocked(parent))) continue;
      found = found || version == current;
      print(describe_version(parent, name, version));
    }
    // A link to a version that is gone: whoever asks has to see it.
    if (!current.empty() && !found) print(describe_version(parent, name, current));
  }
}

}  // namespace

void deployment(const Words& words) {
  const Args args(words, Syntax{{"run", "epoch", "expect"}, {}, 2, 4});
  const Store store(args.positional()[0]);
  const std::string& action = args.positional()[1];
  const size_t count = args.positional().size();
  if (action == "list" && count == 2) return list(store);
  const std::string name = count > 2 ? name_argument(args.positional()[2]) : "";
  const bool whole = action == "unset";
  if (count != (whole ? 3U : 4U)) {
    throw Usage("deployment ROOT list | unset NAME | install|switch|remove NAME VERSION");
  }
  const std::string version = whole ? "" : version_argument(args.positional()[3]);
  make_folders(store.root);
  const FileLock lock(store.lock());
  check_fence(store.root, args.text("run", ""), args.text("epoch", ""));
  if (action == "install") return install(store, name, version);
  if (action == "switch") return switch_to(store, name, version, args);
  if (action == "unset") return unset(store, name, args);
  if (action == "remove") return remove_version(store, name, version);
  throw Usage("deployment list, install, switch, unset or remove, not " + action);
}

}  // namespace farm::helper
