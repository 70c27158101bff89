// Held-out evaluation during training: the loss, and answers scored by metrics.
//
//   eval_files ─► every rank takes its share ─► loss and answers of all ─► a row of metrics.jsonl
//
// Reads the model as it is; what is generated is greedy, so an evaluation at the same step gives
// the same row.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "data/dataset.h"
#include "data/skipped_samples.h"
#include "train/batches/picture_store.h"
#include "train/config/train_config.h"
#include "train/distributed.h"
#include "train/evaluation/answer_function.h"
#include "train/evaluation/held_out_answers.h"
#include "train/trained_model.h"
#include "vlm/core/json.h"

namespace vlm::train {

// All of it must outlive the evaluator.
struct EvaluatorParts {
  const TrainConfig& config;
  const TrainedModel& trained;
  PictureStore& pictures;
  const data::Dataset& dataset;
  data::SkippedSamples& skipped;
  const Job& job;
  AnswerFunction answer;  // empty: fine without eval_metrics
};

struct Evaluation {
  OrderedJson row;  // step, eval_loss and eval_<metric>
  std::vector<HeldOutAnswer> answers;
};

class Evaluator {
 public:
  // With metrics, samples that don't end with an answer count as bad.
  explicit Evaluator(const EvaluatorParts& parts);

  // Called by all ranks together, which get the same. The model is in training mode before and
  // after.
  Evaluation evaluate(std::int64_t step) const;

 private:
  double mean_loss() const;
  std::vector<HeldOutAnswer> answer_all() const;

  EvaluatorParts parts_;
  std::vector<HeldOutAnswer> items_;  // without answers
};

}  // namespace vlm::train
