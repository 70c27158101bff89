#include "train/evaluation/evaluator.h"

#include <torch/nn/module.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "train/evaluation/evaluation.h"
#include "vlm/core/error.h"

namespace vlm::train {
namespace {

// `count` of `size` indices, evenly spread; all of them for 0.
std::vector<std::int64_t> choose_items(std::int64_t size, std::int64_t count) {
  const std::int64_t chosen = count > 0 ? std::min(count, size) : size;
  std::vector<std::int64_t> indices;
  for (std::int64_t i = 0; i < chosen; ++i) indices.push_back(i * size / chosen);
  return indices;
}

}  // namespace

Evaluator::Evaluator(const EvaluatorParts& parts) : parts_(parts) {
  const EvaluationConfig& config = parts_.config.evaluation;
  if (config.eval_metrics.empty()) return;
  TORCH_CHECK(parts_.answer, "metrics of answers need someone who answers");
  for (const std::int64_t i : choose_items(parts_.dataset.size(), config.eval_max_samples)) {
    try {
      items_.push_back(make_held_out(parts_.dataset.at(i), i));
    } catch (const Error& error) {
      parts_.skipped.add_bad(parts_.dataset.where(i), error);
    }
  }
}

Evaluation Evaluator::evaluate(std::int64_t step) const {
  Evaluation made;
  parts_.trained.model->module().eval();
  made.row["step"] = step;
  made.row["eval_loss"] = mean_loss();
  made.answers = answer_all();
  for (const std::string& metric : parts_.config.evaluation.eval_metrics) {
    made.row["eval_" + metric] = score_answers(metric, made.answers).value;
  }
  parts_.trained.model->module().train();
  return made;
}

double Evaluator::mean_loss() const {
  data::EncodeOptions encode = parts_.config.encode_options();
  encode.augmentation = {};
  const LossSum own =
      evaluate_loss(*parts_.trained.model, *parts_.trained.processor, parts_.dataset,
                    {.batch_size = parts_.config.per_device_eval_batch_size,
                     .encode = encode,
                     .skipped = &parts_.skipped,
                     .pictures = &parts_.pictures,
                     .rank = parts_.job.rank(),
                     .ranks = parts_.job.size()});
  const auto sums = parts_.job.sum({own.loss, static_cast<double>(own.labels)});
  if (sums[1] == 0) throw Error({.what = "every sample is skipped", .where = "eval_files"});
  return sums[0] / sums[1];
}

std::vector<HeldOutAnswer> Evaluator::answer_all() const {
  if (items_.empty()) return {};
  parts_.pictures.restore_tower(*parts_.trained.model);  // generating needs it
  // The request shares the processor without owning it.
  AnswerRequest request{
      .model = parts_.trained.model,
      .processor = {std::shared_ptr<const Processor>(), parts_.trained.processor.get()},
      .folder = parts_.trained.folder,
      .max_new_tokens = parts_.config.evaluation.eval_max_new_tokens,
      .batch_size = parts_.config.per_device_eval_batch_size,
      .video = parts_.config.encode_options().video};
  const auto rank = static_cast<std::size_t>(parts_.job.rank());
  const auto ranks = static_cast<std::size_t>(parts_.job.size());
  for (std::size_t i = rank; i < items_.size(); i += ranks) {
    data::Sample prompt = parts_.dataset.at(items_[i].index);
    prompt.messages.pop_back();
    request.prompts.push_back(std::move(prompt));
  }
  const OrderedJson own = parts_.answer(request);
  std::vector<Json> of_ranks;
  for (const std::string& text : parts_.job.gather(own.dump())) {
    of_ranks.push_back(Json::parse(text));
  }
  std::vector<HeldOutAnswer> answers = items_;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    answers[i].answer = of_ranks[i % ranks].at(i / ranks);
  }
  return answers;
}

}  // namespace vlm::train
