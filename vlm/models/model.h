// What every vision-language model offers to the trainer and the generator; families implement it.
//
//   tiles [N, 3, S, S] ─► encode_images ─► [N, L, C] ─┐
//   ids [B, T] ─────────────────────────► embed ◄─────┘ ─► decode ⇄ KvCache ─► hidden [B, T, C] ─►
//   logits [.., V]
//
// The steps are apart so that callers decide what runs: the trainer takes logits at labelled
// positions only, the generator at the last one only, and images are encoded once and used often.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "vlm/io/safetensors.h"
#include "vlm/nn/kv_cache.h"
#include "vlm/nn/packed_attention.h"

namespace torch::nn {
class Module;
}

namespace vlm {

// What a processor makes of a conversation, or a collator of several.
struct ModelInputs {
  at::Tensor input_ids;       // [B, T] int64
  at::Tensor attention_mask;  // [B, T] bool, true = a real token; undefined: all real
  at::Tensor
      pixel_values;      // [N, 3, S, S] float32, tiles of all rows in order; undefined: no pictures
  at::Tensor tile_mask;  // [N, S, S] bool, true = a real pixel; undefined: all real
};

class VisionLanguageModel {
 public:
  virtual ~VisionLanguageModel() = default;

  // The graph itself, for whoever walks its parameters (adapters, optimizers, loading). Those
  // include torch/nn/module.h; everyone else is spared its cost in the build.
  virtual torch::nn::Module& module() = 0;
  virtual const torch::nn::Module& module() const = 0;

  // Picture features; tiles go through the encoder in chunks of at most max_tiles_per_chunk.
  virtual at::Tensor encode_images(const at::Tensor& pixel_values, const at::Tensor& tile_mask) = 0;

  // Token embeddings with the rows of image tokens replaced, in order, by image_features [N, L, C]
  // (undefined: none). Throws Error when their numbers differ.
  virtual at::Tensor embed(const at::Tensor& input_ids, const at::Tensor& image_features) = 0;

  // Token embeddings as they are, of ids that are no prompt: a model may say an image token.
  virtual at::Tensor embed_tokens(const at::Tensor& input_ids) = 0;

  // Hidden states behind the final norm. `attention_mask` [B, T] (undefined: all real); positions
  // count real tokens. With a cache, on which the caller has begun the pass, the mask is undefined:
  // the cache knows what is real, where the tokens stand and what they see.
  virtual at::Tensor decode(const at::Tensor& embeddings, const at::Tensor& attention_mask,
                            KvCache* cache) = 0;

  // The same for one packed row [1, T, C] of several samples, for training: each sees what its
  // segment says.
  virtual at::Tensor decode_packed(const at::Tensor& embeddings,
                                   const std::vector<Segment>& segments) = 0;

  // [..., C] → [..., V], in the model's dtype.
  virtual at::Tensor logits(const at::Tensor& hidden) = 0;
  // What computes them.
  virtual const torch::nn::Module& output_head() const = 0;

  virtual std::int64_t image_token_id() const = 0;
  virtual std::int64_t vocab_size() const = 0;
  virtual std::int64_t max_positions() const = 0;
  virtual KvCacheShape cache_shape() const = 0;

  // Parameters under their published names, adapters' branches left out, a tied head once.
  virtual NamedTensors weights() const = 0;
  // What picture features follow from, beside the tiles and the arithmetic: the weights that make
  // them, and the settings that are no weights, as text. For the keys of caches.
  virtual NamedTensors picture_weights() const = 0;
  virtual std::string picture_settings() const = 0;
  // Parameter → the parameter that it is one with: by the config until tie_weights is called, then
  // as it is.
  virtual std::map<std::string, std::string> tied_weights() const = 0;
  // Makes tied parameters one. Called once they are filled; weights that differ stay apart, with a
  // warning. Adapters may part them later.
  virtual void tie_weights() = 0;
  // Standard deviation of random initial weights, by the config.
  virtual double initializer_range() const = 0;
  // Loader's view of a file's key: older prefixes removed.
  virtual std::string canonical_key(const std::string& key) const = 0;

  // Where the graph runs, and what it computes in; weights of projections and embeddings may be
  // stored narrower. Asked for in every step, so families answer without walking the modules.
  virtual at::Device device() const = 0;
  virtual at::ScalarType dtype() const = 0;

  // What a mixed model's matrices are multiplied in (LoadOptions::mixed_precision).
  at::ScalarType product_dtype = at::kFloat;
  // Recompute activations in backward, block by block.
  bool gradient_checkpointing = false;
  // Tiles that go through the vision encoder together; families set it by what one tile's
  // activations take.
  std::int64_t max_tiles_per_chunk = 1;
};

using ModelPtr = std::shared_ptr<VisionLanguageModel>;

}  // namespace vlm
