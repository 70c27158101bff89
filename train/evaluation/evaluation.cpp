#include "train/evaluation/evaluation.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <vector>

#include "train/batches/picture_store.h"
#include "train/loss.h"

namespace vlm::train {

LossSum evaluate_loss(VisionLanguageModel& model, const Processor& processor,
                      const data::Dataset& dataset, const EvaluationOptions& options) {
  const c10::NoGradGuard no_grad;
  LossSum sum;
  const std::int64_t stride = options.batch_size * options.ranks;
  for (std::int64_t begin = options.batch_size * options.rank; begin < dataset.size();
       begin += stride) {
    const std::int64_t end = std::min(begin + options.batch_size, dataset.size());
    std::vector<data::Example> examples;
    for (std::int64_t i = begin; i < end; ++i) {
      auto example = data::try_example(dataset, i, processor, options.encode, *options.skipped);
      if (example) examples.push_back(std::move(*example));
    }
    if (examples.empty()) continue;
    const data::Batch batch = data::collate(examples, 0);
    sum.loss += loss_sum(model, batch, options.pictures).item<double>();
    sum.labels += batch.label_count;
  }
  return sum;
}

}  // namespace vlm::train
