#include "own_code.h"

#ifdef FARM_OWN_ATTENTION
#include "../attention/attention.h"
#include "../attention/operators.h"
#endif
#ifdef FARM_TUNED
#include "../tuned/memory.h"
#include "../tuned/xnnpack.h"
#endif

namespace farm::runner {

#ifdef FARM_OWN_ATTENTION
const char* attention_origin() { return "farm"; }
int attention_orders() { return kernels::kOrders; }
void set_attention_order(int order) { kernels::set_order(order); }
#else
const char* attention_origin() { return "executorch"; }
int attention_orders() { return 1; }
void set_attention_order(int) {}
#endif

#ifdef FARM_TUNED
std::vector<std::string> use_tuned_code(int64_t weights_bytes) {
  std::vector<std::string> names = kernels::speed_up_xnnpack();
  // Packed weights need about as much as the file, caches and activations some more.
  if (kernels::prefer_large_pages(weights_bytes + weights_bytes / 4)) {
    names.emplace_back("malloc::large_pages");
  }
  return names;
}
#else
std::vector<std::string> use_tuned_code(int64_t) { return {}; }
#endif

}  // namespace farm::runner
