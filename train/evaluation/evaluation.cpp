#include "train/evaluation/evaluation.h"

#include <c10/core/GradMode.h>

#include "train/batches/picture_store.h"
#include "train/model/loss.h"

namespace vlm::train {

void add_loss(VisionLanguageModel& model, const std::vector<data::Example>& examples,
              PictureStore& pictures, LossSum& sum) {
  if (examples.empty()) return;
  const c10::NoGradGuard no_grad;
  const data::Batch batch = data::collate(examples, 0);
  sum.loss += loss_sum(model, batch, &pictures).item<double>();
  sum.labels += batch.label_count;
}

}  // namespace vlm::train
