// The results of inspect_data, and their text for the terminal.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/preview.h"
#include "train/config/train_config.h"
#include "train/inspect/survey.h"
#include "train/inspect/token_view.h"

namespace vlm::train {

struct ShownSample {
  data::Preview preview;
  std::vector<TokenView> tokens = {};
};

// One data set: the training files of a stage, or the evaluation files.
struct SurveyedSet {
  std::string name;
  Survey survey;
  std::string longest = {};  // place of the longest sample
};

struct InspectReport {
  TrainConfig config;
  std::vector<ShownSample> shown = {};
  std::vector<SurveyedSet> sets = {};

  void add(const std::string& name, const data::Dataset& dataset, Survey survey);

  // False when a run would end with an error, or some sample has nothing to learn.
  bool is_trainable() const;
};

// A line of a summary: a name and its value.
struct Fact {
  std::string name, value;
};

// "train.jsonl:3 · 96 tokens, 3 learned · 1 picture or clip, 5 tiles", or why it can't be used.
std::string headline(const data::Preview& preview);
std::vector<Fact> list_facts(const SurveyedSet& set);

// A problem of a data set; with `is_error` it would end a run.
struct Complaint {
  bool is_error = false;
  std::string text;
  std::vector<std::string> samples = {};  // the first ones that have it
};
std::vector<Complaint> find_complaints(const SurveyedSet& set, const TrainConfig& config);

std::string to_text(const InspectReport& report, bool uses_color);

}  // namespace vlm::train
