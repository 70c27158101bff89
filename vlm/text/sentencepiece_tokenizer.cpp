#include "vlm/text/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/json_access.h"
#include "vlm/text/added_token_files.h"
#include "vlm/text/plain_mark.h"
#include "vlm/text/unicode/unicode.h"

// In libsentencepiece, but in none of the headers that Debian 12 installs.
namespace sentencepiece::logging {
void SetMinLogLevel(int level);
}

namespace vlm {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int>;

constexpr std::size_t kMaxModelBytes = 256 << 20;
constexpr int kFatalOnly = 3;

// ModelProto { normalizer_spec { add_dummy_prefix: false } }. Behind a model, protocol buffers read
// it as a change of that one field.
constexpr std::string_view kNoDummyPrefix("\x1a\x02\x18\x00", 4);

// "<0xE2>" → E2
char to_byte(const std::string& piece) {
  unsigned value = 0;
  std::from_chars(piece.data() + 3, piece.data() + 5, value, 16);
  return static_cast<char>(value);
}

Error model_error(const std::string& what, const std::string& where, const std::string& got) {
  return Error({.what = what, .where = where, .got = got});
}

}  // namespace

// One libsentencepiece processor, failures as Errors.
class SentencepieceTokenizer::Model {
 public:
  Model(const std::string& proto, const std::string& where) : where_(where) {
    sentencepiece::logging::SetMinLogLevel(kFatalOnly);
    const auto status = processor_.LoadFromSerializedProto(proto);
    if (!status.ok()) {
      throw model_error("not a sentencepiece model", where, status.ToString());
    }
    // What a piece looks like behind other text: its text behind the unknown token's.
    anchor_ = {processor_.unk_id()};
    anchor_text_ = decode(anchor_);
  }

  void encode(std::string_view text, std::vector<std::int64_t>& ids) const {
    Ids result;
    const auto status = processor_.Encode({text.data(), text.size()}, &result);
    if (!status.ok()) throw model_error("can't encode the text", where_, status.ToString());
    ids.insert(ids.end(), result.begin(), result.end());
  }

  std::string decode(const Ids& ids) const {
    std::string text;
    const auto status = processor_.Decode(ids, &text);
    if (!status.ok()) throw model_error("can't decode the ids", where_, status.ToString());
    return text;
  }

  // Text of one id that has other text before it.
  std::string decode_inside(int id) const {
    const std::string text = decode({anchor_[0], id});
    return text.substr(std::min(anchor_text_.size(), text.size()));
  }

  // Whether "a" comes out with a space that wasn't there.
  bool has_dummy_prefix() const {
    Ids ids;
    if (!processor_.Encode("a", &ids).ok() || ids.empty()) return false;
    const std::string first = processor_.IdToPiece(ids.front());
    return first.starts_with("\xE2\x96\x81");
  }

  std::optional<std::int64_t> find(std::string_view piece) const {
    const int id = processor_.PieceToId({piece.data(), piece.size()});
    if (processor_.IdToPiece(id) != piece) return std::nullopt;
    return id;
  }

  std::int64_t size() const { return processor_.GetPieceSize(); }
  bool has(std::int64_t id) const { return id >= 0 && id < size(); }
  const std::string& piece(std::int64_t id) const {
    return processor_.IdToPiece(static_cast<int>(id));
  }
  bool is_control(std::int64_t id) const { return processor_.IsControl(static_cast<int>(id)); }
  // True for a user-defined piece that is there to be named, like "[UNUSED_TOKEN_145]".
  bool is_spare(std::int64_t id) const {
    const std::string& text = piece(id);
    const bool is_bracketed = (text.starts_with('[') && text.ends_with(']')) ||
                              (text.starts_with('<') && text.ends_with('>'));
    return is_bracketed && processor_.GetScore(static_cast<int>(id)) == 0 && !is_byte(id) &&
           !is_control(id) && !processor_.IsUnknown(static_cast<int>(id));
  }
  bool is_unknown(std::int64_t id) const { return processor_.IsUnknown(static_cast<int>(id)); }
  bool is_byte(std::int64_t id) const { return processor_.IsByte(static_cast<int>(id)); }
  int bos_id() const { return processor_.bos_id(); }
  int eos_id() const { return processor_.eos_id(); }

 private:
  sentencepiece::SentencePieceProcessor processor_;
  std::string where_;
  Ids anchor_;
  std::string anchor_text_;
};

// Decodes as libsentencepiece does for a whole list: the first text loses the space of a dummy
// prefix, and byte pieces form characters, each byte that doesn't becoming U+FFFD.
class SentencepieceTokenizer::Stream : public DecodeStream {
 public:
  Stream(const SentencepieceTokenizer& tokenizer, bool skip_special_tokens)
      : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

  std::string add(std::int64_t id) override {
    const Model& model = *tokenizer_.model_;
    const AddedTokens::Form* form = tokenizer_.added_.find_form(id);
    if (form == nullptr && !model.has(id)) return "";
    if (form == nullptr && model.is_byte(id)) return add_byte(model.piece(id));
    std::string text = finish();  // first: it decides whether there is text before this token
    if (form != nullptr) {
      if (!skip_special_tokens_ || !form->skipped) text += show(form->text);
    } else if (model.is_control(id)) {
      if (!skip_special_tokens_) text += show(model.piece(id));
    } else {
      text += add_piece(static_cast<int>(id));
    }
    return text;
  }

  std::string finish() override {
    std::string text;
    for (std::size_t i = 0; i < bytes_.size(); ++i) text += to_utf8(kReplacementCharacter);
    bytes_.clear();
    return show(text);
  }

