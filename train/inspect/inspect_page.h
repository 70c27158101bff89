// What inspect_data found as one HTML page that needs nothing beside it: pictures are in it, small.
#pragma once

#include <string>

#include "train/inspect/inspect_report.h"

namespace vlm::train {

std::string to_page(const InspectReport& report);

}  // namespace vlm::train
