// JSONL of Hugging Face messages; the format is described in dataset.h.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "data/dataset.h"
#include "vlm/core/json.h"

namespace vlm::data {

std::unique_ptr<Dataset> load_jsonl_dataset(const std::filesystem::path& path);

// One line's object → Sample; image paths are taken relative to `folder`.
Sample parse_sample(const Json& json, const std::filesystem::path& folder,
                    const std::string& where);

}  // namespace vlm::data
