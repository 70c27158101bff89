#include "train/evaluation/evaluator.h"

#include <torch/nn/module.h>

#include <algorithm>
#include <exception>
#include <nlohmann/json.hpp>

#include "train/evaluation/evaluation.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/run/stop_signal.h"
#include "vlm/io/ordered_workers.h"

namespace vlm::train {
namespace {

constexpr std::int64_t kCheckedAhead = 4;  // samples that are looked at

// `count` of `size` indices, evenly spread; all of them for 0.
std::vector<std::int64_t> choose_items(std::int64_t size, std::int64_t count) {
  const std::int64_t chosen = count > 0 ? std::min(count, size) : size;
  std::vector<std::int64_t> indices;
  for (std::int64_t i = 0; i < chosen; ++i) indices.push_back(i * size / chosen);
  return indices;
}

std::int64_t divide_up(std::int64_t count, std::int64_t by) {
  return (count + by - 1) / by;
}

}  // namespace

Evaluator::Evaluator(const EvaluatorParts& parts) : parts_(parts) {
  std::vector<std::int64_t> usable;
  std::exception_ptr failure;
  try {
    usable = find_usable_samples();
  } catch (...) {
    failure = std::current_exception();
  }
  if (parts_.job.sum({failure ? 1.0 : 0.0})[0] > 0) parts_.job.fail_together(failure);
  std::int64_t usable_items = 0;
  const EvaluationConfig& config = parts_.config.evaluation;
  if (!config.eval_metrics.empty()) {
    TORCH_CHECK(parts_.answer, "metrics of answers need someone who answers");
    for (const std::int64_t i : choose_items(parts_.dataset.size(), config.eval_max_samples)) {
      try {
        items_.push_back(make_held_out(parts_.dataset.at(i), i));
        usable_items += std::ranges::binary_search(usable, i) ? 1 : 0;
      } catch (const Error& error) {
        parts_.skipped.add_bad(parts_.dataset.where(i), error);
      }
    }
  }
  check_any_usable(std::ssize(usable), usable_items);
}

// Of this rank's share of the loss, read by threads: the indices of samples that can be used,
// rising.
std::vector<std::int64_t> Evaluator::find_usable_samples() const {
  const data::EncodeOptions encode = encode_options();
  const std::int64_t size = parts_.config.per_device_eval_batch_size;
  std::vector<std::int64_t> share, usable;
  for (std::int64_t i = 0; i < parts_.dataset.size(); ++i) {
    if (i / size % parts_.job.size() == parts_.job.rank()) share.push_back(i);
  }
  data::MediaTexts texts(*parts_.trained.processor, encode.video);
  const std::int64_t workers = parts_.config.dataloader_num_workers;
  OrderedWorkers<std::int64_t, data::Preview> previews(
      {.name = "vlm evaluation", .workers = workers, .ahead = kCheckedAhead * workers},
      {.open = [&, next = std::size_t{0}]() mutable -> std::optional<std::int64_t> {
         if (next == share.size()) return std::nullopt;
         return share[next++];
       },
       .make =
           [&](std::int64_t i, auto& output) {
             output.put(
                 data::preview_sample(parts_.dataset, i, *parts_.trained.processor, encode, texts));
           }});
  for (const std::int64_t i : share) {
    throw_if_stopped();
    const data::Preview found = *previews.next();
    report_problem(found, parts_.dataset.where(i), encode.length_policy);
    if (found.problem == data::Preview::Problem::kNone) usable.push_back(i);
  }
  return usable;
}

// Of this rank's share of the loss: `samples` that can be used, and `items` of them whose answers
// are scored.
void Evaluator::check_any_usable(std::int64_t samples, std::int64_t items) const {
  const auto sums = parts_.job.sum({static_cast<double>(samples), static_cast<double>(items)});
  if (sums[0] == 0) {
    throw Error({.what = "every sample is skipped",
                 .where = "eval_files",
                 .hint = "the warnings above say why; a larger max_length, or other files"});
  }
  if (!parts_.config.evaluation.eval_metrics.empty() && sums[1] == 0) {
    throw Error({.what = "every sample that eval_max_samples chooses is skipped",
                 .where = "eval_files",
                 .got = concat(static_cast<std::int64_t>(sums[0]), " samples that can be used"),
                 .hint = "eval_max_samples: 0 answers all"});
  }
}

void Evaluator::report_problem(const data::Preview& found, const std::string& where,
                               data::LengthPolicy policy) const {
  using Problem = data::Preview::Problem;
  if (found.problem == Problem::kNone) return;
  const Error error({.what = found.reason});
  if (found.problem == Problem::kTooLong && policy == data::LengthPolicy::kSkip) {
    parts_.skipped.add_long(where, error);
  } else {
    parts_.skipped.add_bad(where, error);
  }
}

std::optional<Evaluation> Evaluator::evaluate(std::int64_t step) const {
  parts_.trained.model->module().eval();
  Evaluation made;
  const std::optional<double> loss = mean_loss();
  if (!loss) return std::nullopt;
  auto answers = answer_all();
  if (!answers) return std::nullopt;
  made.row["step"] = step;
  made.row["eval_loss"] = *loss;
  made.answers = std::move(*answers);
  for (const std::string& metric : parts_.config.evaluation.eval_metrics) {
    made.row["eval_" + metric] = score_answers(metric, made.answers).value;
  }
  begin_training(parts_.trained);
  return made;
}

// Does the work 0 … count − 1 on all ranks in step, so that a stop or a failure on one of them ends
// it on all. False: stopped.
bool Evaluator::run_in_rounds(std::int64_t count,
                              const std::function<void(std::int64_t)>& work) const {
  for (std::int64_t round = 0; round < count; ++round) {
    std::exception_ptr failure;
    bool stops = stop_requested();
    try {
      if (!stops) work(round);
    } catch (const Interrupted&) {
      stops = true;
    } catch (...) {
      failure = std::current_exception();
    }
    const auto sums = parts_.job.sum({stops ? 1.0 : 0.0, failure ? 1.0 : 0.0});
    if (sums[1] > 0) parts_.job.fail_together(failure);
    if (sums[0] > 0) return false;
  }
  return true;
}

data::EncodeOptions Evaluator::encode_options() const {
  data::EncodeOptions encode = parts_.config.encode_options();
  encode.augmentation = {};
  if (parts_.pictures.has_cache()) encode.lookup = &parts_.pictures;
  return encode;
}

// A batch of all ranks' batches; empty behind the last one.
std::vector<data::Example> Evaluator::read_batch(std::int64_t number) const {
  const data::EncodeOptions encode = encode_options();
  const std::int64_t size = parts_.config.per_device_eval_batch_size;
  const std::int64_t end = std::min((number + 1) * size, parts_.dataset.size());
  std::vector<data::Example> examples;
  for (std::int64_t i = number * size; i < end; ++i) {
    throw_if_stopped();
    auto example =
        data::try_example(parts_.dataset, i, *parts_.trained.processor, encode, parts_.skipped);
    if (example) examples.push_back(std::move(*example));
  }
  return examples;
}

std::optional<double> Evaluator::mean_loss() const {
  const std::int64_t ranks = parts_.job.size();
  const std::int64_t rounds =
      divide_up(parts_.dataset.size(), parts_.config.per_device_eval_batch_size * ranks);
  LossSum share;
  const std::int64_t workers = parts_.config.dataloader_num_workers;
  OrderedWorkers<std::int64_t, std::vector<data::Example>> batches(
      {.name = "vlm evaluation", .workers = workers, .ahead = workers + 1},
      {.open = [&, round = std::int64_t{0}]() mutable -> std::optional<std::int64_t> {
         if (round == rounds) return std::nullopt;
         return round++ * ranks + parts_.job.rank();
       },
       .make = [&](std::int64_t number, auto& output) { output.put(read_batch(number)); }});
  const bool is_done = run_in_rounds(rounds, [&](std::int64_t) {
    add_loss(*parts_.trained.model, *batches.next(), parts_.pictures, share);
  });
  if (!is_done) return std::nullopt;
  const auto sums = parts_.job.sum({share.loss, static_cast<double>(share.labels)});
  if (sums[1] == 0) throw Error({.what = "every sample is skipped", .where = "eval_files"});
  return sums[0] / sums[1];
}

std::optional<std::vector<HeldOutAnswer>> Evaluator::answer_all() const {
  if (items_.empty() && parts_.config.evaluation.eval_metrics.empty()) {
    return std::vector<HeldOutAnswer>();
  }
  const std::int64_t ranks = parts_.job.size();
  const std::int64_t rounds =
      divide_up(std::ssize(items_), parts_.config.per_device_eval_batch_size * ranks);
  std::vector<Json> share;  // texts, null for samples that have none
  const bool is_done =
      run_in_rounds(rounds, [&](std::int64_t round) { answer_batch(round, share); });
  if (!is_done) return std::nullopt;
  std::vector<Json> of_ranks;
  for (const std::string& text : parts_.job.gather(Json(share).dump())) {
    of_ranks.push_back(Json::parse(text));
  }
  std::vector<HeldOutAnswer> answers;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    const Json& text = of_ranks[i % of_ranks.size()].at(i / of_ranks.size());
    if (text.is_null()) continue;
    answers.push_back(items_[i]);
    answers.back().answer = text;
  }
  if (answers.empty()) throw Error({.what = "every sample is skipped", .where = "eval_files"});
  return answers;
}

