// `vlm inspect`: a checkpoint's architecture, its parameters by part, and estimates of memory in MB
// (10⁶ bytes). Reads headers, no weights.
#pragma once

#include <string>

#include "vlm/core/json.h"

namespace vlm::infer {

// Throws Error when the folder is no checkpoint, or its weights don't fit its config.
OrderedJson inspect_model(const std::string& model);

}  // namespace vlm::infer
