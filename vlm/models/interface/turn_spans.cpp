#include "vlm/models/interface/turn_spans.h"

#include <algorithm>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

class TurnFinder {
 public:
  TurnFinder(const ChatTemplate& chat_template, const std::vector<Message>& messages,
             const std::string& end_mark, const std::string& where)
      : template_(chat_template), messages_(messages), end_mark_(end_mark), where_(where) {
    text_ = template_.render(messages, false);
  }

  const std::string& text() const { return text_; }

  // The text up to message `count`. Where the whole doesn't begin with these messages alone (some
  // templates close a conversation, or write its last answer otherwise) their last turn ends with
  // the first end mark behind its opening.
  std::string text_before(std::size_t count) const {
    if (count == 0) return "";
    std::string before = template_.render(first(count), false);
    if (text_.starts_with(before)) return before;
    const std::size_t begin = find_content(count - 1);
    const std::size_t mark = begin <= text_.size() ? text_.find(end_mark_, begin) : begin;
    if (mark >= text_.size()) fail(count - 1);
    return text_.substr(0, mark + end_mark_.size());
  }

  // Where the content of message `i` begins: behind the opening.
  std::size_t find_content(std::size_t i) const {
    if (messages_[i].role == "assistant") return find_answer(i);
    // Other openings no template names: they end where different contents begin to differ.
    std::vector<Message> contents;
    if (messages_[i].plain_content) {
      contents = {{.plain_content = "a"}, {.plain_content = "b"}, {.plain_content = ""}};
    } else {
      contents = {{.content = {{.type = "text", .text = "a"}}},
                  {.content = {{.type = "text", .text = "b"}}},
                  {.content = {{.type = "image"}}}};
    }
    std::vector<std::string> variants;
    for (Message& content : contents) {
      std::vector<Message> messages = first(i);
      content.role = messages_[i].role;
      messages.push_back(content);
      variants.push_back(template_.render(messages, false));
    }
    std::size_t same = 0;
    const std::size_t most = std::min({variants[0].size(), variants[1].size(), variants[2].size()});
    while (same < most && variants[0][same] == variants[1][same] &&
           variants[0][same] == variants[2][same]) {
      ++same;
    }
    return same;
  }

  [[noreturn]] void fail(std::size_t i) const {
    throw Error({.what = concat("the chat template doesn't let ", messages_[i].role,
                                " turns be told apart"),
                 .where = where_});
  }

 private:
  // Behind what asks for the answer. Where the whole has another opening (templates that write
  // something into an answer to come, like an empty thought) the answer itself is looked for.
  std::size_t find_answer(std::size_t i) const {
    const std::string asked = template_.render(first(i), true);
    if (text_.starts_with(asked)) return asked.size();
    const auto same = static_cast<std::size_t>(
        std::mismatch(asked.begin(), asked.end(), text_.begin(), text_.end()).first -
        asked.begin());
    const std::size_t found = text_.rfind(bare_text(messages_[i]), same);
    if (found == std::string::npos || found < text_before(i).size()) fail(i);
    return found;
  }

  // Without the white space around it, which some templates take away.
  static std::string bare_text(const Message& message) {
    constexpr const char* kSpace = " \t\r\n";
    std::string text = message.plain_content.value_or("");
    for (const ContentPart& part : message.content) text += part.text;
    const std::size_t begin = text.find_first_not_of(kSpace);
    return begin == std::string::npos
               ? ""
               : text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
  }

  std::vector<Message> first(std::size_t count) const {
    return {messages_.begin(), messages_.begin() + static_cast<std::ptrdiff_t>(count)};
  }

  const ChatTemplate& template_;
  const std::vector<Message>& messages_;
  const std::string& end_mark_;
  const std::string& where_;
  std::string text_;
};

void add_span(TurnSpans& result, std::size_t end, bool is_learned) {
  const std::size_t begin = result.spans.empty() ? 0 : result.spans.back().end;
  if (end == begin) return;
  if (!result.spans.empty() && result.spans.back().is_learned == is_learned) {
    result.spans.back().end = end;
  } else {
    result.spans.push_back({begin, end, is_learned});
  }
}

}  // namespace

LossTurns assistant_turns(const std::vector<Message>& messages) {
  LossTurns turns;
  for (const Message& message : messages) turns.is_learned.push_back(message.role == "assistant");
  return turns;
}

TurnSpans split_turns(const ChatTemplate& chat_template, const std::vector<Message>& messages,
                      const LossTurns& turns, const std::string& end_mark,
                      const std::string& where) {
  const TurnFinder finder(chat_template, messages, end_mark, where);
  TurnSpans result{.text = finder.text()};
  const bool is_whole =
      std::find(turns.is_learned.begin(), turns.is_learned.end(), false) == turns.is_learned.end();
  for (std::size_t i = 0; i < messages.size() && !(turns.with_headers && is_whole); ++i) {
    if (!turns.is_learned[i]) continue;
    const std::string turn = finder.text_before(i + 1);
    std::size_t begin = turns.with_headers ? finder.text_before(i).size() : finder.find_content(i);
    std::size_t end = turn.size();
    if (!turns.with_headers) {
      const std::size_t mark = turn.rfind(end_mark);
      if (mark == std::string::npos || mark < begin) finder.fail(i);
      end = mark + end_mark.size();
    }
    if (begin > end) finder.fail(i);
    add_span(result, begin, false);
    add_span(result, end, true);
  }
  add_span(result, result.text.size(), turns.with_headers && is_whole);
  return result;
}

}  // namespace vlm
