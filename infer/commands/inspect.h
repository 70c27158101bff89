// A checkpoint's architecture, parameters by part and memory estimates, as text. Reads headers
// only, no weights.
#pragma once

#include <string>

namespace vlm::infer {

// Throws Error when the folder is no checkpoint, or its weights don't fit its config.
std::string inspect_model(const std::string& model);

}  // namespace vlm::infer
