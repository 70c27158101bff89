#include "vlm/models/qwen_vl/qwen_vl.h"

#include <ATen/ops/cat.h>

#include <algorithm>
#include <array>

#include "vlm/core/concat.h"
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

// Memory that the encoder's activations may add at once during inference.
constexpr std::int64_t kPassBytes = 512 << 20;

// Patches that fit: each holds about eight vectors of the width and two of the MLP's, in float32.
std::int64_t count_patches(const QwenVisionConfig& config) {
  const std::int64_t floats = 8 * config.width + 2 * config.intermediate;
  return std::max<std::int64_t>(kPassBytes / (floats * 4), 1);
}

// Prefixes of published keys and of names here, for Qwen2-VL and Qwen2.5-VL.
struct Prefixes {
  const char *published, *name;
};
constexpr std::array<Prefixes, 2> kOlderPrefixes = {{
    {"visual.", "model.visual."},
    {"model.", "model.language_model."},
}};

bool is_name(const std::string& key) {
  return key.starts_with("model.visual.") || key.starts_with("model.language_model.") ||
         key.starts_with("lm_head.");
}

}  // namespace

QwenVl::QwenVl(const QwenVlConfig& config) : config_(config) {
  units_at_once = count_patches(config.vision_config);
  model_ = register_module("model", std::make_shared<QwenVlBody>(config));
  lm_head_ =
      register_module("lm_head", std::make_shared<Linear>(config.text_config.hidden_size,
                                                          config.text_config.vocab_size, false));
  tie_.emplace(lm_head_, model_->language_model->embed_tokens(),
               "model.language_model.embed_tokens.weight", config.tie_word_embeddings);
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
                                               grids, gradient_checkpointing && is_training()));
    begin += patches;
  }
  return features.size() == 1 ? features[0] : at::cat(features);
}

at::Tensor QwenVl::embed_tokens(const at::Tensor& input_ids) {
  return model_->language_model->embed_tokens()
      ->forward(upload(input_ids, device()))
      .to(activation_dtype(*this));
}

at::Tensor QwenVl::embed(const at::Tensor& input_ids, const at::Tensor& features) {
  return put_features(embed_tokens(input_ids), input_ids, features, media_token_ids());
}

at::Tensor QwenVl::decode(const at::Tensor& embeddings, const at::Tensor& attention_mask,
                          KvCache* cache, const at::Tensor& positions) {
  return model_->language_model->forward(
      embeddings, attention_mask, cache, gradient_checkpointing && is_training() && !cache,
      positions.defined() ? upload(positions, device()) : positions);
}

at::Tensor QwenVl::decode_packed(const at::Tensor& embeddings, const std::vector<Segment>& segments,
                                 const at::Tensor& positions) {
  return model_->language_model->forward_packed(
      embeddings, segments, gradient_checkpointing && is_training(),
      positions.defined() ? upload(positions, device()) : positions);
}

at::Tensor QwenVl::logits(const at::Tensor& hidden) {
  return lm_head_->forward(hidden);
}

std::vector<std::int64_t> QwenVl::media_token_ids() const {
  std::vector<std::int64_t> ids = {config_.image_token_id, config_.video_token_id};
  std::ranges::sort(ids);
  return ids;
}

at::Device QwenVl::device() const {
  return model_->language_model->options().device();
}

at::ScalarType QwenVl::dtype() const {
  return c10::typeMetaToScalarType(model_->language_model->options().dtype());
}

KvCacheShape QwenVl::cache_shape() const {
  return model_->language_model->cache_shape();
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
  std::string name = key;
  const std::string wrapper = "base_model.model.";
  if (name.starts_with(wrapper)) name = name.substr(wrapper.size());
  if (is_name(name)) return name;
  for (const Prefixes& older : kOlderPrefixes) {
    const std::string prefix = older.published;
    if (name.starts_with(prefix)) return older.name + name.substr(prefix.size());
  }
  return name;
}

std::string QwenVl::published_key(const std::string& name) const {
  if (config_.generation == QwenGeneration::k3) return name;
  for (const Prefixes& older : kOlderPrefixes) {
    const std::string prefix = older.name;
    if (name.starts_with(prefix)) return older.published + name.substr(prefix.size());
  }
  return name;
}

}  // namespace vlm
