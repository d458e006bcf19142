#include "calibrate.h"

#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include "../common/posix.h"
#include "sensors.h"

namespace farm::helper {
namespace {

constexpr size_t kMostCores = 64;
constexpr int kFewestUnits = 3;
// Steps of a unit of each kind: some milliseconds of a core.
constexpr int kChained = 2000000;
constexpr int kWide = 1000000;
// Memory of which single cache lines are read, here and there: more than a core's own caches.
constexpr size_t kMemory = size_t{32} << 20;
constexpr size_t kLine = 64;
constexpr int kReads = 20000;
constexpr int kRounds = 40;

struct Core {
  int cpu = 0;
  int units = 0;
  // CPU time of the fastest unit of each kind.
  int64_t unit_ns = 0;
  int64_t wide_ns = 0;
  int64_t cpu_ns = 0;
  int64_t wall_ns = 0;
};

int64_t thread_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000000000 + now.tv_nsec;
}

// A linear congruential generator (Knuth, MMIX).
uint64_t next(uint64_t state) { return state * 6364136223846793005ULL + 1442695040888963407ULL; }

// Each step needs the last one's result, so no core can do two at once: this shows its clock.
uint64_t chained(uint64_t state) {
  for (int i = 0; i < kChained; ++i) {
    state = next(state);
#if defined(__GNUC__)
    __asm__ volatile("" : "+r"(state));
#endif
  }
  return state;
}

// As much at once as the core can do: this also shows who shares its units with it, as the other
// thread of a core does, unseen by a guest of a hypervisor.
uint64_t wide(uint64_t state) {
  const auto step = [](uint64_t lane, uint64_t i) { return (lane + i) ^ (lane >> 7); };
  uint64_t a = state, b = a + 1, c = a + 2, d = a + 3, e = a + 4, f = a + 5, g = a + 6, h = a + 7;
  for (uint64_t i = 0; i < kWide; ++i) {
    a = step(a, i), b = step(b, i), c = step(c, i), d = step(d, i);
    e = step(e, i), f = step(f, i), g = step(g, i), h = step(h, i);
#if defined(__GNUC__)
    __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f), "+r"(g), "+r"(h));
#endif
  }
  return a + b + c + d + e + f + g + h;
}

void keep_least(int64_t took, int64_t& least) {
  if (least == 0 || took < least) least = took;
}

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  sched_setaffinity(0, sizeof set, &set);
}

// What others do with the memory that all cores share, on this device or beside a guest of a
// hypervisor, shows nowhere else. CPU time of `kReads` reads, nanoseconds: the first quartile of
// many rounds. 0: there is no memory for it.
int64_t read_memory(int cpu) {
  pin(cpu);
  void* const mapped =
      mmap(nullptr, kMemory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return 0;
#ifdef MADV_HUGEPAGE
  madvise(mapped, kMemory, MADV_HUGEPAGE);  // as the weights have them, where there are any
#endif
  memset(mapped, 1, kMemory);
  const auto* const bytes = static_cast<const volatile unsigned char*>(mapped);
  std::vector<int64_t> rounds;
  uint64_t state = 1;
  for (int round = 0; round < kRounds; ++round) {
    const int64_t before = thread_ns();
    for (int i = 0; i < kReads; ++i) {
      state = next(state);
      (void)bytes[(state >> 33) % (kMemory / kLine) * kLine];
    }
    rounds.push_back(thread_ns() - before);
  }
  munmap(mapped, kMemory);
  std::nth_element(rounds.begin(), rounds.begin() + kRounds / 4, rounds.end());
  return rounds[kRounds / 4];
}

void measure(Core& core, int64_t wall_ns) {
  pin(core.cpu);
  const int64_t wall_start = monotonic_ns();
  const int64_t cpu_start = thread_ns();
  uint64_t state = static_cast<uint64_t>(core.cpu);
  int64_t before = cpu_start;
  while (core.units < kFewestUnits || monotonic_ns() - wall_start < wall_ns) {
    state = chained(state);
    const int64_t between = thread_ns();
    state = wide(state);
    const int64_t now = thread_ns();
    keep_least(between - before, core.unit_ns);
    keep_least(now - between, core.wide_ns);
    before = now;
    ++core.units;
  }
  core.cpu_ns = before - cpu_start;
  core.wall_ns = monotonic_ns() - wall_start;
}

std::vector<Core> usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<Core> cores;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return cores;
  for (size_t cpu = 0; cpu < CPU_SETSIZE && cores.size() < kMostCores; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    Core core;
    core.cpu = static_cast<int>(cpu);
    cores.push_back(core);
  }
  return cores;
}

}  // namespace

json::Value calibrate(const std::string& root, int wall_ms) {
  std::vector<Core> cores = usable_cores();
  const std::string before = first_line(root + "/proc/stat");
  const int64_t start = monotonic_ns();
  std::vector<std::thread> threads;
  for (Core& core : cores) {
    threads.emplace_back(measure, std::ref(core), static_cast<int64_t>(wall_ms) * 1000000);
  }
  for (std::thread& thread : threads) thread.join();
  const std::string after = first_line(root + "/proc/stat");
  const int64_t end = monotonic_ns();
  int64_t memory_ns = 0;
  if (!cores.empty()) {
    const auto faster = [](const Core& a, const Core& b) { return a.wide_ns < b.wide_ns; };
    const int cpu = std::min_element(cores.begin(), cores.end(), faster)->cpu;
    std::thread([&] { memory_ns = read_memory(cpu); }).join();
  }
  json::Value found = json::Value::array();
  for (const Core& core : cores) {
    found.push(json::Value::object()
                   .set("cpu", core.cpu)
                   .set("units", core.units)
                   .set("unit_ns", static_cast<long long>(core.unit_ns))
                   .set("wide_ns", static_cast<long long>(core.wide_ns))
                   .set("cpu_ns", static_cast<long long>(core.cpu_ns))
                   .set("wall_ns", static_cast<long long>(core.wall_ns)));
  }
  return json::Value::object()
      .set("type", "calibration")
      .set("start_ns", static_cast<long long>(start))
      .set("end_ns", static_cast<long long>(end))
      .set("cores", found)
      .set("memory_ns", static_cast<long long>(memory_ns))
      .set("stat_before", before)
      .set("stat_after", after);
}

}  // namespace farm::helper
