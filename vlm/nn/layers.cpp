#include "vlm/nn/layers.h"

#include <ATen/ops/_fused_rms_norm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/rsqrt.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <string>

#include "vlm/nn/frozen_linear.h"
#include "vlm/nn/lora/embedding_branch.h"
#include "vlm/nn/lora/lora.h"
#include "vlm/nn/lora/token_rows.h"
#include "vlm/nn/rms_norm.h"
#include "vlm/nn/weights/stored_dense.h"
#include "vlm/nn/weights/stored_int8.h"
#include "vlm/nn/weights/stored_nf4.h"

namespace vlm {
namespace {

constexpr const char* kMagnitude = "lora_magnitude_vector";
constexpr const char* kQuantized = "quantized";
constexpr const char* kTokens = "token_adapter";

// On a GPU what is trained is stored in float32 and follows the dtype of what it meets.
at::Tensor beside(const at::Tensor& parameter, const at::Tensor& x) {
  return parameter.defined() && !x.is_cpu() ? parameter.to(x.scalar_type()) : parameter;
}

}  // namespace

Linear::Linear(std::int64_t in_features, std::int64_t out_features, bool has_bias)
    : in_features_(in_features), out_features_(out_features) {
  weight = register_parameter("weight", at::empty({out_features, in_features}));
  if (has_bias) bias = register_parameter("bias", at::empty({out_features}));
  stored_ = std::make_shared<StoredDense>(weight);
}

at::Tensor Linear::forward(const at::Tensor& x) const {
  const at::Tensor y = lora_ ? lora_->forward(*this, x) : multiply(x, bias);
  return tokens_ ? tokens_->replace_columns(y, x) : y;
}

at::Tensor Linear::multiply(const at::Tensor& x, const at::Tensor& added) const {
  return stored_->multiply(x, added, product_dtype);
}

void Linear::set_lora(std::shared_ptr<LoraBranch> branch) {
  if (lora_) {
    unregister_module("lora_A");
    unregister_module("lora_B");
    if (lora_->magnitude.defined()) parameters_.erase(kMagnitude);
  }
  lora_ = std::move(branch);
  if (lora_) {
    register_module("lora_A", lora_->a());
    register_module("lora_B", lora_->b());
    if (lora_->magnitude.defined()) register_parameter(kMagnitude, lora_->magnitude);
  }
}

void Linear::set_tokens(std::shared_ptr<TokenRows> tokens) {
  if (tokens_) unregister_module(kTokens);
  tokens_ = std::move(tokens);
  if (tokens_) register_module(kTokens, tokens_);
}

void Linear::check_shape(const at::Tensor& value) const {
  TORCH_CHECK(value.dim() == 2 && value.size(0) == out_features_ && value.size(1) == in_features_,
              "a weight to store: ", value.sizes(), " instead of [", out_features_, ", ",
              in_features_, "]");
}

void Linear::store(std::shared_ptr<const StoredWeight> stored) {
  // A child of its own, as buffers can't be taken back.
  const auto child = std::make_shared<torch::nn::Module>();
  for (const auto& [name, tensor] : stored->buffers()) child->register_buffer(name, tensor);
  if (weight.defined()) {
    parameters_.erase("weight");
    register_module(kQuantized, child);
    weight = at::Tensor();
  } else {
    replace_module(kQuantized, child);
  }
  stored_ = std::move(stored);
}

void Linear::store_nf4(const at::Tensor& value) {
  check_shape(value);
  store(std::make_shared<StoredNf4>(quantize_nf4(value)));
}

void Linear::store_int8(const at::Tensor& value) {
  check_shape(value);
  store(std::make_shared<StoredInt8>(quantize_int8(value)));
}

const Nf4Weight* Linear::nf4() const {
  const auto* stored = dynamic_cast<const StoredNf4*>(stored_.get());
  return stored ? &stored->weight() : nullptr;
}

const Int8Weight* Linear::int8() const {
  const auto* stored = dynamic_cast<const StoredInt8*>(stored_.get());
  return stored ? &stored->weight() : nullptr;
}

void Linear::set_weight(const at::Tensor& value) {
  if (!weight.defined()) {
    unregister_module(kQuantized);
    weight = register_parameter("weight", value, /*requires_grad=*/false);
    stored_ = std::make_shared<StoredDense>(weight);
    return;
  }
  const bool requires_grad = weight.requires_grad();
  share_weight(value.detach().set_requires_grad(requires_grad));
}

void Linear::share_weight(const at::Tensor& shared) {
  parameters_["weight"] = shared;
  weight = shared;
  stored_ = std::make_shared<StoredDense>(weight);
}

std::vector<at::Tensor> forward_each(const at::Tensor& x,
                                     const std::vector<const Linear*>& layers) {
  std::vector<StoredMap> maps;
  maps.reserve(layers.size());
  for (const Linear* layer : layers) {
    if (layer->is_plain()) maps.push_back(layer->map());
  }
  std::vector<at::Tensor> together;
  if (maps.size() == layers.size()) together = multiply_each(x, maps);
  if (!together.empty()) return together;
  std::vector<at::Tensor> results;
  for (const Linear* layer : layers) results.push_back(layer->forward(x));
  return results;
}

Embedding::Embedding(std::int64_t rows, std::int64_t features) {
  weight = register_parameter("weight", at::empty({rows, features}));
}

at::Tensor Embedding::forward(const at::Tensor& ids) const {
  const at::Tensor rows = lora_ ? lora_->forward(*this, ids) : at::embedding(weight, ids);
  return tokens_ ? tokens_->replace_rows(rows.to(at::kFloat), ids) : rows;
}

void Embedding::set_lora(std::shared_ptr<EmbeddingBranch> branch) {
  if (lora_) {
    for (const char* name : {"lora_embedding_A", "lora_embedding_B", kMagnitude}) {
      if (parameters_.contains(name)) parameters_.erase(name);
    }
  }
  lora_ = std::move(branch);
  if (!lora_) return;
  register_parameter("lora_embedding_A", lora_->a);
  register_parameter("lora_embedding_B", lora_->b);
  if (lora_->magnitude.defined()) register_parameter(kMagnitude, lora_->magnitude);
}

void Embedding::set_tokens(std::shared_ptr<TokenRows> tokens) {
  if (tokens_) unregister_module(kTokens);
  tokens_ = std::move(tokens);
  if (tokens_) register_module(kTokens, tokens_);
}

void Embedding::set_weight(const at::Tensor& value) {
  weight = value.detach().set_requires_grad(weight.requires_grad());
  parameters_["weight"] = weight;
}

LayerNorm::LayerNorm(std::int64_t features, double eps) : eps_(eps) {
  weight = register_parameter("weight", at::empty({features}));
  bias = register_parameter("bias", at::empty({features}));
}

at::Tensor LayerNorm::forward(const at::Tensor& x) const {
  return at::layer_norm(x, {x.size(-1)}, beside(weight, x), beside(bias, x), eps_);
}

RmsNorm::RmsNorm(std::int64_t features, double eps) : eps_(eps) {
  weight = register_parameter("weight", at::empty({features}));
}

at::Tensor RmsNorm::forward(const at::Tensor& x) const {
  if (can_normalize_rows(x, weight)) return normalize_rows(x, weight, eps_);
  if (!x.is_cpu()) {
    return std::get<0>(at::_fused_rms_norm(x, {x.size(-1)}, beside(weight, x), eps_));
  }
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps_);
  return weight * (wide * scale).to(x.scalar_type());
}

