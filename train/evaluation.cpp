#include "train/evaluation.h"

#include <c10/core/GradMode.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <vector>

#include "train/batches/picture_store.h"
#include "train/loss.h"

namespace vlm::train {

double evaluate_loss(VisionLanguageModel& model, const Processor& processor,
                     const data::Dataset& dataset, const EvaluationOptions& options) {
  const c10::NoGradGuard no_grad;
  model.module().eval();
  double sum = 0;
  std::int64_t labels = 0;
  for (std::int64_t begin = 0; begin < dataset.size(); begin += options.batch_size) {
    const std::int64_t end = std::min(begin + options.batch_size, dataset.size());
    std::vector<data::Example> examples;
    for (std::int64_t i = begin; i < end; ++i) {
      auto example = data::try_example(dataset, i, processor, options.encode, *options.skipped);
      if (example) examples.push_back(std::move(*example));
    }
    if (examples.empty()) continue;
    const data::Batch batch = data::collate(examples, 0);
    sum += loss_sum(model, batch, options.pictures).item<double>();
    labels += batch.label_count;
  }
  model.module().train();
  if (labels == 0) throw Error({.what = "every sample is skipped", .where = "eval_files"});
  return sum / static_cast<double>(labels);
}

}  // namespace vlm::train
