// An output head "lm_head" that may share its weight with the token embedding.
//
// Whether it does is what the config says (tie_word_embeddings), until the weights are there: a
// file may hold two different ones, which then stay apart. A head that is stored in fewer bits has
// a weight of its own. Reference: tie_weights of transformers 5.23.
#pragma once

#include <torch/nn/module.h>

#include <map>
#include <memory>
#include <string>

#include "vlm/io/safetensors.h"
#include "vlm/nn/layers.h"

namespace vlm {

class TiedHead {
 public:
  // `embedding_name`: the name of the embedding's weight in the model.
  TiedHead(std::shared_ptr<Linear> head, std::shared_ptr<Embedding> embedding,
           std::string embedding_name, bool is_tied)
      : head_(std::move(head)),
        embedding_(std::move(embedding)),
        embedding_name_(std::move(embedding_name)),
        is_wanted_(is_tied) {}

  // As VisionLanguageModel's.
  std::map<std::string, std::string> tied_weights() const;
  void tie_weights();
  NamedTensors weights(const torch::nn::Module& model) const;

 private:
  // Whether head and embeddings share one weight, or will after loading.
  bool is_tied() const;

  std::shared_ptr<Linear> head_;
  std::shared_ptr<Embedding> embedding_;
  std::string embedding_name_;
  bool is_wanted_;
  bool is_filled_ = false;  // tie_weights was called
};

}  // namespace vlm
