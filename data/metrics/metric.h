// Answers and references → scores, as the reference kits compute them.
//
//   AnswerPair (answer, references) of every item ─► compute_metric ─► scores and their mean
//
// Used by the evaluation of `vlm finetune` and by `vlm evaluate`. An item with several references
// gets its best score over them; vqa_accuracy and cider use all references in one formula.
//   exact_match       equal; ASCII case and surrounding space don't count
//   vqa_accuracy      VQA v2's vqaEval.py
//   anls              DocVQA's evaluation, threshold 0.5
//   relaxed_accuracy  ChartQA's, as in pix2struct's metrics.py
//   rouge_l           rouge_score 0.1.2, F1, without stemmer
//   cer               jiwer 4: edits divided by the reference's characters; less is better
//   cider             pycocoevalcap 1.2: CIDEr-D, after its PTB tokenizer
#pragma once

#include <string>
#include <vector>

namespace vlm::data {

struct AnswerPair {
  std::string answer;
  std::vector<std::string> references;  // at least one
};

struct MetricScore {
  double value = 0;             // weighted mean of the items; 0 without items
  std::vector<double> items;    // 0 to 1; cider 0 to 10; cer 0 or more
  std::vector<double> weights;  // cer: characters of the item's first reference; else 1
};

// "exact_match", "vqa_accuracy", "anls", "relaxed_accuracy", "rouge_l", "cider",
// "cer"
const std::vector<std::string>& metric_names();

// True when a lower value is better: cer.
bool is_less_better(const std::string& metric);

// Throws Error for a name that is not in metric_names().
void check_metric_name(const std::string& name, const std::string& where);

// Throws Error for an unknown name and for an item without references.
MetricScore compute_metric(const std::string& name, const std::vector<AnswerPair>& pairs);

}  // namespace vlm::data
