// What the layers of a model are multiplied with, on a user's own rows.
//
//   rows (pictures, questions, answers) ─► Calibration ─► Σ x xᵀ of the layers asked for
//
// Rows are read as training reads them (data/dataset.h), pictures are encoded once. Tokens of
// pictures count a fifth of those of text, whose errors cost answers more (arXiv 2412.19509).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "data/batch.h"
#include "vlm/models/interface/model.h"
#include "vlm/nn/layers.h"

namespace vlm::infer {

// By the names of their weights, in the order of the model.
using NamedLayers = std::vector<std::pair<std::string, std::shared_ptr<Linear>>>;

class Calibration {
 public:
  // Takes at most `samples` rows, evenly over the file; those that can't be used are passed over
  // with a warning. Throws Error where none can.
  Calibration(VisionLanguageModel& model, const Processor& processor, const std::string& rows,
              std::int64_t samples);

  std::int64_t samples() const { return std::ssize(prompts_); }

  // One pass over the rows. `done` is called behind each of them. Layers with the same inputs share
  // a matrix.
  std::map<std::string, at::Tensor> sums_of(const NamedLayers& layers,
                                            const std::function<void()>& done) const;

 private:
  struct Prompt {
    at::Tensor ids, positions, features;
    at::Tensor weights;  // [T]
  };

  VisionLanguageModel& model_;
  std::vector<Prompt> prompts_;
};

// A bound for the memory of the sums: layers, cut into runs that are looked at in one pass each.
std::vector<NamedLayers> split_passes(const NamedLayers& layers);

}  // namespace vlm::infer
