// An answer → the fields that people and programs read: text, confidence, alternatives.
//
// The same for a row of a batch and for `vlm generate --format json`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "infer/doctags/answer_format.h"
#include "infer/generator.h"
#include "infer/search/choices.h"
#include "vlm/core/json.h"

namespace vlm::infer {

struct AnswerReportOptions {
  ChoiceList choices;                   // what was scored, when choices were given
  std::optional<double> abstain_below;  // confidence under which the text is withheld
  bool has_alternatives = false;        // several answers a prompt
  bool has_scores = false;              // of beam search
  AnswerFormat format = AnswerFormat::kText;
  bool by_segment = false;  // which part of a video the first choice fits best
  bool has_json = false;    // answers may have to be JSON: their value is a column
  std::vector<std::string> json_columns = {};  // properties of it that are columns, too
};

// text (in the format; what the model wrote is then under doctags), mean_logprob, min_logprob,
// first_token_entropy, finish_reason; of beam search also score;
// with several answers also alternatives. With choices: text (the likeliest), probability,
// probabilities and logprobs by choice. By segment: text (the best segment's times), its
// probability, segments (of all, the best first: start_s, end_s, probability, logprob). With
// abstain_below also abstained; text is then null and the answer under withheld_text. With has_json
// also json, the value that the text spells, and "json.NAME" for each of json_columns; and error,
// where the text isn't what was asked for (answer_fault).
OrderedJson report_answer(const RequestAnswer& answer, const AnswerReportOptions& options);

// What keeps the best answer from following its grammar, as when it was cut; "": nothing.
std::string answer_fault(const RequestAnswer& answer);

// The text that report_answer shows; nothing when it is withheld.
std::optional<std::string> shown_text(const RequestAnswer& answer,
                                      const AnswerReportOptions& options);

// Made-up values of the kinds that report_answer gives with these options.
OrderedJson example_report(const AnswerReportOptions& options);

// Every field that report_answer has with these options.
std::vector<std::string> report_columns(const AnswerReportOptions& options);

// The fields of any options, and "error": names that columns of the input can't have. Those of
// JSON only where `options` have it.
std::vector<std::string> reserved_columns(const AnswerReportOptions& options = {});

}  // namespace vlm::infer
