#include "vlm/models/decoder/decoder.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <map>

#include "vlm/core/concat.h"
#include "vlm/models/decoder/decoder_layer.h"
#include "vlm/nn/activation_checkpoint.h"
#include "vlm/nn/upload.h"

namespace vlm {
namespace {

// Tokens of one pass that computes a sequence again: their scores with all keys are in memory.
constexpr std::int64_t kTokensAgain = 128;

// Real tokens are counted from 0, padding gets 0. [B, T]
at::Tensor make_positions(const at::Tensor& embeddings, const at::Tensor& attention_mask) {
  if (!attention_mask.defined()) {
    return at::arange(embeddings.size(1), embeddings.options().dtype(at::kLong)).unsqueeze(0);
  }
  return (attention_mask.to(at::kLong).cumsum(1) - 1).clamp_min(0);
}

// Causal and padding mask in one, [B, 1, T, T] bool; a row of padding sees itself, so that no
// softmax is empty.
at::Tensor make_mask(const at::Tensor& attention_mask) {
  const at::Tensor tokens =
      at::arange(attention_mask.size(1), attention_mask.options().dtype(at::kLong));
  const at::Tensor keys = tokens.view({1, 1, 1, -1}), queries = tokens.view({1, 1, -1, 1});
  const at::Tensor real = attention_mask.to(at::kBool).unsqueeze(1).unsqueeze(1);
  return (keys <= queries).logical_and(real).logical_or(keys == queries);
}

// Which rows are longer than the switch. [B or 1, 1] bool; undefined where there is no switch.
at::Tensor find_long_rows(std::int64_t switch_length, const at::Tensor& embeddings,
                          const at::Tensor& attention_mask) {
  if (switch_length == 0) return {};
  if (attention_mask.defined()) return attention_mask.sum(1, /*keepdim=*/true).gt(switch_length);
  return at::full({1, 1}, embeddings.size(1) > switch_length,
                  embeddings.options().dtype(at::kBool));
}

// Of a prompt that comes in pieces it is the whole: all of them turn alike.
std::vector<std::int64_t> lengths_after(const KvCache& cache) {
  if (cache.is_prefill()) return cache.prompt_lengths();
  std::vector<std::int64_t> lengths = cache.pass_counts();
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    lengths[i] += cache.length(cache.pass_places()[i]);
  }
  return lengths;
}

// Which sequences of the pass are longer than the switch when it ends. [B, 1] bool
at::Tensor find_long_sequences(std::int64_t switch_length, const KvCache& cache,
                               at::Device device) {
  if (switch_length == 0) return {};
  return upload(at::tensor(lengths_after(cache), at::kLong).gt(switch_length).unsqueeze(1), device);
}

// Which tokens of a packed row belong to samples longer than the switch. [1, T] bool
at::Tensor find_long_tokens(std::int64_t switch_length, const std::vector<Segment>& segments,
                            at::Device device) {
  if (switch_length == 0) return {};
  std::map<std::int64_t, bool> is_long, of_prefix;  // by where a segment begins
  for (const Segment& segment : segments) {
    const bool is = segment.prefix_length + segment.length > switch_length;
    is_long[segment.begin] = is;
    if (segment.prefix_length == 0) continue;
    const auto [found, is_first] = of_prefix.emplace(segment.prefix_begin, is);
    TORCH_CHECK(found->second == is, "samples that share a prefix turn it differently");
  }
  for (const auto& [begin, is] : of_prefix) is_long[begin] = is;
  std::vector<at::Tensor> parts;
  for (const Segment& segment : segments) {
    parts.push_back(at::full({1, segment.length}, is_long[segment.begin], at::kBool));
  }
  return upload(at::cat(parts, 1), device);
}

}  // namespace

TextDecoder::TextDecoder(const DecoderConfig& config) : config_(config), rotary_(config.rope) {
  embed_tokens_ =
      register_module(DecoderNames::of(config).embedding,
                      std::make_shared<Embedding>(config.vocab_size, config.hidden_size));
  auto list = register_module("layers", std::make_shared<torch::nn::Module>());
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    layers_.push_back(list->register_module(concat(i), std::make_shared<DecoderLayer>(config, i)));
  }
  norm_ =
      register_module("norm", std::make_shared<RmsNorm>(config.hidden_size, config.rms_norm_eps));
}

KvCacheShape TextDecoder::cache_shape() const {
  return {.layers = config_.num_hidden_layers,
          .kv_heads = config_.kv_heads(),
          .head_dim = config_.head_size(),
          .input_width = switch_length() > 0 ? config_.hidden_size : 0};
}

at::Tensor TextDecoder::forward(const at::Tensor& embeddings, const at::Tensor& attention_mask,
                                KvCache* cache, bool checkpointing, const at::Tensor& positions) {
  TORCH_CHECK(!cache || !attention_mask.defined(), "the cache knows which tokens are real");
  if (cache && switch_length() > 0) return extend_across_switch(embeddings, *cache);
  if (cache) return forward_cached(embeddings, *cache, positions);
  ForwardPass pass;
  pass.rotary = rotary_.make_table(
      positions.defined() ? positions : make_positions(embeddings, attention_mask),
      embeddings.scalar_type(), find_long_rows(switch_length(), embeddings, attention_mask));
  if (attention_mask.defined()) pass.mask = make_mask(attention_mask);
  return run_layers(embeddings, pass, checkpointing);
}

