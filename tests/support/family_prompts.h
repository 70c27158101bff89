// The prompts of the golden files that scripts/oracle writes for families with pictures: without
// one, with one, with several of different sizes, and with a clip.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/tensors.h"
#include "vlm/core/concat.h"
#include "vlm/image/image.h"
#include "vlm/models/interface/processor.h"

namespace vlm {

struct FamilyPrompt {
  static constexpr int kCount = 4;

  std::vector<Message> messages;
  std::vector<Medium> media;
};

inline Image to_picture(const at::Tensor& pixels) {  // [H, W, 3] u8
  const at::Tensor bytes = pixels.contiguous();
  const auto* begin = bytes.const_data_ptr<std::uint8_t>();
  return {bytes.size(0), bytes.size(1), std::vector<std::uint8_t>(begin, begin + bytes.numel())};
}

inline FamilyPrompt make_family_prompt(const Golden& golden, int number) {
  const auto text = [](const char* words) { return ContentPart{.type = "text", .text = words}; };
  const auto picture = [&](int i) { return to_picture(golden[concat("picture.", i)]); };
  const ContentPart image{.type = "image"}, video{.type = "video"};
  FamilyPrompt prompt{.messages = {{.role = "user"}}};
  auto& content = prompt.messages[0].content;
  if (number == 0) content = {text("What colour is")};
  if (number == 1) {
    content = {image, text("How many dogs are there?")};
    prompt.media = {picture(0)};
  }
  if (number == 2) {
    content = {text("First "), image, text(" then "), image};
    prompt.media = {picture(1), picture(0)};
    if (golden.has("picture.2")) {
      content.push_back(image);
      prompt.media.push_back(picture(2));
    }
    content.push_back(text("?"));
  }
  if (number == 3) {
    content = {video, text("And now? ")};
    const at::Tensor frames = golden["clip"];
    VideoClip clip{.duration_s = static_cast<double>(frames.size(0)) / 2};
    for (std::int64_t i = 0; i < frames.size(0); ++i) {
      clip.frames.push_back(to_picture(frames[i]));
      clip.times_s.push_back(static_cast<double>(i) / 2);
    }
    prompt.media = {clip};
  }
  return prompt;
}

inline EncodedConversation encode_family_prompt(const Processor& processor,
                                                const FamilyPrompt& prompt) {
  return processor.encode_prompt(prompt.messages, processor.process_media(prompt.media));
}

// The same; its ids are those of the golden file.
inline EncodedConversation encode_golden_prompt(const Processor& processor,
                                                const FamilyPrompt& prompt, const Golden& golden,
                                                int number) {
  EncodedConversation encoded = encode_family_prompt(processor, prompt);
  CHECK(at::tensor(encoded.ids, at::kLong).unsqueeze(0).equal(golden[concat("ids.", number)]));
  CHECK(encoded.layout.media.size() == prompt.media.size());
  return encoded;
}

}  // namespace vlm
