#include "sensors.h"

#include <glob.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "../common/posix.h"

namespace farm::helper {
namespace {

constexpr size_t kTextLimit = 512;
constexpr size_t kConfigLimit = 256 * 1024;
constexpr const char* kPowerModes = "/etc/nvpmodel.conf";
constexpr int64_t kSlowEvery = 10;

struct Pattern {
  const char* path;
  bool slow;
};

// Clocks, throttling and power move in tenths of a second; heat and charge in seconds, and some
// drivers take a millisecond to read them.
constexpr Pattern kPatterns[] = {
    {"/proc/stat", false},
    {"/proc/loadavg", true},
    {"/sys/class/thermal/thermal_zone*/temp", true},
    {"/sys/class/thermal/cooling_device*/cur_state", true},
    {"/sys/class/power_supply/*/status", true},
    {"/sys/class/power_supply/*/temp", true},
    {"/sys/class/power_supply/*/capacity", true},
    {"/sys/class/power_supply/*/current_now", false},
    {"/sys/class/power_supply/*/voltage_now", false},
    {"/sys/class/hwmon/hwmon*/power*_input", false},
    {"/sys/class/hwmon/hwmon*/energy*_input", false},
    {"/sys/class/hwmon/hwmon*/in*_lcrit_alarm", true},
    {"/sys/bus/i2c/drivers/ina3221*/*/iio:device*/in_power*_input", false},
    {"/sys/class/powercap/intel-rapl:[0-9]/energy_uj", false},
    {"/sys/devices/platform/soc*/soc*:firmware/get_throttled", false},
    {"/var/lib/nvpmodel/status", true},
};

// Texts that don't change while a job runs: what the sensors above are called.
constexpr const char* kNames[] = {
    "/sys/class/thermal/thermal_zone*/type",
    "/sys/class/thermal/cooling_device*/type",
    "/sys/class/power_supply/*/type",
    "/sys/class/hwmon/hwmon*/name",
    "/sys/class/hwmon/hwmon*/in*_label",
    "/sys/class/hwmon/hwmon*/power*_label",
    "/sys/bus/i2c/drivers/ina3221*/*/iio:device*/rail_name_*",
    "/sys/class/powercap/intel-rapl:[0-9]/name",
};

// The rails of an INA3221 as hwmon shows them: voltage and current apart.
constexpr Pattern kRails[] = {
    {"/sys/class/hwmon/hwmon*/in[1-3]_input", false},
    {"/sys/class/hwmon/hwmon*/curr[1-3]_input", false},
};

std::vector<std::string> matches(const std::string& pattern) {
  std::vector<std::string> found;
  glob_t result{};
  if (glob(pattern.c_str(), 0, nullptr, &result) == 0) {
    for (size_t i = 0; i < result.gl_pathc; ++i) found.emplace_back(result.gl_pathv[i]);
  }
  globfree(&result);
  return found;
}

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\0')) text.pop_back();
  return text;
}

// Controllers and path of one line of /proc/PID/cgroup, `4:cpu,cpuacct:/path`.
bool parse_group(const std::string& line, std::string& controllers, std::string& path) {
  const size_t first = line.find(':');
  const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
  if (second == std::string::npos) return false;
  controllers = line.substr(first + 1, second - first - 1);
  path = line.substr(second + 1);
  return !path.empty() && path[0] == '/' && path.find("..") == std::string::npos;
}

bool has_cpu(const std::string& controllers) {
  return ("," + controllers + ",").find(",cpu,") != std::string::npos;
}

}  // namespace

std::string first_line(const std::string& path) {
  std::string text;
  if (!read_text(path, kTextLimit, text)) return "";
  return text.substr(0, text.find('\n'));
}

Sensors::Sensors(std::string root, pid_t pid) : root_(std::move(root)) {
  // One policy is one cluster; where a kernel shows none, every core has the files.
  find("/sys/devices/system/cpu/cpufreq/policy[0-9]*/scaling_max_freq", false);
  find("/sys/devices/system/cpu/cpufreq/policy[0-9]*/scaling_cur_freq", false);
  if (sensors_.empty()) {
    find("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_max_freq", false);
    find("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq", false);
  }
  if (pid > 0) {
    sensors_.push_back({"/proc/" + std::to_string(pid) + "/stat", false});
  }
  find_cgroups(pid);
  for (const Pattern& pattern : kPatterns) find(pattern.path, pattern.slow);
  for (const char* pattern : kNames) keep(pattern);
  for (const auto& name : names_.members()) {
    if (name.second.as_string().rfind("ina3221", 0) != 0) continue;
    for (const Pattern& rail : kRails) find(rail.path, rail.slow);
    break;
  }
  keep_lines(kPowerModes, "POWER_MODEL ID=");
}

