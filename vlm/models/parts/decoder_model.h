// What every model with a decoder does the same way: from token embeddings to logits.
//
//   ids ─► embed ─► decode ⇄ KvCache ─► hidden ─► logits
//
// A family derives from it, registers its modules under Hugging Face's names, names its decoder,
// and adds what is its own: encoding media, names of parts, keys of files. "lm_head" is registered
// here, unless the family has its head elsewhere.
#pragma once

#include <torch/nn/module.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vlm/models/decoder/decoder.h"
#include "vlm/models/interface/model.h"
#include "vlm/models/parts/tied_head.h"

namespace vlm {

class DecoderModel : public VisionLanguageModel, public torch::nn::Module {
 public:
  torch::nn::Module& module() override { return *this; }
  const torch::nn::Module& module() const override { return *this; }

  at::Tensor embed(const at::Tensor& input_ids, const at::Tensor& features) override;
  at::Tensor embed_tokens(const at::Tensor& input_ids) override;
  // Positions are the caller's only where the decoder's have sections; other decoders count theirs
  // and refuse.
  at::Tensor decode(const at::Tensor& embeddings, const at::Tensor& attention_mask, KvCache* cache,
                    const at::Tensor& positions = {}) override;
  at::Tensor decode_packed(const at::Tensor& embeddings, const std::vector<Segment>& segments,
                           const at::Tensor& positions = {}) override;
  at::Tensor logits(const at::Tensor& hidden) override;
  const torch::nn::Module& output_head() const override { return *lm_head_; }

  std::vector<std::string> projection_names() const override;
  std::int64_t vocab_size() const override { return decoder_->config().vocab_size; }
  std::int64_t max_positions() const override { return decoder_->config().max_position_embeddings; }
  std::int64_t switch_length() const override { return decoder_->switch_length(); }
  KvCacheShape cache_shape() const override { return decoder_->cache_shape(); }
  NamedTensors weights() const override { return tie_->weights(*this); }
  std::map<std::string, std::string> tied_weights() const override { return tie_->tied_weights(); }
  void tie_weights() override { tie_->tie_weights(); }
  double initializer_range() const override { return decoder_->config().initializer_range; }
  at::Device device() const override { return decoder_->options().device(); }
  at::ScalarType dtype() const override;

 protected:
  // Called once, at the end of a constructor. `name`: the registered decoder's. `is_tied`: the
  // head shares the embedding's weight, by the config.
  void set_decoder(std::shared_ptr<TextDecoder> decoder, const std::string& name, bool is_tied);
  // The same with a head that is registered already and has its own weight.
  void set_decoder(std::shared_ptr<TextDecoder> decoder, std::shared_ptr<Linear> head);

  // Whether blocks keep only their inputs for the backward pass.
  bool recomputes_blocks() const { return gradient_checkpointing && is_training(); }

 private:
  // On the model's device.
  at::Tensor given_positions(const at::Tensor& positions) const;

  std::shared_ptr<TextDecoder> decoder_;
  std::shared_ptr<Linear> lm_head_;
  std::optional<TiedHead> tie_;
};

}  // namespace vlm
