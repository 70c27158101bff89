#include "train/report/run_record.h"

#include <algorithm>
#include <cmath>

#include "data/metrics/metric.h"
#include "train/report/metrics_log.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"

namespace vlm::train {
namespace {

// Seeds only the resampling, so that the interval is the same whenever the report is written.
constexpr std::uint64_t kBootstrapSeed = 20'260'101;

// The same items, in the same order.
bool are_paired(const RunRecord& record) {
  return !record.before.empty() &&
         std::equal(record.before.begin(), record.before.end(), record.after.begin(),
                    record.after.end(), [](const HeldOutAnswer& a, const HeldOutAnswer& b) {
                      return a.index == b.index && a.references == b.references;
                    });
}

// A file that someone wrote into mustn't cost the report, nor a result whose report it is.
std::vector<HeldOutAnswer> read_answers(const std::filesystem::path& path) {
  try {
    std::vector<HeldOutAnswer> answers = load_answers(path);
    for (const HeldOutAnswer& answer : answers) {
      if (!answer.references.empty()) continue;
      throw Error({.what = "an answer has no references", .where = path.string()});
    }
    return answers;
  } catch (const Error& error) {
    log_warning(concat("the report goes without answers: ", error.what()));
    return {};
  }
}

std::vector<MetricComparison> compare(const RunRecord& record) {
  std::vector<MetricComparison> made;
  if (!are_paired(record)) return made;
  for (const std::string& metric :
       record.config.value("eval_metrics", std::vector<std::string>())) {
    const data::MetricScore before = score_answers(metric, record.before);
    made.push_back(
        {metric, data::compare_paired(before.items, score_answers(metric, record.after).items,
                                      {.seed = kBootstrapSeed,
                                       .less_is_better = data::is_less_better(metric),
                                       .weights = before.weights})});
  }
  return made;
}

}  // namespace

std::vector<std::pair<double, double>> RunRecord::curve(const std::string& key) const {
  std::vector<std::pair<double, double>> points;
  for (const Json& row : rows) {
    const auto found = row.find(key);
    if (found != row.end() && found->is_number()) points.emplace_back(row["step"], *found);
  }
  return points;
}

std::optional<double> RunRecord::result(const std::string& key) const {
  std::optional<double> last;
  for (const auto& [step, value] : curve(key)) {
    if (result_step && key.starts_with("eval_") && step != static_cast<double>(*result_step)) {
      continue;
    }
    last = value;
  }
  return last;
}

std::vector<std::string> RunRecord::keys() const {
  std::vector<std::string> found;
  for (const Json& row : rows) {
    for (const auto& [key, value] : row.items()) {
      const bool is_known = std::find(found.begin(), found.end(), key) != found.end();
      if (key != "step" && value.is_number() && !is_known) found.push_back(key);
    }
  }
  return found;
}

RunRecord load_run_record(const std::filesystem::path& output_dir, const OrderedJson& config) {
  RunRecord record{.config = config,
                   .rows = read_metrics(output_dir / "metrics.jsonl"),
                   .before = read_answers(before_path(output_dir)),
                   .after = read_answers(answers_path(output_dir))};
  record.comparisons = compare(record);
  return record;
}

std::string format_number(double value) {
  const bool is_whole = value == std::floor(value) && std::abs(value) < 1e15;
  return is_whole ? fixed_text(value, 0) : short_text(value, 4);
}

std::string describe_method(const OrderedJson& config) {
  const std::string method = config.value("method", "lora");
  if (method == "lora") return config.value("use_rslora", false) ? "rsLoRA" : "LoRA";
  if (method == "qlora") return "QLoRA";
  if (method == "dora") return "DoRA";
  return method;
}

}  // namespace vlm::train
