// The config.json of SmolVLM2, SmolVLM and Idefics3.
#pragma once

#include <cstdint>
#include <string>

#include "vlm/core/json.h"
#include "vlm/models/decoder/decoder_config.h"
#include "vlm/models/parts/siglip.h"

namespace vlm {

struct SmolVlmConfig {
  std::int64_t image_token_id = 128257;
  std::int64_t scale_factor = 2;
  bool tie_word_embeddings = false;
  SiglipConfig vision_config;
  DecoderConfig text_config;

  // From a parsed config.json. Throws Error naming `where` and the key for values that can't work.
  static SmolVlmConfig parse(const Json& json, const std::string& where);

  // Tokens that one tile becomes.
  std::int64_t image_seq_len() const;
};

}  // namespace vlm
