// Folders of symbolic links to objects: what a job works in, and what a deployed version is.
#pragma once

#include <sys/stat.h>

#include <set>
#include <string>
#include <vector>

#include "store.h"

namespace farm::helper {

constexpr size_t kShaLength = 64;

struct Link {
  std::string sha;
  mode_t mode;
  std::string name;
};

std::vector<std::string> lines_of(const std::string& text);

// True for a regular file, never for a link.
bool is_file(const std::string& path, struct stat& info);

// Throws Usage when the text is no octal mode.
mode_t mode_argument(const std::string& text);

// Lines `SHA MODE NAME`. Throws Failure bad_manifest.
std::vector<Link> parse_links(const std::string& text);

// Makes one link in `folder`; `to_root` leads from there to the store's root, `../..` for example.
// Throws Failure missing_object.
void place(const Store& store, const std::string& folder, const std::string& to_root,
           const Link& link);

// What the link `name` to an object holds: a way through the folders that `to_root` leads out of.
std::string link_text(const std::string& to_root, const std::string& name, const std::string& sha);

// What a link holds; empty when the path is none.
std::string read_link(const std::string& path);

// The object that a link points to; empty when the path is no link to an object.
std::string target_of(const std::string& path);

// The shas that links below a folder point to.
void collect_references(const std::string& folder, std::set<std::string>& out);

}  // namespace farm::helper
