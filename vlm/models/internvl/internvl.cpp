#include "vlm/models/internvl/internvl.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>

#include <algorithm>
#include <array>

#include "vlm/core/concat.h"
#include "vlm/models/internvl/intern_vit.h"
#include "vlm/models/parts/feature_rows.h"
#include "vlm/models/parts/pixel_shuffle.h"
#include "vlm/nn/upload.h"

namespace vlm {

// Joined patches to the decoder's width: a norm, and two layers with GELU by erf between them.
class InternVlConnector : public torch::nn::Module {
 public:
  explicit InternVlConnector(const InternVlConfig& config) : scale_(config.scale) {
    const std::int64_t joined = config.vision_config.hidden_size * scale_ * scale_;
    const std::int64_t width = config.text_config.hidden_size;
    layer_norm_ = register_module("layer_norm", std::make_shared<LayerNorm>(joined, 1e-5));
    linear_1_ = register_module("linear_1", std::make_shared<Linear>(joined, width, true));
    linear_2_ = register_module("linear_2", std::make_shared<Linear>(width, width, true));
  }

  at::Tensor forward(const at::Tensor& patches) {
    const at::Tensor x = layer_norm_->forward(shuffle_pixels(patches, scale_));
    return linear_2_->forward(at::gelu(linear_1_->forward(x)));
  }

 private:
  std::int64_t scale_;
  std::shared_ptr<LayerNorm> layer_norm_;
  std::shared_ptr<Linear> linear_1_, linear_2_;
};

// What transformers 5 keeps under "model.".
class InternVlBody : public torch::nn::Module {
 public:
  explicit InternVlBody(const InternVlConfig& config) {
    vision_tower =
        register_module("vision_tower", std::make_shared<InternVit>(config.vision_config));
    multi_modal_projector =
        register_module("multi_modal_projector", std::make_shared<InternVlConnector>(config));
    language_model =
        register_module("language_model", std::make_shared<TextDecoder>(config.text_config));
  }

  std::shared_ptr<InternVit> vision_tower;
  std::shared_ptr<InternVlConnector> multi_modal_projector;
  std::shared_ptr<TextDecoder> language_model;
};

namespace {

// Memory that the encoder's activations may add at once during inference. A CPU is busy with one
// tile, a GPU needs many.
constexpr std::int64_t kTowerBytes = 512 << 20;
constexpr std::int64_t kCpuTowerBytes = 64 << 20;

// Tiles that fit: a patch holds about eight vectors of the width and two of the MLP's, in float32.
std::int64_t fitting_tiles(const InternVitConfig& config, std::int64_t bytes) {
  const std::int64_t patches = config.grid_side() * config.grid_side();
  const std::int64_t floats = 8 * config.hidden_size + 2 * config.intermediate_size;
  return std::clamp<std::int64_t>(bytes / (patches * floats * 4), 1, 1024);
}

// Prefixes of published keys and of names here.
struct KeyPrefixes {
  const char *published, *name;
};
constexpr std::array<KeyPrefixes, 4> kPublishedPrefixes = {{
    {"vision_tower.", "model.vision_tower."},
    {"multi_modal_projector.", "model.multi_modal_projector."},
    {"language_model.model.", "model.language_model."},
    {"language_model.lm_head.", "lm_head."},
}};

}  // namespace

InternVl::InternVl(const InternVlConfig& config) : config_(config) {
  units_at_once = fitting_tiles(config.vision_config, kTowerBytes);
  model_ = register_module("model", std::make_shared<InternVlBody>(config));
  lm_head_ =
      register_module("lm_head", std::make_shared<Linear>(config.text_config.hidden_size,
                                                          config.text_config.vocab_size, false));
  tie_.emplace(lm_head_, model_->language_model->embed_tokens(),
               "model.language_model.embed_tokens.weight", config.tie_word_embeddings);
}

at::Tensor InternVl::encode_patches(const at::Tensor& tiles) {
  return model_->vision_tower->forward(upload(tiles.to(activation_dtype(*this)), device()),
                                       gradient_checkpointing && is_training());
}

at::Tensor InternVl::encode(const Pixels& pixels) {
  std::int64_t most = units_at_once;
  if (device().is_cpu()) {
    most = std::min(most, fitting_tiles(config_.vision_config, kCpuTowerBytes));
  }
  std::vector<at::Tensor> features;
  for (std::int64_t begin = 0; begin < pixels.units(); begin += most) {
    const std::int64_t count = std::min(most, pixels.units() - begin);
    features.push_back(model_->multi_modal_projector->forward(
        encode_patches(pixels.values.narrow(0, begin, count))));
  }
  return (features.size() == 1 ? features[0] : at::cat(features)).flatten(0, 1);
}

at::Tensor InternVl::embed_tokens(const at::Tensor& input_ids) {
  return model_->language_model->embed_tokens()
      ->forward(upload(input_ids, device()))
      .to(activation_dtype(*this));
}

at::Tensor InternVl::embed(const at::Tensor& input_ids, const at::Tensor& features) {
  return put_features(embed_tokens(input_ids), input_ids, features, media_token_ids());
}

at::Tensor InternVl::decode(const at::Tensor& embeddings, const at::Tensor& attention_mask,
                            KvCache* cache, const at::Tensor& positions) {
  check_counted(positions);
  return model_->language_model->forward(embeddings, attention_mask, cache,
                                         gradient_checkpointing && is_training() && !cache);
}

at::Tensor InternVl::decode_packed(const at::Tensor& embeddings,
                                   const std::vector<Segment>& segments,
                                   const at::Tensor& positions) {
  check_counted(positions);
  return model_->language_model->forward_packed(embeddings, segments,
                                                gradient_checkpointing && is_training());
}

at::Tensor InternVl::logits(const at::Tensor& hidden) {
  return lm_head_->forward(hidden);
}

at::Device InternVl::device() const {
  return model_->language_model->options().device();
}

at::ScalarType InternVl::dtype() const {
  return c10::typeMetaToScalarType(model_->language_model->options().dtype());
}

std::int64_t InternVl::switch_length() const {
  return model_->language_model->switch_length();
}

KvCacheShape InternVl::cache_shape() const {
  return model_->language_model->cache_shape();
}

NamedTensors InternVl::picture_weights() const {
  return tensors_under(*this, {"model.vision_tower.", "model.multi_modal_projector."});
}

// Sizes are those of the weights.
std::string InternVl::picture_settings() const {
  const InternVitConfig& c = config_.vision_config;
  return concat("internvl heads ", c.num_attention_heads, " norm ", c.layer_norm_eps, " patch ",
                c.patch_size, " scale ", config_.scale);
}

std::string InternVl::canonical_key(const std::string& key) const {
  std::string name = key;
  const std::string wrapper = "base_model.model.";
  if (name.starts_with(wrapper)) name = name.substr(wrapper.size());
  for (const KeyPrefixes& older : kPublishedPrefixes) {
    const std::string prefix = older.published;
    if (name.starts_with(prefix)) return older.name + name.substr(prefix.size());
  }
  return name;
}

std::string InternVl::published_key(const std::string& name) const {
  for (const KeyPrefixes& older : kPublishedPrefixes) {
    const std::string prefix = older.name;
    if (name.starts_with(prefix)) return older.published + name.substr(prefix.size());
  }
  return name;
}

}  // namespace vlm
