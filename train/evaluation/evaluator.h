// Held-out evaluation during training: the loss, and answers scored by metrics.
//
//   eval_files ─► every rank takes its share ─► loss and answers of all ─► a row of metrics.jsonl
//
// Answers are greedy, so an evaluation of the same weights gives the same row. The constructor
// looks for samples that can't be used, before the first step; they are skipped, with the same
// bound as training samples.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "data/dataset.h"
#include "data/preview.h"
#include "data/skipped_samples.h"
#include "train/batches/picture_store.h"
#include "train/config/train_config.h"
#include "train/evaluation/answer_function.h"
#include "train/evaluation/held_out_answers.h"
#include "train/jobs/distributed.h"
#include "train/model/trained_model.h"
#include "vlm/core/json.h"

namespace vlm::train {

// Everything here must outlive the evaluator.
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
  // Reads every sample once. Throws Error when there are more bad samples than max_bad_samples, and
  // when none can be used; with metrics, samples that don't end with an answer are bad.
  explicit Evaluator(const EvaluatorParts& parts);

  // All ranks call it together and get the same result; nothing when one of them was told to stop.
  // The model is in training mode before and after.
  std::optional<Evaluation> evaluate(std::int64_t step) const;

 private:
  bool run_in_rounds(std::int64_t count, const std::function<void(std::int64_t)>& work) const;
  std::vector<std::int64_t> find_usable_samples() const;
  void check_any_usable(std::int64_t samples, std::int64_t items) const;
  void report_problem(const data::Preview& found, const std::string& where,
                      data::LengthPolicy policy) const;
  data::EncodeOptions encode_options() const;
  std::vector<data::Example> read_batch(std::int64_t number) const;
  std::optional<double> mean_loss() const;
  std::optional<std::vector<HeldOutAnswer>> answer_all() const;
  void answer_batch(std::int64_t number, std::vector<Json>& answers) const;

  EvaluatorParts parts_;
  std::vector<HeldOutAnswer> items_;  // without answers
};

}  // namespace vlm::train
