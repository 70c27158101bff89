// Prompts of golden records, and their answers.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/media/media.h"
#include "infer/generator.h"
#include "infer/items/item.h"
#include "infer/session.h"
#include "tests/support/catch.h"
#include "vlm/core/json.h"

namespace vlm::infer {

inline EncodedConversation encode(const Session& session, const Json& one) {
  std::vector<Image> images;
  for (const Json& name : one["images"]) {
    images.push_back(data::load_image(fixture("pictures/" + name.get<std::string>() + ".png")));
  }
  const std::string system = one["system"].is_null() ? "" : one["system"].get<std::string>();
  return session.generator->processor().encode_prompt(
      make_conversation(one["question"], std::vector<MediaRef>(images.size()), system), images);
}

inline Generation generate(const Session& session, const EncodedConversation& prompt,
                           const GenerationOptions& options) {
  return session.generator->generate({prompt}, options)[0].generations[0];
}

}  // namespace vlm::infer
