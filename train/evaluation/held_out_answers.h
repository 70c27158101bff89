// Answers of a model to the held-out questions, with the reference answers; stored as JSONL.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/conversations/sample.h"
#include "data/metrics/metric.h"
#include "vlm/core/json.h"

namespace vlm::train {

struct HeldOutAnswer {
  std::int64_t index = 0;  // in the evaluation set
  std::string where;       // "eval.jsonl:3"
  std::string question;
  std::vector<std::string> references;
  std::string answer;
};

// The item of a sample: its last turn gives the reference, the text of the last user turn the
// question; no answer yet. Throws Error for a sample that doesn't end with an assistant turn.
HeldOutAnswer make_held_out(const data::Sample& sample, std::int64_t index);

OrderedJson to_json(const HeldOutAnswer& answer);
HeldOutAnswer parse_held_out(const Json& json, const std::string& where);

// Written beside its place and renamed.
void save_answers(const std::filesystem::path& path, const std::vector<HeldOutAnswer>& answers);
// Empty when there is no file. Throws Error for a malformed one.
std::vector<HeldOutAnswer> load_answers(const std::filesystem::path& path);

// output_dir/eval_before.jsonl: what the untuned model answered; output_dir/eval_answers.jsonl: the
// latest answers.
std::filesystem::path before_path(const std::filesystem::path& output_dir);
std::filesystem::path answers_path(const std::filesystem::path& output_dir);

data::MetricScore score_answers(const std::string& metric,
                                const std::vector<HeldOutAnswer>& answers);

}  // namespace vlm::train
