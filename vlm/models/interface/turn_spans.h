// Where the learned parts of a rendered conversation begin and end.
//
//   messages, LossTurns ─► split_turns ─► the prompt string, cut into learned and other spans
//
// A template gives one string; rendering the first message, the first two and so on shows where
// each turn ends. The span of a learned turn goes from the character after its opening
// ("Assistant:") up to and including the end mark, or, with headers, from the end of the turn
// before to its own.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "vlm/text/chat_template.h"

namespace vlm {

// The turns of a conversation that are learned.
struct LossTurns {
  std::vector<bool> is_learned;  // one a message
  bool with_headers = false;  // also learns the openings of these turns and the text between turns
};

// Every turn of the assistant.
LossTurns assistant_turns(const std::vector<Message>& messages);

struct TurnSpans {
  struct Span {
    std::size_t begin, end;  // bytes of `text`
    bool is_learned;
  };
  std::string text;
  std::vector<Span> spans;  // in order, covering the text
};

// `end_mark` closes a turn. Throws Error naming `where` for a template whose turns can't be told
// apart.
TurnSpans split_turns(const ChatTemplate& chat_template, const std::vector<Message>& messages,
                      const LossTurns& turns, const std::string& end_mark,
                      const std::string& where);

}  // namespace vlm
