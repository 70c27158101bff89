// What every vision-language model offers to the trainer and the generator; families implement it.
//
//   Pixels ─► encode ─► features [ΣL, W] ─┐
//   ids [B, T] ───────────────► embed ◄───┘ ─► decode ⇄ KvCache ─► hidden [B, T, C] ─► logits [..,
//   V]
//
// The steps are separate functions so that callers choose: the trainer computes logits only at
// labelled positions, the generator only at the last one, and both use the features of an image
// more than once. A picture's features are some rows of W numbers; a family whose decoder takes
// more than one vector a row holds them side by side, and what embed gives decode then is W wide
// too.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "vlm/io/safetensors.h"
#include "vlm/models/interface/pixels.h"
#include "vlm/nn/kv_cache.h"
#include "vlm/nn/packed_attention.h"

namespace torch::nn {
class Module;
}

namespace vlm {

// Model inputs: one conversation from a processor, or several from a collator.
struct ModelInputs {
  at::Tensor input_ids;       // [B, T] int64
  at::Tensor attention_mask;  // [B, T] bool, true = a real token; undefined: all real
  at::Tensor positions;       // [3, B, T] int64 (prompt_layout.h); undefined: real tokens counted
};

class VisionLanguageModel {
 public:
  virtual ~VisionLanguageModel() = default;

  // The module with its parameters, for adapters, optimizers and loading. Only callers of this
  // include torch/nn/module.h, which is slow to compile.
  virtual torch::nn::Module& module() = 0;
  virtual const torch::nn::Module& module() const = 0;

  // Features of media, [pixels.tokens, W], in chunks of at most units_at_once.
  virtual at::Tensor encode(const Pixels& pixels) = 0;

  // Token embeddings with the rows of media_token_ids replaced, in order, by features [ΣL, W]
  // (undefined: none). Throws Error when their numbers differ.
  virtual at::Tensor embed(const at::Tensor& input_ids, const at::Tensor& features) = 0;

  // Token embeddings without image features. For generated ids, among which an image token is an
  // ordinary token.
  virtual at::Tensor embed_tokens(const at::Tensor& input_ids) = 0;

  // Hidden states after the final norm. `attention_mask` [B, T] (undefined: all real); `positions`
  // [3, B, T] (undefined: real tokens are counted). With a cache both are undefined; the caller has
  // called begin_prefill or begin_extend on the cache, which then knows positions and what each
  // token sees. Masks of blocks that see themselves, and of layers with windows, will stand here.
  virtual at::Tensor decode(const at::Tensor& embeddings, const at::Tensor& attention_mask,
                            KvCache* cache, const at::Tensor& positions = {}) = 0;

  // The same for one packed row [1, T, C] of several samples, for training: each sees the tokens
  // that its segment names. `positions` [3, 1, T]; undefined: counted in each segment.
  virtual at::Tensor decode_packed(const at::Tensor& embeddings,
                                   const std::vector<Segment>& segments,
                                   const at::Tensor& positions = {}) = 0;

  // [..., C] → [..., V], in the model's dtype.
  virtual at::Tensor logits(const at::Tensor& hidden) = 0;
  // The layer that computes the logits.
  virtual const torch::nn::Module& output_head() const = 0;

  // Ids in whose places features stand, in ascending order; empty for a model of text alone, whose
  // encode throws Error.
  virtual std::vector<std::int64_t> media_token_ids() const = 0;
  // An id that stands for no medium, to fill rows with.
  std::int64_t filler_id() const;
  // The model's parts (vision_model, connector, text_model, lm_head) → the name of their modules;
  // without those that it doesn't have.
  virtual std::map<std::string, std::string> parts() const = 0;
  // Short names of the projections in the text model's blocks, which adapters adapt by default;
  // empty: those of Llama.
  virtual std::vector<std::string> projection_names() const { return {}; }
  virtual std::int64_t vocab_size() const = 0;
  virtual std::int64_t max_positions() const = 0;
  // The length beyond which all tokens of a sequence get other keys (LongRoPE); 0: there is none.
  // A cache sees to it itself; samples of a packed row share no prefix with one beyond it.
  virtual std::int64_t switch_length() const { return 0; }
  virtual KvCacheShape cache_shape() const = 0;

  // Parameters under their published names, adapters' branches left out, a tied head once.
  virtual NamedTensors weights() const = 0;
  // What picture features depend on besides the pixels and the dtype: the weights that compute
  // them, and other settings as text. For the keys of caches.
  virtual NamedTensors picture_weights() const = 0;
  virtual std::string picture_settings() const = 0;
  // Parameter → the parameter that it shares its weight with; before tie_weights is called as the
  // config says, afterwards as it is.
  virtual std::map<std::string, std::string> tied_weights() const = 0;
  // Makes tied parameters share one weight. Call it after they are filled; if their values differ
  // they stay separate, with a warning. Adapters may separate them later.
  virtual void tie_weights() = 0;
  // Standard deviation of random initial weights, by the config.
  virtual double initializer_range() const = 0;
  // The parameter's name for a key of a checkpoint file: older prefixes are replaced.
  virtual std::string canonical_key(const std::string& key) const = 0;
  // The key of a parameter in published files, where it isn't its name.
  virtual std::string published_key(const std::string& name) const { return name; }

  // Where the model runs, and the dtype that it computes in; weights of projections and embeddings
  // may be stored in fewer bits. Called in every step, so they must be quick.
  virtual at::Device device() const = 0;
  virtual at::ScalarType dtype() const = 0;

  // Dtype in which a mixed model multiplies its matrices (LoadOptions::mixed_precision).
  at::ScalarType product_dtype = at::kFloat;
  // Recompute activations in backward, block by block.
  bool gradient_checkpointing = false;
  // Units (Pixels::units) that go through the vision encoder together; families choose it by the
  // memory of one unit's activations.
  std::int64_t units_at_once = 1;
};

using ModelPtr = std::shared_ptr<VisionLanguageModel>;

// The dtype of what flows between layers. On a GPU weights may be float32 and this bfloat16: full
// fine-tuning.
at::ScalarType activation_dtype(const VisionLanguageModel& model);

// How a cache holds the model's keys and values, by a name: "float32", "bfloat16" or "int8" on a
// CPU; "auto" is bfloat16 there where matrices are multiplied in fewer bits than float32, else the
// dtype that the model computes in, as always on a GPU. Throws Error for what doesn't fit.
KvStorage choose_kv_storage(const std::string& name, const VisionLanguageModel& model);

}  // namespace vlm
