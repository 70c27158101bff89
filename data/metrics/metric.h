// Answers and references → scores, as the reference kits compute them.
//
//   AnswerPair (answer, references) of every item ─► compute_metric ─► a score an item, and their
//   mean
//
// Pure functions of text, used by `vlm finetune` in evaluation and by `vlm evaluate`. An item with
// several references is scored by the best of them, except in vqa_accuracy and cider, whose
// formulas take all together. References: exact_match (equal but for ASCII case and surrounding
// space); vqa_accuracy (VQA v2's vqaEval.py); anls (DocVQA's evaluation, threshold 0.5);
// relaxed_accuracy (ChartQA's, pix2struct's metrics.py); rouge_l (rouge_score 0.1.2, F1, no
// stemmer); cer (jiwer 4: edits over the references' characters, less is better); cider
// (pycocoevalcap 1.2: CIDEr-D behind its PTB tokenizer).
#pragma once

#include <string>
#include <vector>

namespace vlm::data {

struct AnswerPair {
  std::string answer;
  std::vector<std::string> references;  // at least one
};

struct MetricScore {
  double value = 0;             // mean over the items by their weights; 0 without items
  std::vector<double> items;    // 0 to 1; of cider 0 to 10; of cer from 0
  std::vector<double> weights;  // of cer the characters of an item's first reference, otherwise 1
};

// "exact_match", "vqa_accuracy", "anls", "relaxed_accuracy", "rouge_l", "cider",
// "cer"
const std::vector<std::string>& metric_names();

// Whether less of it is better: cer.
bool is_less_better(const std::string& metric);

// Throws Error for a name that is none of metric_names().
void check_metric_name(const std::string& name, const std::string& where);

// Throws Error for an unknown name and for an item without references.
MetricScore compute_metric(const std::string& name, const std::vector<AnswerPair>& pairs);

}  // namespace vlm::data