namespace {

// Whether layers are nothing but a product with a weight of x's dtype on a GPU, and perhaps a bias:
// all or none of them.
bool are_plain_products(const at::Tensor& x, const std::vector<const Linear*>& layers) {
  if (x.is_cpu() || c10::GradMode::is_enabled()) return false;
  return std::ranges::all_of(layers, [&](const Linear* layer) {
    return layer->is_plain() && !layer->is_quantized() &&
           layer->weight.scalar_type() == x.scalar_type() &&
           layer->bias.defined() == layers[0]->bias.defined() &&
           (!layer->bias.defined() || layer->bias.scalar_type() == x.scalar_type());
  });
}

// Tensors one below the other. They come to lie so in memory, each a part of the whole.
at::Tensor join_rows(std::vector<at::Tensor> parts) {
  const at::Tensor& first = parts[0];
  const std::int64_t width = first.numel() / first.size(0);
  std::int64_t rows = 0;
  bool is_joined = true;
  for (const at::Tensor& part : parts) {
    is_joined = is_joined && part.is_alias_of(first) && part.is_contiguous() &&
                part.storage_offset() == first.storage_offset() + rows * width;
    rows += part.size(0);
  }
  if (is_joined) {
    std::vector<std::int64_t> sizes = first.sizes().vec();
    sizes[0] = rows;
    return first.as_strided(sizes, first.strides());
  }
  // A tensor made in inference mode could never be trained again.
  const c10::InferenceMode normal(false);
  const c10::NoGradGuard no_grad;
  const at::Tensor joined = at::cat(parts);
  std::int64_t begin = 0;
  for (at::Tensor& part : parts) {
    const std::int64_t count = part.size(0);
    part.set_data(joined.narrow(0, begin, count));
    begin += count;
  }
  return joined;
}

}  // namespace

