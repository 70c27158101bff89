// The text of an answer that had to follow a rule → its JSON value, and what is wrong with it.
#pragma once

#include <string>
#include <vector>

#include "infer/structured/answer_rule.h"
#include "vlm/core/json.h"

namespace vlm::infer {

struct AnswerValue {
  OrderedJson value = nullptr;  // null where the rule is none of JSON, and where there is a fault
  std::string fault = {};       // why the answer isn't what was asked for; empty: it is
};

// `finish_reason` is the search's. An answer that was cut has a fault, and so has one of JSON that
// doesn't parse or doesn't satisfy its schema, as a stop string can leave it. Of a name that an
// object has twice the last value counts.
AnswerValue read_answer(const AnswerRule& rule, const std::string& text,
                        const std::string& finish_reason);

// Names of the properties at the top of the rule's schema, in its order; none of other rules.
std::vector<std::string> property_names(const AnswerRule& rule);

}  // namespace vlm::infer
