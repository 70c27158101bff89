// Which turns of a sample are learned: by the rule of the run (train_on), and by flags of single
// messages.
//
//   assistant       the assistant's turns; of a prompt and its completion, the completion's
//   last_assistant  the last of them
//   completion      the assistant's turns behind the last other one, or of the completion
//   all             every token of text, openings of turns included
//
// A message's own flag ("loss": true or false) overrides the rule. Tokens of pictures and clips are
// never learned (vlm/models/interface/processor.h).
#pragma once

#include <string>
#include <vector>

#include "data/conversations/sample.h"
#include "vlm/models/interface/turn_spans.h"

namespace vlm::data {

enum class TrainOn { kAssistant, kLastAssistant, kCompletion, kAll };

// In the enum's order: the values of `train_on`.
const std::vector<std::string>& train_on_names();
// Throws Error for an unknown name.
TrainOn parse_train_on(const std::string& name);

LossTurns find_loss_turns(const Sample& sample, TrainOn train_on);

}  // namespace vlm::data
