#include "vlm/models/smolvlm/smolvlm.h"

#include <ATen/ops/cat.h>
#include <c10/core/GradMode.h>

#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
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

// Memory that the encoder's activations may add at once during inference. A GPU needs many tiles
// to be busy; a CPU is with one, and is no quicker with more.
constexpr std::int64_t kChunkBytes = 512 << 20;
constexpr std::int64_t kCpuChunkBytes = 64 << 20;

// Tiles that fit `bytes`: per patch a block holds about eight vectors of the hidden size
// (residual, norm, q, k, v, attended, their sum) and two of the MLP's, in float32.
std::int64_t count_tiles(const SiglipConfig& config, std::int64_t bytes) {
  const std::int64_t patches = config.grid_side() * config.grid_side();
  const std::int64_t floats = 8 * config.hidden_size + 2 * config.intermediate_size;
  return std::clamp<std::int64_t>(bytes / (patches * floats * 4), 1, 1024);
}

}  // namespace

SmolVlm::SmolVlm(const SmolVlmConfig& config) : config_(config) {
  units_at_once = count_tiles(config.vision_config, kChunkBytes);
  model_ = register_module("model", std::make_shared<SmolVlmModelBody>(config));
  lm_head_ =
      register_module("lm_head", std::make_shared<Linear>(config.text_config.hidden_size,
                                                          config.text_config.vocab_size, false));
  tie_.emplace(lm_head_, model_->text_model->embed_tokens(), "model.text_model.embed_tokens.weight",
               config.tie_word_embeddings);
}

at::Tensor SmolVlm::encode_patches(const at::Tensor& pixel_values, const at::Tensor& tile_mask) {
  return model_->vision_model->forward(upload(pixel_values.to(activation_dtype(*this)), device()),
                                       tile_mask.defined() ? tile_mask.to(device()) : tile_mask,
                                       gradient_checkpointing && is_training());
}

at::Tensor SmolVlm::encode(const Pixels& pixels) {
  return encode_tiles(pixels.values, {}).flatten(0, 1);
}

at::Tensor SmolVlm::encode_tiles(const at::Tensor& pixel_values, const at::Tensor& tile_mask) {
  std::int64_t chunk = units_at_once;
  if (device().is_cpu()) {
    chunk = std::min(chunk, count_tiles(config_.vision_config, kCpuChunkBytes));
  }
  std::vector<at::Tensor> features;
  for (std::int64_t start = 0; start < pixel_values.size(0); start += chunk) {
    const std::int64_t count = std::min(chunk, pixel_values.size(0) - start);
    const at::Tensor mask = tile_mask.defined() ? tile_mask.narrow(0, start, count) : tile_mask;
    features.push_back(
        model_->connector->forward(encode_patches(pixel_values.narrow(0, start, count), mask)));
  }
  return features.size() == 1 ? features[0] : at::cat(features);
}

at::Tensor SmolVlm::embed_tokens(const at::Tensor& input_ids) {
  return model_->text_model->embed_tokens()
      ->forward(upload(input_ids, device()))
      .to(activation_dtype(*this));
}

at::Tensor SmolVlm::embed(const at::Tensor& input_ids, const at::Tensor& features) {
  return put_features(embed_tokens(input_ids), input_ids, features, media_token_ids());
}

at::Tensor SmolVlm::decode(const at::Tensor& embeddings, const at::Tensor& attention_mask,
                           KvCache* cache, const at::Tensor& positions) {
  check_counted(positions);
  return model_->text_model->forward(embeddings, attention_mask, cache,
                                     gradient_checkpointing && is_training() && !cache);
}

at::Tensor SmolVlm::decode_packed(const at::Tensor& embeddings,
                                  const std::vector<Segment>& segments,
                                  const at::Tensor& positions) {
  check_counted(positions);
  return model_->text_model->forward_packed(embeddings, segments,
                                            gradient_checkpointing && is_training());
}

at::Tensor SmolVlm::logits(const at::Tensor& hidden) {
  return lm_head_->forward(hidden);
}

at::Device SmolVlm::device() const {
  return model_->text_model->options().device();
}

at::ScalarType SmolVlm::dtype() const {
  return c10::typeMetaToScalarType(model_->text_model->options().dtype());
}

std::int64_t SmolVlm::switch_length() const {
  return model_->text_model->switch_length();
}

KvCacheShape SmolVlm::cache_shape() const {
  return model_->text_model->cache_shape();
}

NamedTensors SmolVlm::picture_weights() const {
  return tensors_under(*this, {"model.vision_model.", "model.connector."});
}

std::string SmolVlm::picture_settings() const {
  SiglipConfig vision = config_.vision_config;
  return concat(write_fields(vision.fields()).dump(), " scale_factor ", config_.scale_factor);
}

std::string SmolVlm::canonical_key(const std::string& key) const {
  // Saved from inside a PEFT wrapper, or by exports that keep the text model's own "model.".
  std::string name = key;
  const std::string wrapper = "base_model.model.";
  if (name.starts_with(wrapper)) name = name.substr(wrapper.size());
  const std::string doubled = "model.text_model.model.";
  if (name.starts_with(doubled)) name = "model.text_model." + name.substr(doubled.size());
  return name;
}

}  // namespace vlm