 private:
  // Hands out text; from the first on, pieces are decoded as inside a text.
  std::string show(const std::string& text) {
    if (!text.empty()) started_ = true;
    return text;
  }

  std::string add_piece(int id) {
    if (started_) return tokenizer_.model_->decode_inside(id);
    leading_.push_back(id);
    const std::string text = tokenizer_.model_->decode(leading_);
    // Two pieces without text are spaces that all vanish: the second changes nothing.
    if (text.empty() && leading_.size() > 1) leading_.pop_back();
    return show(text);
  }

  std::string add_byte(const std::string& piece) {
    bytes_ += to_byte(piece);
    std::string text;
    while (!bytes_.empty()) {
      const Utf8Sequence sequence = first_sequence(bytes_);
      if (sequence.cut) break;
      const std::size_t size = sequence.valid ? sequence.size : 1;
      text += sequence.valid ? bytes_.substr(0, size) : to_utf8(kReplacementCharacter);
      bytes_.erase(0, size);
    }
    return show(text);
  }

  const SentencepieceTokenizer& tokenizer_;
  bool skip_special_tokens_;
  bool started_ = false;
  Ids leading_;        // while there is no text
  std::string bytes_;  // the start of a character
};

SentencepieceTokenizer::SentencepieceTokenizer(const fs::path& folder) {
  const fs::path path = folder / "tokenizer.model";
  const std::string proto = load_text(path, kMaxModelBytes);
  model_ = std::make_unique<Model>(proto, path.string());
  if (model_->has_dummy_prefix()) {
    inner_model_ = std::make_unique<Model>(proto + std::string(kNoDummyPrefix), path.string());
  }
  vocab_size_ = model_->size();
  read_config(folder);
}

SentencepieceTokenizer::~SentencepieceTokenizer() = default;

void SentencepieceTokenizer::read_config(const fs::path& folder) {
  AddedTokenFiles files = AddedTokenFiles::load(folder);
  add_bos_ = get_bool(files.config, "add_bos_token", files.config_path, add_bos_);
  add_eos_ = get_bool(files.config, "add_eos_token", files.config_path, add_eos_);
  if (get_bool(files.config, "legacy", files.config_path, false)) inner_model_.reset();
  // sentencepiece has no normalizer that could be applied to a token alone.
  for (AddedToken& token : files.tokens) token.normalized = false;
  for (const std::string& content : files.special) {
    if (files.is_decoder) break;
    const bool listed =
        std::any_of(files.tokens.begin(), files.tokens.end(),
                    [&](const AddedToken& token) { return token.content == content; });
    const auto id = model_->find(content);
    if (!listed && id) files.tokens.push_back({.id = *id, .content = content, .special = true});
  }
  add_tokens(std::move(files.tokens), files.where);
}

void SentencepieceTokenizer::add_tokens(std::vector<AddedToken> tokens, const std::string& where) {
  std::set<std::int64_t> ids;
  for (const AddedToken& token : tokens) {
    const auto in_model = model_->find(token.content);
    const bool agrees =
        in_model ? *in_model == token.id : !model_->has(token.id) || model_->is_spare(token.id);
    if (!agrees) {
      throw Error({.what = concat("id of \"", token.content, "\" contradicts tokenizer.model"),
                   .where = where,
                   .got = concat(token.id),
                   .wanted = in_model ? concat(*in_model) : concat("at least ", model_->size())});
    }
    if (!ids.insert(token.id).second) {
      throw Error({.what = "id given to two tokens", .where = where, .got = concat(token.id)});
    }
    vocab_size_ = std::max(vocab_size_, token.id + 1);
  }
  added_ = AddedTokens(std::move(tokens), [](std::string_view text) { return std::string(text); });
}

std::vector<std::int64_t> SentencepieceTokenizer::encode(std::string_view text,
                                                         bool add_special_tokens) const {
  const std::string valid = to_valid_utf8(text);
  std::vector<std::int64_t> ids;
  if (add_special_tokens && add_bos_ && model_->bos_id() >= 0) ids.push_back(model_->bos_id());
  bool first = true;
  for (const AddedTokens::Segment& segment : added_.split(valid, AddedTokens::Stage::kRaw)) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
    } else {
      const bool is_marked = segment.text.find(kPlainMark) != std::string_view::npos;
      const std::string unmarked = is_marked ? without_plain_marks(segment.text) : std::string();
      (first || !inner_model_ ? *model_ : *inner_model_)
          .encode(is_marked ? unmarked : segment.text, ids);
    }
    first = false;
  }
  if (add_special_tokens && add_eos_ && model_->eos_id() >= 0) ids.push_back(model_->eos_id());
  return ids;
}

std::unique_ptr<DecodeStream> SentencepieceTokenizer::start_decoding(
    bool skip_special_tokens) const {
  return std::make_unique<Stream>(*this, skip_special_tokens);
}

std::optional<std::int64_t> SentencepieceTokenizer::token_to_id(std::string_view token) const {
  if (const AddedToken* added = added_.find(token)) return added->id;
  return model_->find(token);
}

std::optional<std::string> SentencepieceTokenizer::id_to_token(std::int64_t id) const {
  if (const AddedTokens::Form* form = added_.find_form(id)) return form->text;
  if (!model_->has(id)) return std::nullopt;
  return model_->piece(id);
}

std::string SentencepieceTokenizer::token_bytes(std::int64_t id) const {
  if (const AddedTokens::Form* form = added_.find_form(id)) return form->skipped ? "" : form->text;
  if (!model_->has(id) || model_->is_control(id) || model_->is_unknown(id)) return "";
  if (model_->is_byte(id)) return {to_byte(model_->piece(id))};
  return model_->decode_inside(static_cast<int>(id));
}

}  // namespace vlm
