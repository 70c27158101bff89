#include "train/inspect/inspect_data.h"

#include <algorithm>
#include <set>
#include <utility>

#include "train/batches/training_data.h"
#include "train/inspect/inspect_page.h"
#include "train/inspect/inspect_report.h"
#include "vlm/core/concat.h"
#include "vlm/models/gguf/gguf_folder.h"
#include "vlm/models/registry.h"

namespace vlm::train {
namespace {

// The first samples that the run would take, each once.
std::vector<ShownSample> show_samples(const TrainingData& data, const Processor& processor,
                                      const data::EncodeOptions& options, std::int64_t count) {
  std::vector<ShownSample> shown;
  std::set<std::pair<std::int64_t, std::int64_t>> seen;
  data::MediaTexts texts(processor, options.video);
  for (std::int64_t step = 0; step < data.plan->total_steps(); ++step) {
    const StepPlan plan = data.plan->at(step);
    for (const std::int64_t index : plan.samples) {
      if (static_cast<std::int64_t>(shown.size()) >= count) return shown;
      if (!seen.insert({plan.stage, index}).second) continue;
      const data::Dataset& dataset = *data.datasets.at(static_cast<std::size_t>(plan.stage));
      ShownSample sample{.preview =
                             data::preview_sample(dataset, index, processor, options, texts)};
      sample.tokens = view_tokens(sample.preview, processor.tokenizer());
      shown.push_back(std::move(sample));
    }
  }
  return shown;
}

}  // namespace

Inspection inspect_data(const TrainConfig& config, const InspectOptions& options) {
  const auto processor =
      load_processor(find_model_folder(config.model_name_or_path), config.template_options());
  const TrainingData data = load_training_data(config, *processor);
  data::EncodeOptions encode = config.encode_options();
  encode.augmentation = {};

  const std::optional<JsonSchema> schema = config.answer_schema();
  const auto survey = [&](const data::Dataset& dataset) {
    return survey_dataset(dataset, *processor, encode, options.threads,
                          schema ? &*schema : nullptr);
  };
  InspectReport report{.config = config};
  report.shown = show_samples(data, *processor, encode, options.samples);
  for (std::size_t stage = 0; stage < data.datasets.size(); ++stage) {
    const std::string name =
        data.datasets.size() > 1 ? concat("train_files of stage ", stage + 1) : "train_files";
    const data::Dataset& dataset = *data.datasets[stage];
    report.add(name, dataset, survey(dataset));
  }
  if (data.eval_dataset) {
    report.add("eval_files", *data.eval_dataset, survey(*data.eval_dataset));
  }
  Inspection inspection{.text = to_text(report, options.uses_color)};
  if (options.makes_page) inspection.page = to_page(report);
  inspection.is_trainable = report.is_trainable();
  return inspection;
}

}  // namespace vlm::train
