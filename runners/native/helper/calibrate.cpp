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
// Memory that is read from its beginning to its end again and again, as decoding reads weights: more
// than a core's own caches hold.
constexpr size_t kMemory = size_t{64} << 20;
constexpr int64_t kMemoryNs = 100 * 1000 * 1000;

// CPU time of pieces of equal work: the least shows what the core can do, the mean what it did.
struct Times {
  int64_t least_ns = 0;
  int64_t sum_ns = 0;
  int64_t count = 0;

  void add(int64_t took_ns) {
    if (count == 0 || took_ns < least_ns) least_ns = took_ns;
    sum_ns += took_ns;
    ++count;
  }
  int64_t mean_ns() const { return count == 0 ? 0 : sum_ns / count; }
};

struct Core {
  int cpu = 0;
  Times unit;
  Times wide;
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

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  sched_setaffinity(0, sizeof set, &set);
}

// Two words, in a register of every 64-bit instruction set: the core must ask for memory faster
// than memory answers.
using Lane = uint64_t __attribute__((vector_size(16)));

Lane sum(const Lane* lanes, size_t count) {
  Lane a{}, b{}, c{}, d{};
  for (size_t i = 0; i < count; i += 4) {
    a += lanes[i], b += lanes[i + 1], c += lanes[i + 2], d += lanes[i + 3];
  }
  return a + b + c + d;
}

// What others do with the memory and the cache that all cores share, on this device or beside a
// guest of a hypervisor, shows nowhere else. CPU time of a pass over `kMemory`, nanoseconds: the
// mean, since a timed window is a mean over it too. 0: there is no memory for it.
int64_t read_memory(int cpu) {
  pin(cpu);
  void* const mapped =
      mmap(nullptr, kMemory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return 0;
#ifdef MADV_HUGEPAGE
  madvise(mapped, kMemory, MADV_HUGEPAGE);  // as the weights have them, where there are any
#endif
  memset(mapped, 1, kMemory);
  Times passes;
  volatile uint64_t kept = 0;  // or the compiler would leave the reading out
  const auto read = [&] {
    const Lane all = sum(static_cast<const Lane*>(mapped), kMemory / sizeof(Lane));
    kept = all[0] ^ all[1];
  };
  read();  // finds what writing left in the cache
  const int64_t start = monotonic_ns();
  do {
    const int64_t before = thread_ns();
    read();
    passes.add(thread_ns() - before);
  } while (monotonic_ns() - start < kMemoryNs);
  munmap(mapped, kMemory);
  return passes.mean_ns();
}

void measure(Core& core, int64_t wall_ns) {
  pin(core.cpu);
  const int64_t wall_start = monotonic_ns();
  const int64_t cpu_start = thread_ns();
  uint64_t state = static_cast<uint64_t>(core.cpu);
  int64_t before = cpu_start;
  while (core.unit.count < kFewestUnits || monotonic_ns() - wall_start < wall_ns) {
    state = chained(state);
    const int64_t between = thread_ns();
    state = wide(state);
    const int64_t now = thread_ns();
    core.unit.add(between - before);
    core.wide.add(now - between);
    before = now;
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
    const auto faster = [](const Core& a, const Core& b) { return a.wide.least_ns < b.wide.least_ns; };
    const int cpu = std::min_element(cores.begin(), cores.end(), faster)->cpu;
    std::thread([&] { memory_ns = read_memory(cpu); }).join();
  }
  json::Value found = json::Value::array();
  for (const Core& core : cores) {
    found.push(json::Value::object()
                   .set("cpu", core.cpu)
                   .set("units", static_cast<long long>(core.unit.count))
                   .set("unit_ns", static_cast<long long>(core.unit.least_ns))
                   .set("wide_ns", static_cast<long long>(core.wide.least_ns))
                   .set("unit_mean_ns", static_cast<long long>(core.unit.mean_ns()))
                   .set("wide_mean_ns", static_cast<long long>(core.wide.mean_ns()))
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
