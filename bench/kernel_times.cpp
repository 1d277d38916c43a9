// Where a program spends its time on a GPU: a library that CUDA loads into it, which notes when each kernel and copy
// began and ended (CUPTI) and at the end of the program writes a table of them, the longest first, by name and then by
// name and grid. For machines without a profiler.
//
//   CUDA_INJECTION64_PATH=build/release/bench/libkernel_times.so KERNEL_TIMES=times.txt build/release/bench/phases_cuda
#include <cupti.h>
#include <cxxabi.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

struct activity {
  std::uint64_t begin, end;  ///< nanoseconds
  std::string name, grid;
};

/// Never destroyed: CUPTI may still hand over records when statics are gone.
struct recorder {
  std::mutex mutex;
  std::vector<activity> all;
};
recorder& records() {
  static auto* const r = new recorder;
  return *r;
}

/// Without return type, template arguments and parameters.
std::string short_name(char const* mangled) {
  int status = 0;
  char* const demangled = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
  std::string name = status == 0 ? demangled : mangled;
  std::free(demangled);
  if (name.rfind("void ", 0) == 0) name.erase(0, 5);
  return name.substr(0, name.find_first_of("<("));
}

void CUPTIAPI give_buffer(std::uint8_t** buffer, std::size_t* size, std::size_t* most_records) {
  *size = std::size_t{16} << 20;
  *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(8, *size));
  *most_records = 0;
}

void CUPTIAPI take_buffer(CUcontext, std::uint32_t, std::uint8_t* buffer, std::size_t, std::size_t valid) {
  recorder& r = records();
  std::lock_guard const lock(r.mutex);
  CUpti_Activity* record = nullptr;
  while (valid > 0 && cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
    if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
      auto const& k = *reinterpret_cast<CUpti_ActivityKernel4 const*>(record);
      r.all.push_back(
          {k.start, k.end, short_name(k.name),
           " (" + std::to_string(k.gridX) + ", " + std::to_string(k.gridY) + ") x " + std::to_string(k.blockX)});
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
      auto const& c = *reinterpret_cast<CUpti_ActivityMemcpy const*>(record);
      char const* const kind = c.copyKind == CUPTI_ACTIVITY_MEMCPY_KIND_HTOD   ? "copy to the device"
                               : c.copyKind == CUPTI_ACTIVITY_MEMCPY_KIND_DTOH ? "copy to the host"
                                                                               : "copy";
      r.all.push_back({c.start, c.end, kind, ""});
    }
  }
  std::free(buffer);
}

void print(std::FILE* file, std::map<std::string, std::pair<long, double>> const& by_name, double all) {
  using line = std::pair<std::string, std::pair<long, double>>;
  std::vector<line> lines(by_name.begin(), by_name.end());
  std::sort(lines.begin(), lines.end(), [](line const& a, line const& b) { return a.second.second > b.second.second; });
  for (auto const& [name, n] : lines)
    std::fprintf(file, "%5.1f %% %10.3f ms %8ld x %10.2f us  %s\n", 100 * n.second / all, n.second * 1e-6, n.first,
                 n.second * 1e-3 / double(n.first), name.c_str());
  std::fprintf(file, "\n");
}

void write_table() {
  (void)cuptiActivityFlushAll(1);
  recorder& r = records();
  std::lock_guard const lock(r.mutex);
  if (r.all.empty()) return;
  std::map<std::string, std::pair<long, double>> by_name, by_grid;
  double all = 0;
  for (activity const& a : r.all) {
    double const time = double(a.end - a.begin);
    all += time;
    for (auto* n : {&by_name[a.name], &by_grid[a.name + a.grid]}) ++n->first, n->second += time;
  }
  char const* const path = std::getenv("KERNEL_TIMES");
  std::FILE* const file = path ? std::fopen(path, "w") : stderr;
  if (!file) return std::perror(path);
  print(file, by_name, all);
  print(file, by_grid, all);
  if (path) std::fclose(file);
}

}  // namespace

/// CUDA calls it when it starts.
extern "C" int InitializeInjection() {
  if (cuptiActivityRegisterCallbacks(give_buffer, take_buffer) != CUPTI_SUCCESS ||
      cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) != CUPTI_SUCCESS ||
      cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMCPY) != CUPTI_SUCCESS) {
    std::fputs("kernel_times: CUPTI does not record here\n", stderr);
    return 0;
  }
  std::atexit(write_table);
  return 1;
}
