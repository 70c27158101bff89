// A batch that mixes text, pictures and clips is its samples, one by one: the same loss and the
// same gradients.
#include <torch/nn/module.h>

#include <nlohmann/json.hpp>

#include "data/batch.h"
#include "tests/support/tensors.h"
#include "train/loss.h"
#include "vlm/models/registry.h"

namespace vlm::train {
namespace {

using data::Sample;

ContentPart words(const char* text) {
  return {.type = "text", .text = text};
}

Sample sample(std::vector<ContentPart> question, const char* answer,
              const std::vector<std::filesystem::path>& media = {}) {
  Sample made{.messages = {{.role = "user", .content = std::move(question)},
                           {.role = "assistant", .content = {words(answer)}}},
              .where = "mixed.jsonl:1"};
  for (const auto& file : media) {
    const bool is_clip = file.extension() == ".mp4";
    made.media.push_back({.kind = is_clip ? data::MediaKind::kVideo : data::MediaKind::kPicture,
                          .name = file.string()});
  }
  return made;
}

std::vector<Sample> samples() {
  const auto clips = std::filesystem::path(VLM_SOURCE_DIR) / "examples/clips";
  const auto picture = fixture("pictures/wide.png");
  const ContentPart image{.type = "image"}, video{.type = "video"};
  return {sample({words("How many?")}, "Three"),
          sample({image, words("What is this?")}, "A line", {picture}),
          sample({video, words("Which way?")}, "left", {clips / "left.mp4"}),
          sample({words("First "), video, image, words(" then "), video}, "no, up",
                 {clips / "up.mp4", picture, clips / "down.mp4"})};
}

// Loss and the gradients of all parameters, by name.
struct Outcome {
  at::Tensor loss;
  NamedTensors gradients;
};

Outcome run(VisionLanguageModel& model, const std::vector<data::Batch>& batches) {
  model.module().zero_grad();
  Outcome outcome{.loss = at::zeros({})};
  for (const data::Batch& batch : batches) {
    const at::Tensor loss = loss_sum(model, batch);
    loss.backward();
    outcome.loss = outcome.loss + loss.detach();
  }
  for (const auto& item : model.module().named_parameters()) {
    const at::Tensor gradient = item.value().grad();
    outcome.gradients.emplace_back(
        item.key(), gradient.defined() ? gradient.clone() : at::zeros_like(item.value()).detach());
  }
  return outcome;
}

TEST_CASE("a batch of text, pictures and clips has the gradients of its samples") {
  const ModelPtr model = load_model(fixture("smolvlm_tiny"), {});
  const auto processor = load_processor(fixture("smolvlm_tiny"));
  model->module().train();
  std::vector<data::Example> examples;
  std::vector<data::Batch> singles;
  std::int64_t tiles = 0;
  for (const Sample& one : samples()) {
    examples.push_back(data::encode_example(one, *processor, {.video = {.max_frames = 3}}));
    singles.push_back(data::collate({examples.back()}, 2));
    const at::Tensor pixels = examples.back().pictures.pixel_values;
    tiles += pixels.defined() ? pixels.size(0) : 0;
  }
  const data::Batch mixed = data::collate(examples, 2);
  CHECK(tiles == 3 + (3 + 3 + 3) + 3);
  std::int64_t mixed_tiles = 0;
  for (const auto& pictures : mixed.pictures) mixed_tiles += pictures.tiles();
  CHECK(mixed_tiles == tiles);
  const Outcome together = run(*model, {mixed});
  const Outcome apart = run(*model, singles);
  check_close(together.loss, apart.loss);
  for (std::size_t i = 0; i < apart.gradients.size(); ++i) {
    const auto& [name, expected] = apart.gradients[i];
    // A key's bias has no gradient but rounding: it shifts all scores of a row alike.
    if (name.ends_with("vision_model.encoder.layers.0.self_attn.k_proj.bias") ||
        name.ends_with("vision_model.encoder.layers.1.self_attn.k_proj.bias")) {
      continue;
    }
    INFO(name);
    CHECK(expected.abs().max().item<double>() > 0);
    check_close(together.gradients[i].second, expected, 1e-4);
  }
}

}  // namespace
}  // namespace vlm::train
