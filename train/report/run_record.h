// What a run's folder says about it: the source of report.html and the model card.
//
//   metrics.jsonl, eval_before.jsonl, eval_answers.jsonl, config ─► load_run_record ─► RunRecord
//
// Read back from the files, so that a run in several parts reports as one.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "data/metrics/paired_comparison.h"
#include "train/evaluation/held_out_answers.h"
#include "vlm/core/json.h"

namespace vlm::train {

// One metric before and after training, on the same items.
struct MetricComparison {
  std::string metric;
  data::PairedComparison values;
};

struct RunRecord {
  OrderedJson config;
  std::vector<Json> rows;                   // of metrics.jsonl
  std::optional<std::int64_t> result_step;  // the best step, where the weights are not the last's
  std::vector<HeldOutAnswer> before, after;
  std::vector<MetricComparison> comparisons;  // empty without answers before and after

  // Steps and values of a key, of the rows that have it as a number.
  std::vector<std::pair<double, double>> curve(const std::string& key) const;
  // The last value of a key, or that of result_step for what was evaluated there; nothing without
  // rows of it.
  std::optional<double> result(const std::string& key) const;
  // Keys of numbers, in the order in which they first occur; without "step".
  std::vector<std::string> keys() const;
};

// Files that can't be read are warned about, and nothing is told of them.
RunRecord load_run_record(const std::filesystem::path& output_dir, const OrderedJson& config);

// "0.1235", "1.2e-05": up to four digits.
std::string format_number(double value);

// "LoRA", "full", … of a config, for people.
std::string describe_method(const OrderedJson& config);

}  // namespace vlm::train
