// Qwen2-VL, Qwen2.5-VL and Qwen3-VL: a vision encoder for pictures of any size, a Qwen decoder
// whose positions are time, row and column, and an output head.
//
// Registered modules carry the names of transformers 5; published files of the first two have older
// ones (`visual.…`, `model.layers.…`), which are read and written. Reference:
// Qwen2VLForConditionalGeneration and its two successors, transformers 5.23.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "vlm/models/parts/decoder_model.h"
#include "vlm/models/qwen_vl/qwen_vl_config.h"

namespace vlm {

class QwenVlBody;

class QwenVl : public DecoderModel {
 public:
  explicit QwenVl(const QwenVlConfig& config);

  at::Tensor encode(const Pixels& pixels) override;

  std::vector<std::int64_t> media_token_ids() const override;
  std::map<std::string, std::string> parts() const override {
    return {{"vision_model", "model.visual"},
            {"connector", "model.visual.merger"},
            {"text_model", "model.language_model"},
            {"lm_head", "lm_head"}};
  }
  NamedTensors picture_weights() const override;
  std::string picture_settings() const override;
  std::string canonical_key(const std::string& key) const override;
  std::string published_key(const std::string& name) const override;

  const QwenVlConfig& config() const { return config_; }

 private:
  QwenVlConfig config_;
  std::shared_ptr<QwenVlBody> model_;
};

}  // namespace vlm
