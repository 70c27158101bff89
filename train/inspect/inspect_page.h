// The report of inspect_data as one HTML page that includes small copies of the pictures.
#pragma once

#include <string>

#include "train/inspect/inspect_report.h"

namespace vlm::train {

std::string to_page(const InspectReport& report);

}  // namespace vlm::train