at::Tensor forward_joined(const at::Tensor& x, const std::vector<const Linear*>& layers) {
  if (!are_plain_products(x, layers)) return {};
  std::vector<at::Tensor> weights, biases;
  for (const Linear* layer : layers) {
    weights.push_back(layer->weight);
    if (layer->bias.defined()) biases.push_back(layer->bias);
  }
  return at::linear(x, join_rows(std::move(weights)),
                    biases.empty() ? at::Tensor() : join_rows(std::move(biases)));
}

namespace {

constexpr std::int64_t kMostJoined = 1 << 27;  // values; 256 MB in bfloat16

// The layers of a block that are expanded together.
struct JointLayers {
  std::string block;
  std::int64_t values = 0;
  std::vector<Linear*> layers;
};

// Of a module's name what ends with its last number; nothing where there is none.
std::string block_of(const std::string& name) {
  std::size_t end = 0, begin = 0;
  while (begin < name.size()) {
    const std::size_t dot = std::min(name.find('.', begin), name.size());
    const std::string part = name.substr(begin, dot - begin);
    if (part.find_first_not_of("0123456789") == std::string::npos) end = dot;
    begin = dot + 1;
  }
  return name.substr(0, end);
}

std::vector<JointLayers> find_joint_layers(const torch::nn::Module& model) {
  std::vector<JointLayers> found;
  for (const auto& item : model.named_modules()) {
    auto* linear = dynamic_cast<Linear*>(item.value().get());
    if (!linear || !linear->nf4() || linear->device().is_cpu()) continue;
    const std::string block = block_of(item.key());
    const std::int64_t values = linear->in_features() * linear->out_features();
    const bool goes_on = !found.empty() && !block.empty() && found.back().block == block &&
                         found.back().values + values <= kMostJoined;
    if (!goes_on) found.push_back({.block = block});
    found.back().values += values;
    found.back().layers.push_back(linear);
  }
  return found;
}

}  // namespace

std::shared_ptr<WideBlock> join_nf4_blocks(const torch::nn::Module& model) {
  const std::vector<JointLayers> found = find_joint_layers(model);
  if (found.empty()) return nullptr;
  auto last = std::make_shared<WideBlock>();
  for (const JointLayers& joint : found) {
    std::vector<const Nf4Weight*> weights;
    for (const Linear* layer : joint.layers) weights.push_back(layer->nf4());
    std::vector<Nf4Weight> parts = join_nf4(weights, last);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      joint.layers[i]->store(std::make_shared<StoredNf4>(std::move(parts[i])));
    }
  }
  return last;
}

at::Tensor add_projected(at::Tensor residual, const Linear& layer, const at::Tensor& x) {
  if (layer.bias.defined() || !are_plain_products(x, {&layer})) {
    return add_residual(layer.forward(x), residual);
  }
  residual.flatten(0, -2).addmm_(x.reshape({-1, x.size(-1)}), layer.weight.t());
  return residual;
}

at::Tensor add_residual(at::Tensor branch, const at::Tensor& x) {
  return at::GradMode::is_enabled() ? branch + x : branch.add_(x);
}

void initialize_weights(torch::nn::Module& model, double std, at::Generator generator) {
  const c10::NoGradGuard no_grad;
  for (auto& child : model.modules()) {
    const bool is_norm =
        dynamic_cast<LayerNorm*>(child.get()) || dynamic_cast<RmsNorm*>(child.get());
    for (auto& item : child->named_parameters(/*recurse=*/false)) {
      if (item.key() == "bias") {
        item.value().zero_();
      } else if (is_norm) {
        item.value().fill_(1.0);
      } else {
        item.value().normal_(0.0, std, generator);
      }
    }
  }
}

}  // namespace vlm
