// How an answer is generated. Defaults come from the checkpoint's generation_config.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace vlm::infer {

struct GenerationOptions {
  std::int64_t max_new_tokens = 128;
  std::vector<std::int64_t> eos_token_ids;  // any of them ends the answer
  std::int64_t pad_token_id = 0;  // fills the left of shorter prompts; never seen by the model
};

// Reads generation_config.json; without it, the end-of-sequence ids of config.json. Throws Error
// naming file and key.
GenerationOptions load_generation_options(const std::filesystem::path& folder);

}  // namespace vlm::infer
