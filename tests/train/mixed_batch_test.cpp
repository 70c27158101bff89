// A batch that mixes text, pictures and clips is its samples, one by one: the same loss and the
// same gradients.
#include <torch/nn/module.h>

#include <nlohmann/json.hpp>

#include "data/batch.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "train/batches/picture_store.h"
#include "train/model/loss.h"
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
  const ModelPtr model = load_model(fixture(kTinyModel), {});
  const auto processor = load_processor(fixture(kTinyModel));
  model->module().train();
  std::vector<data::Example> examples;
  std::vector<data::Batch> singles;
  std::int64_t tiles = 0;
  for (const Sample& one : samples()) {
    examples.push_back(data::encode_example(one, *processor, {.video = {.max_frames = 3}}));
    singles.push_back(data::collate({examples.back()}, 2));
    tiles += examples.back().pictures.pixels.units();
  }
  const data::Batch mixed = data::collate(examples, 2);
  CHECK(tiles == 3 + (3 + 3 + 3) + 3);
  std::int64_t mixed_tiles = 0;
  for (const auto& pictures : mixed.pictures) mixed_tiles += pictures.units();
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

TEST_CASE("features of clips come from the cache, as long as the same frames are asked for") {
  const ModelPtr model = load_model(fixture(kTinyModel), {});
  const auto processor = load_processor(fixture(kTinyModel));
  const ScratchFolder folder;
  const auto cache = std::make_shared<FeatureCache>(folder.path(), 1 << 30);
  const Sample mixed = samples().back();  // two clips and a picture
  const auto encode = [&](const PictureStore& store, std::int64_t frames) {
    return data::encode_example(mixed, *processor,
                                {.video = {.max_frames = frames}, .lookup = &store});
  };
  data::Example first;
  at::Tensor features;
  {
    PictureStore store(cache, *model, *processor);
    first = encode(store, 3);
    CHECK_FALSE(first.pictures.pixels.empty());
    features = store.features_of(*model, data::collate({first}, 2));
    CHECK(store.encoded() == 1);
  }  // what is kept has been written
  PictureStore store(cache, *model, *processor);
  const data::Example again = encode(store, 3);
  CHECK(again.pictures.pixels.empty());
  CHECK(again.pictures.units() == first.pictures.units());
  CHECK(again.ids == first.ids);
  REQUIRE(again.pictures.texts.size() == 3);
  CHECK(again.pictures.texts[0].kind == MediumText::Kind::kVideo);
  CHECK(again.pictures.texts[1].kind == MediumText::Kind::kPicture);
  CHECK(store.features_of(*model, data::collate({again}, 2)).equal(features));
  CHECK(store.encoded() == 0);
  CHECK_FALSE(encode(store, 2).pictures.features.defined());
}

}  // namespace
}  // namespace vlm::train
