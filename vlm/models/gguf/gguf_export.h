// A model → GGUF files that llama.cpp and others read.
//
//   model + the folder that it is from ─► NAME.gguf, and with an encoder mmproj-NAME.gguf
//
// Matrices get the type asked for; where rows aren't whole blocks of it, F16. Embeddings and head
// beside 4 bits, and encoder and connector beside 4 bits, get Q8_0. Vectors, patch and position
// embeddings are F32, as in llama.cpp. Scales: of Q8_0 the largest magnitude / 127; of Q4_0 and
// IQ4_NL as int4_weight.h says.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "vlm/io/gguf/gguf_types.h"
#include "vlm/models/interface/model.h"

namespace vlm {

// "f32", "f16", "bf16", "q8_0", "q4_0" and "iq4_nl".
const std::vector<std::string>& gguf_export_types();

// Writes into `folder`, which is made, and returns the files. `source` is the checkpoint that the
// model was loaded from; NAME is `name` with the type behind it. Throws Error for a family or a
// tokenizer that GGUF files don't hold.
std::vector<std::filesystem::path> export_gguf(const VisionLanguageModel& model,
                                               const std::filesystem::path& source,
                                               const std::string& type, const std::string& name,
                                               const std::filesystem::path& folder);

}  // namespace vlm
