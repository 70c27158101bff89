#include "vlm/text/bpe_tokenizer.h"

#include <nlohmann/json.hpp>
#include <set>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json_access.h"
#include "vlm/text/plain_mark.h"
#include "vlm/text/unicode/unicode.h"

namespace vlm {

class BpeTokenizer::Stream : public DecodeStream {
 public:
  Stream(const BpeTokenizer& tokenizer, bool skip_special_tokens)
      : tokenizer_(tokenizer),
        skip_special_tokens_(skip_special_tokens),
        chain_(tokenizer.decoder_.start()) {}

  std::string add(std::int64_t id) override {
    if (const AddedTokens::Form* form = tokenizer_.added_.find_form(id)) {
      return skip_special_tokens_ && form->skipped ? "" : chain_.add(form->text);
    }
    const std::string* token = tokenizer_.model_.id_to_token(id);
    return token == nullptr ? "" : chain_.add(*token);
  }

  std::string finish() override { return chain_.finish(); }

 private:
  const BpeTokenizer& tokenizer_;
  bool skip_special_tokens_;
  DecodeChain chain_;
};

BpeTokenizer::BpeTokenizer(const Json& json, const std::string& where)
    : normalizer_(find_member(json, "normalizer", where), concat(where, ": normalizer")),
      pre_tokenizer_(find_member(json, "pre_tokenizer", where), concat(where, ": pre_tokenizer")),
      model_(get_member(json, "model", where), concat(where, ": model")),
      post_processor_(find_member(json, "post_processor", where),
                      concat(where, ": post_processor")),
      decoder_(find_member(json, "decoder", where), concat(where, ": decoder")) {
  read_added_tokens(json, where);
}

void BpeTokenizer::read_added_tokens(const Json& json, const std::string& where) {
  std::vector<AddedToken> tokens;
  std::set<std::string> contents;
  vocab_size_ = model_.size();
  if (find_member(json, "added_tokens", where) != nullptr) {
    const Json& entries = get_array(json, "added_tokens", where);
    for (std::size_t i = 0; i < entries.size(); ++i) {
      const std::string place = inside(concat(where, ": added_tokens"), i);
      AddedToken token = parse_added_token(entries[i], place);
      if (token.content.empty()) continue;
      if (!contents.insert(token.content).second) {
        throw Error({.what = "token is given twice",
                     .where = place,
                     .got = concat("\"", token.content, "\"")});
      }
      const bool in_model = model_.token_to_id(token.content).has_value();
      token.id = added_id(entries[i], token.content, place);
      if (!in_model) ++vocab_size_;
      tokens.push_back(std::move(token));
    }
  }
  added_ = AddedTokens(std::move(tokens),
                       [this](std::string_view text) { return normalizer_.apply(text); });
}

// The id of an entry. The `tokenizers` package ignores what the file says and gives the model's id
// or the next one behind the vocabulary, so a file that says anything else is refused.
std::int64_t BpeTokenizer::added_id(const Json& entry, const std::string& content,
                                    const std::string& where) const {
  const std::int64_t id = to_token_id(get_member(entry, "id", where), inside(where, "id"));
  const std::int64_t wanted = model_.token_to_id(content).value_or(vocab_size_);
  if (id == wanted) return id;
  throw Error({.what = concat("id of \"", content, "\" doesn't follow from the vocabulary"),
               .where = where,
               .got = concat(id),
               .wanted = concat(wanted)});
}

std::vector<std::int64_t> BpeTokenizer::encode(std::string_view text,
                                               bool add_special_tokens) const {
  std::string repaired;
  if (!is_valid_utf8(text)) {
    repaired = to_valid_utf8(text);
    text = repaired;
  }
  std::vector<std::int64_t> ids;
  BpeModel::Encoder encoder(model_);
  for (const AddedTokens::Segment& segment : added_.split(text, AddedTokens::Stage::kRaw)) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
    } else if (normalizer_.is_identity()) {
      encode_text(segment.text, encoder, ids);
    } else {
      encode_text(normalizer_.apply(segment.text), encoder, ids);
    }
  }
  return add_special_tokens ? post_processor_.apply(std::move(ids)) : ids;
}

void BpeTokenizer::encode_text(std::string_view text, BpeModel::Encoder& encoder,
                               std::vector<std::int64_t>& ids) const {
  for (const AddedTokens::Segment& segment : added_.split(text, AddedTokens::Stage::kNormalized)) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
      continue;
    }
    const bool is_marked = segment.text.find(kPlainMark) != std::string_view::npos;
    const std::string unmarked = is_marked ? without_plain_marks(segment.text) : std::string();
    const Pieces pieces = pre_tokenizer_.apply(is_marked ? unmarked : segment.text);
    for (std::size_t i = 0; i < pieces.spans.size(); ++i) encoder.add(pieces[i], ids);
  }
}

std::unique_ptr<DecodeStream> BpeTokenizer::start_decoding(bool skip_special_tokens) const {
  return std::make_unique<Stream>(*this, skip_special_tokens);
}

std::optional<std::int64_t> BpeTokenizer::token_to_id(std::string_view token) const {
  if (const AddedToken* added = added_.find(token)) return added->id;
  return model_.token_to_id(token);
}

std::optional<std::string> BpeTokenizer::id_to_token(std::int64_t id) const {
  if (const AddedTokens::Form* form = added_.find_form(id)) return form->text;
  const std::string* token = model_.id_to_token(id);
  return token == nullptr ? std::nullopt : std::optional(*token);
}

std::string BpeTokenizer::token_bytes(std::int64_t id) const {
  if (const AddedTokens::Form* form = added_.find_form(id)) {
    return form->skipped ? "" : decoder_.bytes_of(form->text);
  }
  const std::string* token = model_.id_to_token(id);
  return token == nullptr ? "" : decoder_.bytes_of(*token);
}

}  // namespace vlm
