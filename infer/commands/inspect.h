// A checkpoint's architecture, parameters by part and memory estimates, in MB (10⁶ bytes). Reads
// headers only, no weights.
#pragma once

#include <string>

#include "vlm/core/json.h"

namespace vlm::infer {

// Throws Error when the folder is no checkpoint, or its weights don't fit its config.
OrderedJson inspect_model(const std::string& model);

}  // namespace vlm::infer
