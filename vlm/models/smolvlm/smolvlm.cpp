#include "vlm/models/smolvlm/smolvlm.h"

#include <array>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/models/parts/checkpoint_keys.h"
#include "vlm/models/parts/encoder_chunks.h"
#include "vlm/models/parts/feature_rows.h"
#include "vlm/models/parts/pixel_shuffle.h"
#include "vlm/nn/upload.h"

namespace vlm {

// The projection under "modality_projection.proj".
class SmolVlmConnector : public torch::nn::Module {
 public:
  explicit SmolVlmConnector(const SmolVlmConfig& config) : scale_factor_(config.scale_factor) {
    const std::int64_t width = config.vision_config.hidden_size * scale_factor_ * scale_factor_;
    auto projection = register_module("modality_projection", std::make_shared<torch::nn::Module>());
    proj_ = projection->register_module(
        "proj", std::make_shared<Linear>(width, config.text_config.hidden_size, false));
  }

  at::Tensor forward(const at::Tensor& patches) {
    return proj_->forward(shuffle_pixels(patches, scale_factor_));
  }

 private:
  std::int64_t scale_factor_;
  std::shared_ptr<Linear> proj_;
};

// What the published files keep under "model.".
class SmolVlmModelBody : public torch::nn::Module {
 public:
  explicit SmolVlmModelBody(const SmolVlmConfig& config) {
    vision_model =
        register_module("vision_model", std::make_shared<SiglipVisionModel>(config.vision_config));
    connector = register_module("connector", std::make_shared<SmolVlmConnector>(config));
    text_model = register_module("text_model", std::make_shared<TextDecoder>(config.text_config));
  }

  std::shared_ptr<SiglipVisionModel> vision_model;
  std::shared_ptr<SmolVlmConnector> connector;
  std::shared_ptr<TextDecoder> text_model;
};

namespace {

// Some exports keep the text model's own "model.".
constexpr std::array<KeyPrefix, 1> kDoubledPrefixes = {{
    {"model.text_model.model.", "model.text_model."},
}};

}  // namespace

SmolVlm::SmolVlm(const SmolVlmConfig& config) : config_(config) {
  units_at_once = fitting_tiles(config.vision_config, kEncoderBytes);
  model_ = register_module("model", std::make_shared<SmolVlmModelBody>(config));
  set_decoder(model_->text_model, "model.text_model", config.tie_word_embeddings);
}

at::Tensor SmolVlm::encode_patches(const at::Tensor& pixel_values, const at::Tensor& tile_mask) {
  return model_->vision_model->forward(upload(pixel_values.to(activation_dtype(*this)), device()),
                                       tile_mask.defined() ? tile_mask.to(device()) : tile_mask,
                                       recomputes_blocks());
}

at::Tensor SmolVlm::encode(const Pixels& pixels) {
  return encode_tiles(pixels.values, {}).flatten(0, 1);
}

at::Tensor SmolVlm::encode_tiles(const at::Tensor& pixel_values, const at::Tensor& tile_mask) {
  const std::int64_t tiles = pixel_values.size(0);
  const std::int64_t most = tiles_at_once(config_.vision_config, device(), units_at_once);
  return encode_in_chunks(tiles, most, [&](std::int64_t begin, std::int64_t count) {
    const at::Tensor mask = tile_mask.defined() ? tile_mask.narrow(0, begin, count) : tile_mask;
    return model_->connector->forward(encode_patches(pixel_values.narrow(0, begin, count), mask));
  });
}

NamedTensors SmolVlm::picture_weights() const {
  return tensors_under(*this, {"model.vision_model.", "model.connector."});
}

std::string SmolVlm::picture_settings() const {
  SiglipConfig vision = config_.vision_config;
  return concat(write_fields(vision.fields()).dump(), " scale_factor ", config_.scale_factor);
}

std::string SmolVlm::canonical_key(const std::string& key) const {
  return to_name(key, kDoubledPrefixes);
}

}  // namespace vlm
