#include "vlm/models/qwen_vl/qwen_vl.h"

#include <ATen/ops/cat.h>

#include <algorithm>
#include <array>

#include "vlm/core/concat.h"
#include "vlm/models/parts/checkpoint_keys.h"
#include "vlm/models/parts/encoder_chunks.h"
#include "vlm/models/parts/feature_rows.h"
#include "vlm/nn/upload.h"

namespace vlm {

// What transformers 5 keeps under "model.".
class QwenVlBody : public torch::nn::Module {
 public:
  explicit QwenVlBody(const QwenVlConfig& config) {
    visual = register_module("visual", std::make_shared<QwenVisionModel>(config.vision_config));
    language_model =
        register_module("language_model", std::make_shared<TextDecoder>(config.text_config));
  }

  std::shared_ptr<QwenVisionModel> visual;
  std::shared_ptr<TextDecoder> language_model;
};

namespace {

// For Qwen2-VL and Qwen2.5-VL.
constexpr std::array<KeyPrefix, 2> kOlderPrefixes = {{
    {"visual.", "model.visual."},
    {"model.", "model.language_model."},
}};

}  // namespace

QwenVl::QwenVl(const QwenVlConfig& config) : config_(config) {
  units_at_once =
      fitting_patches(config.vision_config.width, config.vision_config.intermediate, kEncoderBytes);
  model_ = register_module("model", std::make_shared<QwenVlBody>(config));
  set_decoder(model_->language_model, "model.language_model", config.tie_word_embeddings);
}

// Grids one behind the other, as many at a time as units_at_once allows, one at least.
at::Tensor QwenVl::encode(const Pixels& pixels) {
  std::vector<at::Tensor> features;
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < pixels.grids.size();) {
    std::vector<PatchGrid> grids;
    std::int64_t patches = 0;
    do {
      grids.push_back(pixels.grids[i]);
      patches += pixels.grids[i++].patches();
    } while (i < pixels.grids.size() && patches + pixels.grids[i].patches() <= units_at_once);
    const at::Tensor values = pixels.values.narrow(0, begin, patches);
    features.push_back(model_->visual->forward(upload(values.to(activation_dtype(*this)), device()),
                                               grids, recomputes_blocks()));
    begin += patches;
  }
  return features.size() == 1 ? features[0] : at::cat(features);
}

std::vector<std::int64_t> QwenVl::media_token_ids() const {
  std::vector<std::int64_t> ids = {config_.image_token_id, config_.video_token_id};
  std::ranges::sort(ids);
  return ids;
}

NamedTensors QwenVl::picture_weights() const {
  return tensors_under(*this, {"model.visual."});
}

std::string QwenVl::picture_settings() const {
  const QwenVisionConfig& c = config_.vision_config;
  std::string text = concat("qwen ", static_cast<int>(c.generation), " heads ", c.num_heads,
                            " window ", c.window_size, " full");
  for (const std::int64_t layer : c.full_layers) text += concat(" ", layer);
  text += " deepstack";
  for (const std::int64_t layer : c.deepstack_layers) text += concat(" ", layer);
  return text;
}

std::string QwenVl::canonical_key(const std::string& key) const {
  return to_name(key, kOlderPrefixes);
}

std::string QwenVl::published_key(const std::string& name) const {
  return config_.generation == QwenGeneration::k3 ? name : to_published(name, kOlderPrefixes);
}

}  // namespace vlm
