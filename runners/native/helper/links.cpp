#include "links.h"

#include <unistd.h>

#include <algorithm>

#include "../common/posix.h"
#include "args.h"

namespace farm::helper {
namespace {

std::string relative_name(const std::string& name) {
  if (name.empty() || name.front() == '/' || name.back() == '/') {
    throw Failure("bad_manifest", "not a relative file name: " + name);
  }
  for (size_t from = 0; from <= name.size();) {
    const size_t end = std::min(name.find('/', from), name.size());
    const std::string step = name.substr(from, end - from);
    if (step.empty() || step == "." || step == "..") {
      throw Failure("bad_manifest", "a name must stay inside the work folder: " + name);
    }
    from = end + 1;
  }
  return name;
}

}  // namespace

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t from = 0; from < text.size();) {
    const size_t end = std::min(text.find('\n', from), text.size());
    if (end > from) lines.push_back(text.substr(from, end - from));
    from = end + 1;
  }
  return lines;
}

bool is_file(const std::string& path, struct stat& info) {
  return lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

mode_t mode_argument(const std::string& text) {
  mode_t mode = 0;
  for (const char c : text) {
    if (c < '0' || c > '7') throw Usage("a mode is octal, not " + text);
    mode = mode * 8 + static_cast<mode_t>(c - '0');
  }
  if (text.empty() || text.size() > 4 || mode > 0777) throw Usage("not a file mode: " + text);
  return mode;
}

std::vector<Link> parse_links(const std::string& text) {
  std::vector<Link> links;
  std::set<std::string> names;
  for (const std::string& line : lines_of(text)) {
    const size_t first = line.find(' ');
    const size_t second = first == std::string::npos ? first : line.find(' ', first + 1);
    if (second == std::string::npos) {
      throw Failure("bad_manifest", "a line is `SHA MODE NAME`, not: " + line);
    }
    links.push_back({sha_argument(line.substr(0, first)),
                     mode_argument(line.substr(first + 1, second - first - 1)),
                     relative_name(line.substr(second + 1))});
    if (!names.insert(links.back().name).second) {
      throw Failure("bad_manifest", "the name stands twice: " + links.back().name);
    }
  }
  return links;
}

void place(const Store& store, const std::string& folder, const std::string& to_root,
           const Link& link) {
  const std::string path = folder + "/" + link.name;
  make_folders(path.substr(0, path.rfind('/')));
  const std::string target = link_text(to_root, link.name, link.sha);
  struct stat info{};
  if (!is_file(store.object(link.sha), info)) {
    throw Failure("missing_object", "no object " + link.sha + " for " + link.name)
        .with("sha256", link.sha);
  }
  // The owner's bits only: whatever the manifest asks for, nobody else may read these folders.
  const mode_t mode = (info.st_mode | link.mode) & 0700;
  if ((info.st_mode & 0777) != mode && chmod(store.object(link.sha).c_str(), mode) != 0) {
    throw system_failure("cannot_chmod", "cannot set the mode of " + link.sha);
  }
  if (symlink(target.c_str(), path.c_str()) != 0) {
    throw system_failure("cannot_link", "cannot link " + path);
  }
}

std::string link_text(const std::string& to_root, const std::string& name, const std::string& sha) {
  std::string text = to_root + "/objects/" + sha;
  for (const char c : name) {
    if (c == '/') text = "../" + text;
  }
  return text;
}

std::string read_link(const std::string& path) {
  char target[4096];
  const ssize_t length = readlink(path.c_str(), target, sizeof target);
  return std::string(target, length > 0 ? static_cast<size_t>(length) : 0);
}

std::string target_of(const std::string& path) {
  const std::string text = read_link(path);
  return text.size() > kShaLength ? text.substr(text.size() - kShaLength) : "";
}

void collect_references(const std::string& folder, std::set<std::string>& out) {
  for (const std::string& name : list_folder(folder)) {
    const std::string path = folder + "/" + name;
    struct stat info{};
    if (lstat(path.c_str(), &info) != 0) continue;
    if (S_ISDIR(info.st_mode)) {
      collect_references(path, out);
    } else if (S_ISLNK(info.st_mode)) {
      const std::string sha = target_of(path);
      if (!sha.empty()) out.insert(sha);
    }
  }
}

}  // namespace farm::helper
