#include "vlm/models/internvl/internvl.h"

#include <algorithm>
#include <array>

#include "vlm/core/concat.h"
#include "vlm/models/internvl/intern_vit.h"
#include "vlm/models/parts/checkpoint_keys.h"
#include "vlm/models/parts/encoder_chunks.h"
#include "vlm/models/parts/feature_rows.h"
#include "vlm/models/parts/pixel_shuffle.h"
#include "vlm/nn/mlp.h"
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
    return gelu_mlp(x, *linear_1_, *linear_2_, Gelu::kErf);
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

constexpr std::array<KeyPrefix, 4> kPublishedPrefixes = {{
    {"vision_tower.", "model.vision_tower."},
    {"multi_modal_projector.", "model.multi_modal_projector."},
    {"language_model.model.", "model.language_model."},
    {"language_model.lm_head.", "lm_head."},
}};

}  // namespace

InternVl::InternVl(const InternVlConfig& config) : config_(config) {
  units_at_once = fitting_tiles(config.vision_config, kEncoderBytes);
  model_ = register_module("model", std::make_shared<InternVlBody>(config));
  set_decoder(model_->language_model, "model.language_model", config.tie_word_embeddings);
}

at::Tensor InternVl::encode_patches(const at::Tensor& tiles) {
  return model_->vision_tower->forward(upload(tiles.to(activation_dtype(*this)), device()),
                                       recomputes_blocks());
}

at::Tensor InternVl::encode(const Pixels& pixels) {
  const std::int64_t most = tiles_at_once(config_.vision_config, device(), units_at_once);
  return encode_in_chunks(pixels.units(), most,
                          [&](std::int64_t begin, std::int64_t count) {
                            const at::Tensor patches =
                                encode_patches(pixels.values.narrow(0, begin, count));
                            return model_->multi_modal_projector->forward(patches);
                          })
      .flatten(0, 1);
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
  return to_name(key, kPublishedPrefixes);
}

std::string InternVl::published_key(const std::string& name) const {
  return to_published(name, kPublishedPrefixes);
}

}  // namespace vlm
