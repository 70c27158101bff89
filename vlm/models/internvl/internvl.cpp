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
    const bool is_original = config.vision_config.is_original;  // numbers in a sequence
    const auto name = [&](const char* ours, const char* number) {
      return is_original ? number : ours;
    };
    layer_norm_ =
        register_module(name("layer_norm", "0"), std::make_shared<LayerNorm>(joined, 1e-5));
    linear_1_ =
        register_module(name("linear_1", "1"), std::make_shared<Linear>(joined, width, true));
    linear_2_ =
        register_module(name("linear_2", "3"), std::make_shared<Linear>(width, width, true));
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

namespace {

constexpr std::array<KeyPrefix, 4> kPublishedPrefixes = {{
    {"vision_tower.", "model.vision_tower."},
    {"multi_modal_projector.", "model.multi_modal_projector."},
    {"language_model.model.", "model.language_model."},
    {"language_model.lm_head.", "lm_head."},
}};

using PartNames = std::map<std::string, std::string>;

const PartNames kParts = {{"vision_model", "model.vision_tower"},
                          {"connector", "model.multi_modal_projector"},
                          {"text_model", "model.language_model"},
                          {"lm_head", "lm_head"}};
const PartNames kOriginalParts = {{"vision_model", "vision_model"},
                                  {"connector", "mlp1"},
                                  {"text_model", "language_model.model"},
                                  {"lm_head", "language_model.lm_head"}};

}  // namespace

InternVl::InternVl(const InternVlConfig& config)
    : config_(config),
      vision_(std::make_shared<InternVit>(config.vision_config)),
      connector_(std::make_shared<InternVlConnector>(config)) {
  units_at_once = fitting_tiles(config.vision_config, kEncoderBytes);
  auto decoder = std::make_shared<TextDecoder>(config.text_config);
  if (config.vision_config.is_original) {
    build_original(decoder);
    return;
  }
  auto body = register_module("model", std::make_shared<torch::nn::Module>());
  body->register_module("vision_tower", vision_);
  body->register_module("multi_modal_projector", connector_);
  body->register_module("language_model", decoder);
  set_decoder(decoder, "model.language_model", config.tie_word_embeddings);
}

void InternVl::build_original(const std::shared_ptr<TextDecoder>& decoder) {
  register_module("vision_model", vision_);
  register_module("mlp1", connector_);
  auto language_model = register_module("language_model", std::make_shared<torch::nn::Module>());
  language_model->register_module("model", decoder);
  const DecoderConfig& text = config_.text_config;
  auto head = std::make_shared<Linear>(text.hidden_size, text.vocab_size, false);
  language_model->register_module(text.is_internlm2() ? "output" : "lm_head", head);
  set_decoder(decoder, head);
}

std::map<std::string, std::string> InternVl::parts() const {
  if (!config_.vision_config.is_original) return kParts;
  PartNames parts = kOriginalParts;
  if (config_.text_config.is_internlm2()) parts["lm_head"] = "language_model.output";
  return parts;
}

at::Tensor InternVl::encode_patches(const at::Tensor& tiles) {
  return vision_->forward(upload(tiles.to(activation_dtype(*this)), device()), recomputes_blocks());
}

at::Tensor InternVl::encode(const Pixels& pixels) {
  const std::int64_t most = tiles_at_once(config_.vision_config, device(), units_at_once);
  return encode_in_chunks(pixels.units(), most,
                          [&](std::int64_t begin, std::int64_t count) {
                            const at::Tensor patches =
                                encode_patches(pixels.values.narrow(0, begin, count));
                            return connector_->forward(patches);
                          })
      .flatten(0, 1);
}

NamedTensors InternVl::picture_weights() const {
  const auto names = parts();
  return tensors_under(*this, {names.at("vision_model") + ".", names.at("connector") + "."});
}

// Sizes are those of the weights.
std::string InternVl::picture_settings() const {
  const InternVitConfig& c = config_.vision_config;
  return concat("internvl heads ", c.num_attention_heads, " norm ", c.layer_norm_eps, " patch ",
                c.patch_size, " scale ", config_.scale);
}

std::string InternVl::canonical_key(const std::string& key) const {
  if (config_.vision_config.is_original) return to_name(key);
  return to_name(key, kPublishedPrefixes);
}

std::string InternVl::published_key(const std::string& name) const {
  if (config_.vision_config.is_original) return name;
  return to_published(name, kPublishedPrefixes);
}

}  // namespace vlm