// Of this rank's items, every so many-th of all, the batch `number`.
void Evaluator::answer_batch(std::int64_t number, std::vector<Json>& answers) const {
  parts_.pictures.restore_tower(*parts_.trained.model);  // generating needs it
  // The request shares the processor without owning it.
  AnswerRequest request{
      .model = parts_.trained.model,
      .processor = {std::shared_ptr<const Processor>(), parts_.trained.processor.get()},
      .folder = parts_.trained.folder,
      .max_new_tokens = parts_.config.evaluation.eval_max_new_tokens,
      .video = parts_.config.encode_options().video};
  std::vector<std::size_t> places;  // of the prompts' answers
  const std::int64_t size = parts_.config.per_device_eval_batch_size;
  for (std::int64_t k = number * size; k < (number + 1) * size; ++k) {
    const std::int64_t i = k * parts_.job.size() + parts_.job.rank();
    if (i >= std::ssize(items_)) break;
    const HeldOutAnswer& item = items_[static_cast<std::size_t>(i)];
    answers.emplace_back();
    if (parts_.skipped.contains(item.where)) continue;
    try {
      data::Sample prompt = parts_.dataset.at(item.index);
      prompt.messages.pop_back();
      request.prompts.push_back(std::move(prompt));
      places.push_back(answers.size() - 1);
    } catch (const Error& error) {
      parts_.skipped.add_bad(item.where, error);
    }
  }
  if (request.prompts.empty()) return;
  const auto made = parts_.answer(request);
  for (std::size_t i = 0; i < places.size(); ++i) {
    if (const Error* error = std::get_if<Error>(&made[i])) {
      parts_.skipped.add_bad(request.prompts[i].where, *error);
    } else {
      answers[places[i]] = std::get<std::string>(made[i]);
    }
  }
}

}  // namespace vlm::train