bool Sensors::add_processes(const std::vector<pid_t>& pids) {
  bool added = false;
  for (const pid_t pid : pids) {
    const std::string path = "/proc/" + std::to_string(pid) + "/stat";
    const bool known = std::any_of(sensors_.begin(), sensors_.end(),
                                   [&](const Sensor& sensor) { return sensor.path == path; });
    if (known) continue;
    sensors_.push_back({path, false});
    added = true;
  }
  return added;
}

void Sensors::find(const char* pattern, bool slow) {
  for (const std::string& path : matches(root_ + pattern)) {
    sensors_.push_back({path.substr(root_.size()), slow});
  }
}

void Sensors::keep(const char* pattern) {
  for (const std::string& path : matches(root_ + pattern)) {
    names_.set(path.substr(root_.size()), first_line(path));
  }
}

// Of a long file only the lines that hold a word.
void Sensors::keep_lines(const char* path, const char* word) {
  std::string text, kept;
  if (!read_text(root_ + path, kConfigLimit, text)) return;
  for (size_t from = 0; from < text.size();) {
    const size_t to = std::min(text.find('\n', from), text.size());
    const std::string line = text.substr(from, to - from);
    if (line.find(word) != std::string::npos) kept += line + "\n";
    from = to + 1;
  }
  names_.set(path, kept.substr(0, kTextLimit * 8));
}

// The job's group and those above it: any of them may have a quota.
void Sensors::find_cgroups(pid_t pid) {
  const std::string who = pid > 0 ? std::to_string(pid) : "self";
  std::string text;
  if (!read_text(root_ + "/proc/" + who + "/cgroup", 8192, text)) return;
  std::vector<std::string> found;
  for (size_t from = 0; from < text.size();) {
    const size_t to = std::min(text.find('\n', from), text.size());
    std::string controllers, path;
    if (parse_group(text.substr(from, to - from), controllers, path) &&
        (controllers.empty() || has_cpu(controllers))) {
      const std::vector<std::string> mounts =
          controllers.empty()
              ? std::vector<std::string>{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}
              : std::vector<std::string>{"/sys/fs/cgroup/" + controllers, "/sys/fs/cgroup/cpu",
                                         "/dev/cpuctl"};
      while (true) {
        for (const std::string& mount : mounts) {
          found.push_back(mount + (path == "/" ? "" : path) + "/cpu.stat");
        }
        if (path == "/") break;
        path = path.substr(0, std::max<size_t>(path.rfind('/'), 1));
      }
    }
    from = to + 1;
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  for (const std::string& path : found) {
    if (exists(root_ + path)) sensors_.push_back({path, false});
  }
}

json::Value Sensors::describe(double interval_s) const {
  json::Value paths = json::Value::array();
  for (const Sensor& sensor : sensors_) paths.push(sensor.path);
  return json::Value::object()
      .set("type", "sensors")
      .set("interval_s", interval_s)
      .set("clock_ticks", sysconf(_SC_CLK_TCK))
      .set("paths", paths)
      .set("names", names_);
}

json::Value Sensors::sample(bool all) {
  const bool slow = all || count_ % kSlowEvery == 0;
  ++count_;
  json::Value texts = json::Value::object();
  const int64_t now = monotonic_ns();
  for (size_t i = 0; i < sensors_.size(); ++i) {
    if (sensors_[i].slow && !slow) continue;
    std::string text;
    const bool read = read_text(root_ + sensors_[i].path, kTextLimit, text);
    // Of /proc/stat the first line is the sum of all cores; the rest may be long.
    if (sensors_[i].path == "/proc/stat") text = text.substr(0, text.find('\n'));
    texts.set(std::to_string(i), read ? json::Value(trimmed(text)) : json::Value());
  }
  timespec cpu{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
  return json::Value::object()
      .set("type", "sample")
      .set("t_ns", static_cast<long long>(now))
      .set("cost_ns", static_cast<long long>(cpu.tv_sec) * 1000000000 + cpu.tv_nsec)
      .set("texts", texts);
}

}  // namespace farm::helper
