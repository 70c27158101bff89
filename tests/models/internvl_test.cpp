// What InternVL in the layout of transformers has beyond other families: tiles, a head that is tied
// or not, older keys (scripts/oracle/internvl.py).
#include "vlm/models/internvl/internvl.h"

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include "tests/support/catch.h"
#include "tests/support/family_prompts.h"
#include "tests/support/scratch_folder.h"
#include "vlm/io/checkpoint.h"
#include "vlm/models/internvl/internvl_processor.h"
#include "vlm/models/registry.h"

namespace vlm {
namespace {

const char* const kInternModels[] = {"internvl_tiny", "internvl3_5_tiny"};

std::shared_ptr<InternVl> load_internvl(const std::string& name) {
  return std::dynamic_pointer_cast<InternVl>(load_model(fixture(name), {}));
}

TEST_CASE("prompts and pixels of InternVL equal transformers'") {
  for (const std::string name : kInternModels) {
    const Golden golden(name + "/golden.safetensors");
    const auto processor = load_processor(fixture(name));
    for (int number = 0; number < FamilyPrompt::kCount; ++number) {
      INFO(name << ", prompt " << number);
      const FamilyPrompt prompt = make_family_prompt(golden, number);
      const EncodedConversation encoded = encode_golden_prompt(*processor, prompt, golden, number);
      CHECK(!encoded.layout.positions.defined());
      if (prompt.media.empty()) continue;
      CHECK(encoded.pixels.tokens == golden[concat("features.", number)].size(0));
      if (number == 2) continue;  // its features tell
      CHECK(encoded.pixels.values.equal(golden[concat("pixel_values.", number)]));
    }
  }
}

TEST_CASE("InternVL's head stays apart from the embeddings where the file holds both") {
  CHECK(load_internvl("internvl_tiny")->config().tie_word_embeddings);
  CHECK(load_internvl("internvl_tiny")->tied_weights().empty());
  CHECK(load_internvl("internvl3_5_tiny")->tied_weights().size() == 1);
}

TEST_CASE("both spellings of InternVL's keys are read, and the published one written") {
  for (const std::string name : kInternModels) {
    INFO(name);
    const auto model = load_internvl(name);
    const ScratchFolder folder;
    save_model(*model, fixture(name), folder.path());
    for (const std::string& key : Checkpoint(folder.path()).keys()) {
      INFO(key);
      CHECK(!key.starts_with("model."));
    }
  }
  const auto model = load_internvl("internvl_tiny");
  const std::pair<std::string, std::string> keys[] = {
      {"vision_tower.embeddings.cls_token", "model.vision_tower.embeddings.cls_token"},
      {"multi_modal_projector.linear_1.weight", "model.multi_modal_projector.linear_1.weight"},
      {"language_model.model.norm.weight", "model.language_model.norm.weight"},
      {"language_model.lm_head.weight", "lm_head.weight"}};
  for (const auto& [published, parameter] : keys) {
    CHECK(model->canonical_key(published) == parameter);
    CHECK(model->canonical_key(parameter) == parameter);
    CHECK(model->canonical_key("base_model.model." + published) == parameter);
    CHECK(model->published_key(parameter) == published);
  }
}

}  // namespace
}  // namespace vlm
