// A fixed amount of work on every core at once: what the machine gives us now, whatever its
// clocks claim. Compared before and after a launch it finds caps that no sensor shows.
#pragma once

#include "../common/json.h"

namespace farm::helper {

// One line of telemetry, `calibration`. Takes about `wall_ms` and some tens of milliseconds for the
// memory; longer only until every core has done a few units.
json::Value calibrate(const std::string& root, int wall_ms);

}  // namespace farm::helper
