#include "vlm/models/parts/decoder_model.h"

#include <c10/util/Exception.h>

#include <utility>

#include "vlm/models/decoder/decoder_layer.h"
#include "vlm/models/parts/feature_rows.h"
#include "vlm/nn/upload.h"

namespace vlm {

void DecoderModel::set_decoder(std::shared_ptr<TextDecoder> decoder, const std::string& name,
                               bool is_tied) {
  decoder_ = std::move(decoder);
  const DecoderConfig& config = decoder_->config();
  lm_head_ = register_module(
      "lm_head", std::make_shared<Linear>(config.hidden_size, config.vocab_size, false));
  tie_.emplace(lm_head_, decoder_->embed_tokens(), name + ".embed_tokens.weight", is_tied);
}

void DecoderModel::set_decoder(std::shared_ptr<TextDecoder> decoder, std::shared_ptr<Linear> head) {
  decoder_ = std::move(decoder);
  lm_head_ = std::move(head);
  tie_.emplace(lm_head_, decoder_->embed_tokens(), "", /*is_tied=*/false);
}

at::Tensor DecoderModel::embed_tokens(const at::Tensor& input_ids) {
  return decoder_->embed_tokens()->forward(upload(input_ids, device())).to(activation_dtype(*this));
}

at::Tensor DecoderModel::embed(const at::Tensor& input_ids, const at::Tensor& features) {
  return put_features(embed_tokens(input_ids), input_ids, features, media_token_ids());
}

at::Tensor DecoderModel::decode(const at::Tensor& embeddings, const at::Tensor& attention_mask,
                                KvCache* cache, const at::Tensor& positions) {
  return decoder_->forward(embeddings, attention_mask, cache, recomputes_blocks() && !cache,
                           given_positions(positions));
}

at::Tensor DecoderModel::decode_packed(const at::Tensor& embeddings,
                                       const std::vector<Segment>& segments,
                                       const at::Tensor& positions) {
  return decoder_->forward_packed(embeddings, segments, recomputes_blocks(),
                                  given_positions(positions));
}

at::Tensor DecoderModel::given_positions(const at::Tensor& positions) const {
  if (!positions.defined()) return positions;
  TORCH_CHECK(!decoder_->config().rope.sections.empty(), "this decoder counts its positions");
  return upload(positions, device());
}

at::Tensor DecoderModel::logits(const at::Tensor& hidden) {
  return lm_head_->forward(hidden);
}

std::vector<std::string> DecoderModel::projection_names() const {
  const DecoderConfig& config = decoder_->config();
  const DecoderNames names = DecoderNames::of(config);
  if (config.is_fused()) return {names.qkv, names.output, "gate_up_proj", names.down};
  if (config.is_internlm2()) return {names.qkv, names.output, names.gate, names.up, names.down};
  return {};
}

at::ScalarType DecoderModel::dtype() const {
  return c10::typeMetaToScalarType(decoder_->options().dtype());
}

}  // namespace vlm
