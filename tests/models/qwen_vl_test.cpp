// What Qwen2-VL, Qwen2.5-VL and Qwen3-VL have beyond other families: grids, positions, older keys
// (scripts/oracle/qwen_vl.py).
#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include "tests/support/catch.h"
#include "tests/support/family_prompts.h"
#include "vlm/models/qwen_vl/qwen_vl.h"
#include "vlm/models/qwen_vl/qwen_vl_processor.h"
#include "vlm/models/registry.h"

namespace vlm {
namespace {

const char* const kQwenModels[] = {"qwen2_vl_tiny", "qwen2_5_vl_tiny", "qwen3_vl_tiny"};

std::shared_ptr<QwenVl> load_qwen(const std::string& name) {
  return std::dynamic_pointer_cast<QwenVl>(load_model(fixture(name), {}));
}

std::vector<PatchGrid> grids_of(const Golden& golden, int number) {
  std::vector<PatchGrid> grids;
  for (const char* key : {"image_grid_thw.", "video_grid_thw."}) {
    if (!golden.has(concat(key, number))) continue;
    const at::Tensor rows = golden[concat(key, number)];
    for (std::int64_t i = 0; i < rows.size(0); ++i) {
      const auto* row = rows[i].contiguous().const_data_ptr<std::int64_t>();
      grids.push_back({row[0], row[1], row[2]});
    }
  }
  return grids;
}

TEST_CASE("prompts, pixels and positions of Qwen-VL equal transformers'") {
  for (const std::string name : kQwenModels) {
    const Golden golden(name + "/golden.safetensors");
    const auto processor = load_processor(fixture(name));
    for (int number = 0; number < FamilyPrompt::kCount; ++number) {
      INFO(name << ", prompt " << number);
      const FamilyPrompt prompt = make_family_prompt(golden, number);
      const EncodedConversation encoded = encode_golden_prompt(*processor, prompt, golden, number);
      CHECK(encoded.layout.positions.defined() == !prompt.media.empty());
      if (prompt.media.empty()) continue;
      CHECK(encoded.layout.positions.equal(golden[concat("positions.", number)]));
      const std::int64_t highest = encoded.layout.positions.max().item<std::int64_t>();
      CHECK(encoded.layout.next_position == highest + 1);
      CHECK(encoded.pixels.tokens == golden[concat("features.", number)].size(0));
      if (number < 2) continue;
      CHECK((encoded.pixels.grids == grids_of(golden, number)));
      const std::string key = number == 3 ? "pixel_values_videos." : "pixel_values.";
      const at::Tensor wanted = golden[concat(key, number)];  // of the clip the last ones
      const at::Tensor& values = encoded.pixels.values;
      CHECK(values.narrow(0, values.size(0) - wanted.size(0), wanted.size(0)).equal(wanted));
    }
  }
}

TEST_CASE("frames left out of a clip don't change the size of the others") {
  for (const std::string name : kQwenModels) {
    INFO(name);
    const Golden golden(name + "/golden.safetensors");
    const auto processor = load_processor(fixture(name));
    const Image frame = to_picture(golden["clip"][0]);
    constexpr std::int64_t kChosen = 768;  // so many that frames must be smaller than one of four
    const Pixels pixels = processor->process_frames(std::vector<Image>(4, frame), kChosen);
    const MediumText text = processor->video_text({.times_s = {0, 0.5, 1, 1.5},
                                                   .chosen_frames = kChosen,
                                                   .duration_s = 2,
                                                   .height = frame.height,
                                                   .width = frame.width});
    CHECK(text.tokens == pixels.tokens);
    CHECK(text.units == pixels.units());
    const Pixels of_four = processor->process_frames(std::vector<Image>(4, frame), 4);
    CHECK((of_four.tokens > pixels.tokens) == (name == "qwen3_vl_tiny"));
  }
}

TEST_CASE("older and newer keys are read, and published ones written") {
  const auto second = load_qwen("qwen2_vl_tiny"), third = load_qwen("qwen3_vl_tiny");
  CHECK(second->published_key("model.visual.merger.ln_q.weight") == "visual.merger.ln_q.weight");
  CHECK(second->published_key("model.language_model.norm.weight") == "model.norm.weight");
  CHECK(second->published_key("lm_head.weight") == "lm_head.weight");
  CHECK(second->canonical_key("model.norm.weight") == "model.language_model.norm.weight");
  CHECK(second->canonical_key("model.language_model.norm.weight") ==
        "model.language_model.norm.weight");
  CHECK(second->canonical_key("visual.patch_embed.proj.weight") ==
        "model.visual.patch_embed.proj.weight");
  CHECK(third->published_key("model.visual.pos_embed.weight") == "model.visual.pos_embed.weight");
}

}  // namespace
}  // namespace vlm
