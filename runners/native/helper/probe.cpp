// `probe`: raw facts of the machine in one document. It reads and never interprets; the parsers
// are Python and pure.
#include <dirent.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "../common/cpu.h"
#include "../common/posix.h"
#include "../common/sha256.h"
#include "args.h"
#include "verbs.h"

namespace farm::helper {
namespace {

constexpr size_t kFileLimit = 64 * 1024;

constexpr const char* kFiles[] = {
    "/proc/cpuinfo", "/proc/meminfo", "/proc/version", "/proc/loadavg", "/proc/stat",
    "/proc/cmdline", "/proc/self/cgroup", "/proc/self/status", "/etc/machine-id", "/etc/os-release",
    "/usr/lib/os-release", "/etc/nv_tegra_release", "/proc/sys/kernel/random/boot_id",
    "/proc/device-tree/model", "/proc/device-tree/compatible", "/sys/class/dmi/id/sys_vendor",
    "/sys/class/dmi/id/product_name", "/sys/hypervisor/type",
    "/sys/devices/system/cpu/online", "/sys/devices/system/cpu/possible",
    "/sys/devices/soc0/machine", "/sys/devices/soc0/soc_id",
    "/sys/devices/platform/soc/soc:firmware/get_throttled",
    "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/cpuset.cpus.effective",
    "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us",
    "/sys/fs/cgroup/cpu/cpu.stat", "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/cpuset/cpuset.cpus"};

struct Family {
  const char* folder;
  const char* prefix;
  const char* leaves[6];
};

constexpr Family kFamilies[] = {
    {"/sys/devices/system/cpu", "cpu",
     {"cpufreq/cpuinfo_max_freq", "cpufreq/cpuinfo_min_freq", "cpufreq/scaling_max_freq",
      "cpufreq/scaling_cur_freq", "cpufreq/scaling_governor", "cpu_capacity"}},
    {"/sys/devices/system/cpu", "cpu",
     {"topology/core_id", "topology/physical_package_id", "topology/thread_siblings_list"}},
    {"/sys/class/thermal", "thermal_zone", {"type", "temp"}},
    {"/sys/class/thermal", "cooling_device", {"type", "cur_state", "max_state"}},
    {"/sys/class/power_supply", "",
     {"type", "temp", "capacity", "status", "voltage_now", "current_now"}},
    {"/sys/class/hwmon", "hwmon", {"name", "temp1_input", "in1_input", "curr1_input", "power1_input"}}};

// Reads files below a prefix, so that tests can show a made /proc and /sys, and names them without.
class Reader {
 public:
  explicit Reader(std::string sysroot) : sysroot_(std::move(sysroot)) {}

  void add(const std::string& path) {
    std::string text;
    if (!files_.find(path) && read_text(sysroot_ + path, kFileLimit, text)) files_.set(path, text);
  }

  void add_family(const Family& family) {
    const std::string prefix = family.prefix;
    for (const std::string& name : list_folder(sysroot_ + family.folder)) {
      if (name.rfind(prefix, 0) != 0) continue;
      for (const char* leaf : family.leaves) {
        if (leaf) add(std::string(family.folder) + "/" + name + "/" + leaf);
      }
    }
  }

  json::Value take() { return std::move(files_); }

 private:
  std::string sysroot_;
  json::Value files_ = json::Value::object();
};

json::Value filesystem(const std::string& path) {
  struct statvfs info{};
  if (statvfs(path.c_str(), &info) != 0) return json::Value();
  const auto unit = static_cast<int64_t>(info.f_frsize);
  return json::Value::object()
      .set("total_bytes", static_cast<int64_t>(info.f_blocks) * unit)
      .set("free_bytes", static_cast<int64_t>(info.f_bavail) * unit)
      .set("read_only", (info.f_flag & ST_RDONLY) != 0)
      .set("no_exec", (info.f_flag & ST_NOEXEC) != 0);
}

json::Value features() {
  json::Value names = json::Value::array();
  for (const std::string& name : cpu_features()) names.push(name);
  return names;
}

json::Value system_name() {
  utsname name{};
  uname(&name);
  return json::Value::object()
      .set("sysname", name.sysname)
      .set("nodename", name.nodename)
      .set("release", name.release)
      .set("version", name.version)
      .set("machine", name.machine);
}

}  // namespace

void probe(const Words& words) {
  const Args args(words, Syntax{{"root", "sysroot"}, {}, 0, 256});
  Reader reader(args.text("sysroot", ""));
  for (const char* path : kFiles) reader.add(path);
  for (const Family& family : kFamilies) reader.add_family(family);
  json::Value filesystems = json::Value::object();
  const std::string root = args.text("root", ".");
  filesystems.set(root, filesystem(root));
  for (const std::string& path : args.positional()) {
    struct stat info{};
    if (stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
      if (!filesystems.find(path)) filesystems.set(path, filesystem(path));
    } else {
      reader.add(path);
    }
  }
  print(json::Value::object()
            .set("uname", system_name())
            .set("boot_id", boot_id())
            .set("uptime_ns", boottime_ns())
            .set("page_size", sysconf(_SC_PAGESIZE))
            .set("nproc", sysconf(_SC_NPROCESSORS_ONLN))
            .set("nproc_configured", sysconf(_SC_NPROCESSORS_CONF))
            .set("uid", static_cast<int64_t>(getuid()))
            .set("hwcap", getauxval(AT_HWCAP))
            .set("hwcap2", getauxval(AT_HWCAP2))
            .set("cpu_features", features())
            .set("sha256_implementation", Sha256::implementation())
            .set("filesystems", filesystems)
            .set("files", reader.take()));
}

}  // namespace farm::helper
