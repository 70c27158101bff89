// config.json of InternVL2, 2.5, 3 and 3.5 in the original layout (`internvl_chat`).
//
// The file holds what the layout of transformers keeps in processor files as well: how pictures are
// cut, and which conversation the model was trained with. What it leaves out has the defaults of
// the classes that the repositories bring (InternVLChatConfig, InternVisionConfig,
// InternLM2Config), or of transformers for Llama, Qwen2 and Qwen3. Keys that would change the
// arithmetic and aren't supported are refused by name. The head is never tied. Reference:
// OpenGVLab/InternVL.
#pragma once

#include <optional>
#include <string>

#include "vlm/core/json.h"
#include "vlm/models/internvl/internvl_config.h"
#include "vlm/models/internvl/internvl_pixels.h"

namespace vlm {

struct InternVlChatConfig {
  InternVlConfig model;  // image_token_id is the tokenizer's to say
  InternVlTileConfig tiles;
  std::string conversation;                   // "template"
  std::optional<std::string> system_message;  // in place of the template's

  std::int64_t tile_tokens() const;

  // Throws Error naming `where` and the key for values that can't work or aren't supported.
  static InternVlChatConfig parse(const Json& json, const std::string& where);
};

}  // namespace vlm
