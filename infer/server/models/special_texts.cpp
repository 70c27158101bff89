#include "infer/server/models/special_texts.h"

#include <algorithm>
#include <array>

#include "vlm/text/plain_mark.h"

namespace vlm::infer {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

std::string replace_marks(std::string_view text) {
  std::string clean;
  for (;;) {
    const auto at = text.find(kPlainMark);
    clean += text.substr(0, at);
    if (at == std::string_view::npos) return clean;
    clean += kReplacement;
    text.remove_prefix(at + kPlainMark.size());
  }
}

}  // namespace

SpecialTexts::SpecialTexts(const Tokenizer& tokenizer) {
  // Places of media in what chat templates write; not every family has them as tokens.
  texts_ = {"<image>", "<video>"};
  for (std::int64_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const auto text = tokenizer.id_to_token(id);
    if (!text || text->size() < 2) continue;
    // Cheap first: hardly any token stands for itself, as special ones do.
    const std::array ids = {id};
    if (tokenizer.token_to_id(*text) == id && tokenizer.decode(ids, true).empty() &&
        tokenizer.decode(ids, false) == *text) {
      texts_.insert(*text);
    }
  }
  for (const std::string& text : texts_) {
    longest_ = std::max(longest_, text.size());
    if (first_characters_.find(text[0]) == std::string::npos) first_characters_ += text[0];
  }
}

bool SpecialTexts::begins_at(std::string_view text, std::size_t at) const {
  const std::size_t most = std::min(longest_, text.size() - at);
  for (std::size_t length = 2; length <= most; ++length) {
    if (texts_.contains(std::string(text.substr(at, length)))) return true;
  }
  return false;
}

std::string SpecialTexts::as_plain(std::string_view text) const {
  std::string own;
  if (text.find(kPlainMark) != std::string_view::npos) {
    own = replace_marks(text);
    text = own;
  }
  std::string plain;
  std::size_t done = 0;
  for (std::size_t at = 0; (at = text.find_first_of(first_characters_, at)) != text.npos; ++at) {
    if (!begins_at(text, at)) continue;
    plain += text.substr(done, at + 1 - done);
    plain += kPlainMark;
    done = at + 1;
  }
  return plain + std::string(text.substr(done));
}

}  // namespace vlm::infer
