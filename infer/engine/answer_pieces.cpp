#include "infer/engine/answer_pieces.h"

#include <algorithm>
#include <utility>

#include "infer/answer_text.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

std::size_t count_leading_spaces(const std::string& text) {
  return std::min(text.find_first_not_of(' '), text.size());
}

// Bytes at the end of the text that may be the beginning of a stop string.
std::size_t count_held_bytes(const std::string& text, const std::vector<std::string>& stops) {
  std::size_t most = 0;
  for (const std::string& stop : stops) {
    for (std::size_t n = std::min(text.size(), stop.size() - 1); n > most; --n) {
      if (text.ends_with(std::string_view(stop).substr(0, n))) most = n;
    }
  }
  return most;
}

}  // namespace

// Text is counted from the answer's first character, leading spaces left out, bytes likewise.
struct AnswerPieces::State {
  State(const Tokenizer& of, const GenerationOptions& wanted)
      : tokenizer(of),
        options(wanted),
        decoder(of, !wanted.keep_special_tokens),
        text_begin(wanted.forced_begin.size()),
        token_begin(text_begin) {
    if (options.hides_stop_strings) stops = options.stop_strings;
    std::erase(stops, std::string());
  }

  void read(const Hypothesis& answer);
  std::string bytes_of(std::int64_t id) const;
  void cut_begin(std::string& more, std::size_t& begin, std::size_t so_far) const;
  void add_text(std::string more);
  void add_token(const Hypothesis& answer, std::size_t i);
  AnswerPiece take(std::size_t end, bool is_last);

  const Tokenizer& tokenizer;
  GenerationOptions options;
  StreamDecoder decoder;
  std::vector<std::string> stops;                          // that stay out of the text
  std::size_t ids = 0;                                     // that were read
  std::string held;                                        // text that wasn't given yet
  std::vector<PieceToken> tokens;                          // likewise
  std::size_t given = 0, text_bytes = 0, token_bytes = 0;  // bytes of the answer
  std::size_t given_token_bytes = 0;
  std::size_t text_begin, token_begin;  // bytes of the forced beginning that are still to come
  bool is_cut = false;                  // by a stop string
};

// What the token adds to the text; nothing for those that aren't shown.
std::string AnswerPieces::State::bytes_of(std::int64_t id) const {
  if (options.keep_special_tokens && is_end_token(id, options)) return "";
  try {
    const std::string bytes = tokenizer.token_bytes(id);
    if (!bytes.empty() || !options.keep_special_tokens) return bytes;
  } catch (const Error&) {  // of a tokenizer whose tokens alone don't tell
  }
  return tokenizer.decode(std::span(&id, 1), !options.keep_special_tokens);
}

// What is spelled of a forced beginning is no part of the answer. What follows it is, spaces too.
void AnswerPieces::State::cut_begin(std::string& more, std::size_t& begin,
                                    std::size_t so_far) const {
  const std::size_t count = std::min(begin, more.size());
  more.erase(0, count);
  begin -= count;
  if (so_far == 0 && !options.has_begun()) more.erase(0, count_leading_spaces(more));
}

void AnswerPieces::State::add_text(std::string more) {
  cut_begin(more, text_begin, text_bytes);
  text_bytes += more.size();
  held += more;
}

void AnswerPieces::State::add_token(const Hypothesis& answer, std::size_t i) {
  PieceToken token{{.id = answer.ids[i], .logprob = answer.logprobs[i]}};
  token.bytes = bytes_of(token.id);
  if (token.bytes.empty()) return;
  const bool is_forced = token_begin >= token.bytes.size();
  cut_begin(token.bytes, token_begin, token_bytes);
  if (is_forced) return;
  token_bytes += token.bytes.size();
  if (i < answer.top.size()) {
    for (const ChosenToken& one : answer.top[i]) {
      token.top.push_back({.id = one.id, .logprob = one.logprob, .bytes = bytes_of(one.id)});
    }
  }
  tokens.push_back(std::move(token));
}

void AnswerPieces::State::read(const Hypothesis& answer) {
  for (; ids < answer.ids.size() && !is_cut; ++ids) {
    const std::int64_t id = answer.ids[ids];
    if (!options.keep_special_tokens || !is_end_token(id, options)) add_text(decoder.add(id));
    add_token(answer, ids);
    const std::size_t stop = find_stop(held, stops);
    is_cut = stop != std::string::npos;
    if (is_cut) held.resize(stop);
  }
}

// The held text up to `end`, and the tokens that lie in what was given.
AnswerPiece AnswerPieces::State::take(std::size_t end, bool is_last) {
  AnswerPiece piece{.text = held.substr(0, end)};
  held.erase(0, end);
  given += end;
  std::size_t count = 0;
  // Bytes of a character that isn't whole yet are in no text.
  for (std::size_t at = given_token_bytes; count < tokens.size(); ++count) {
    at += tokens[count].bytes.size();
    if (at > given) {
      if (!is_last) break;
      // A stop string begins in it, or bytes at the end are no character.
      if (!is_cut) continue;
      const std::size_t begin = at - tokens[count].bytes.size();
      tokens[count].bytes.resize(given > begin ? given - begin : 0);
    }
    given_token_bytes = at;
  }
  if (is_last && is_cut) {
    std::erase_if(tokens, [](const PieceToken& token) { return token.bytes.empty(); });
    count = tokens.size();
  }
  const auto first = tokens.begin(), behind = first + static_cast<std::ptrdiff_t>(count);
  piece.tokens.assign(std::make_move_iterator(first), std::make_move_iterator(behind));
  tokens.erase(first, behind);
  return piece;
}

AnswerPieces::AnswerPieces(const Tokenizer& tokenizer, const GenerationOptions& options)
    : state_(std::make_unique<State>(tokenizer, options)) {}
AnswerPieces::~AnswerPieces() = default;
AnswerPieces::AnswerPieces(AnswerPieces&&) noexcept = default;

AnswerPiece AnswerPieces::add(const Hypothesis& answer) {
  state_->read(answer);
  const std::size_t kept = state_->is_cut ? 0 : count_held_bytes(state_->held, state_->stops);
  return state_->take(state_->held.size() - kept, /*is_last=*/false);
}

AnswerPiece AnswerPieces::finish(const Hypothesis& answer) {
  state_->read(answer);
  if (!state_->is_cut) state_->add_text(state_->decoder.finish());
  return state_->take(state_->held.size(), /*is_last=*/true);
}

}  // namespace vlm::infer
