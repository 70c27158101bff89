// config.json of Qwen2-VL, Qwen2.5-VL and Qwen3-VL.
//
// Published files of the first two are flat: the decoder's fields stand at the root. transformers 5
// writes them into text_config; both are read. What a file leaves out has the defaults of the class
// in transformers 5.23.
#pragma once

#include <cstdint>
#include <string>

#include "vlm/core/json.h"
#include "vlm/models/decoder/decoder_config.h"
#include "vlm/models/qwen_vl/qwen_vision.h"

namespace vlm {

struct QwenVlConfig {
  QwenGeneration generation = QwenGeneration::k2;
  std::int64_t image_token_id = 151655;
  std::int64_t video_token_id = 151656;
  bool tie_word_embeddings = false;
  QwenVisionConfig vision_config;
  DecoderConfig text_config;

  // Throws Error naming `where` and the key for values that can't work.
  static QwenVlConfig parse(const Json& json, const std::string& where);
};

}  // namespace vlm
