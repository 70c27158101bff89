// The record of a run, read from its folder: the source of report.html and the model card.
//
//   metrics.jsonl, eval_before.jsonl, eval_answers.jsonl, config ─► load_run_record ─► RunRecord
//
// Reading the files makes a run in several parts one record.
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
  std::optional<std::int64_t> result_step;  // the step of the result, when it isn't the last one
  std::vector<HeldOutAnswer> before, after;
  std::vector<MetricComparison> comparisons;  // empty without answers before and after

  // Step and value of every row that has the key as a number.
  std::vector<std::pair<double, double>> curve(const std::string& key) const;
  // The last value of a key; for keys of evaluations the value at result_step, if that is set.
  // Nothing when no row has it.
  std::optional<double> result(const std::string& key) const;
  // Keys of numbers, in the order in which they first occur; without "step".
  std::vector<std::string> keys() const;
};

// For a file that can't be read a warning is logged, and its part of the record is empty.
RunRecord load_run_record(const std::filesystem::path& output_dir, const OrderedJson& config);

// "0.1235", "1.2e-05": up to four digits.
std::string format_number(double value);

// "LoRA", "full", … of a config, for people.
std::string describe_method(const OrderedJson& config);

}  // namespace vlm::train