at::Tensor TextDecoder::forward_cached(const at::Tensor& embeddings, KvCache& cache,
                                       const at::Tensor& positions) {
  ForwardPass pass{.cache = &cache};
  pass.rotary = rotary_.make_table(
      positions.defined() ? positions : cache.positions(), embeddings.scalar_type(),
      find_long_sequences(switch_length(), cache, embeddings.device()));
  const at::Tensor hidden = run_layers(embeddings, pass, /*checkpointing=*/false);
  cache.end_pass();
  return hidden;
}

// A pass after which some sequences may be longer than the switch. What the cache holds of them was
// turned otherwise, and layer upon layer was computed from that: it is thrown away.
at::Tensor TextDecoder::extend_across_switch(const at::Tensor& embeddings, KvCache& cache) {
  const std::vector<std::int64_t> places = cache.pass_places(), counts = cache.pass_counts();
  const std::vector<std::int64_t> after = lengths_after(cache);
  std::vector<std::int64_t> crossing, staying, staying_rows, staying_counts;
  for (std::size_t i = 0; i < places.size(); ++i) {
    const std::int64_t before = after[i] - counts[i];
    const bool crosses =
        !cache.is_prefill() && before <= switch_length() && after[i] > switch_length();
    (crosses ? crossing : staying).push_back(static_cast<std::int64_t>(i));
    if (crosses) continue;
    staying_rows.push_back(places[i]);
    staying_counts.push_back(counts[i]);
  }
  if (crossing.empty()) {
    cache.store_inputs(embeddings);
    return forward_cached(embeddings, cache, {});
  }
  at::Tensor hidden = at::zeros_like(embeddings);
  if (!staying.empty()) {
    const at::Tensor index = upload(at::tensor(staying, at::kLong), embeddings.device());
    cache.begin_extend(staying_rows, staying_counts);
    const at::Tensor given = embeddings.index_select(0, index).narrow(
        1, 0, *std::max_element(staying_counts.begin(), staying_counts.end()));
    cache.store_inputs(given);
    hidden.narrow(1, 0, given.size(1)).index_copy_(0, index, forward_cached(given, cache, {}));
  }
  for (const std::int64_t i : crossing) {
    const std::int64_t row = places[static_cast<std::size_t>(i)];
    const at::Tensor fresh = embeddings[i].narrow(0, 0, counts[static_cast<std::size_t>(i)]);
    const at::Tensor all = at::cat({cache.stored_inputs(row), fresh});  // [S, C]
    hidden[i]
        .narrow(0, 0, fresh.size(0))
        .copy_(
            compute_again(all, cache, row).narrow(0, all.size(0) - fresh.size(0), fresh.size(0)));
  }
  return hidden;
}

// Fills an emptied row of the cache with a sequence of embedded tokens [S, C] → hidden [S, C]
at::Tensor TextDecoder::compute_again(const at::Tensor& inputs, KvCache& cache, std::int64_t row) {
  cache.begin_again(row);
  std::vector<at::Tensor> hidden;
  for (std::int64_t begin = 0; begin < inputs.size(0); begin += kTokensAgain) {
    const std::int64_t count = std::min(kTokensAgain, inputs.size(0) - begin);
    const at::Tensor part = inputs.narrow(0, begin, count).unsqueeze(0);
    cache.begin_extend({row}, {count});
    cache.store_inputs(part);
    ForwardPass pass{.cache = &cache};
    pass.rotary = rotary_.make_table(cache.positions(), part.scalar_type(),
                                     at::ones({1, 1}, part.options().dtype(at::kBool)));
    hidden.push_back(run_layers(part, pass, /*checkpointing=*/false)[0]);
    cache.end_pass();
  }
  return at::cat(hidden);
}

at::Tensor TextDecoder::forward_packed(const at::Tensor& embeddings,
                                       const std::vector<Segment>& segments, bool checkpointing,
                                       const at::Tensor& positions) {
  ForwardPass pass{.packed = std::make_shared<const PackedRow>(segments)};
  pass.rotary = rotary_.make_table(
      positions.defined() ? positions : upload(packed_positions(segments), embeddings.device()),
      embeddings.scalar_type(), find_long_tokens(switch_length(), segments, embeddings.device()));
  return run_layers(embeddings, pass, checkpointing);
}

at::Tensor TextDecoder::run_layers(at::Tensor x, const ForwardPass& pass, bool checkpointing) {
  const std::int64_t width = config_.hidden_size;
  const std::int64_t additions = x.size(2) / width - 1;
  const at::Tensor wide = x;  // [B, T, C · (1 + additions)]
  if (additions > 0) x = x.narrow(2, 0, width);
  if (pass.cache && (!x.is_cpu() || additions > 0)) x = x.clone();  // the layers write into it
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const auto& layer = layers_[i];
    const auto block = [&layer, pass](const at::Tensor& in) { return layer->forward(in, pass); };
    // Below the first layer that learns nothing is recorded.
    const c10::AutoGradMode recording(needs_gradient(*layer, x));
    x = checkpointing ? checkpoint_activations(*layer, block, x) : block(x);
    const auto number = static_cast<std::int64_t>(i);
    if (number < additions) x = x + wide.narrow(2, (number + 1) * width, width);
  }
  return norm_->forward(x);
}

}  // namespace vlm
