#include "vlm/models/parts/prompt_expansion.h"

#include <algorithm>
#include <span>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {

PromptExpansion::PromptExpansion(const MediaMarks& places, const std::vector<MediumText>& texts)
    : places_(places),
      texts_(texts),
      has_videos_(std::any_of(texts.begin(), texts.end(), [](const MediumText& text) {
        return text.kind == MediumText::Kind::kVideo;
      })) {}

std::vector<PromptPiece> PromptExpansion::expand_in_pieces(std::string_view text) {
  std::vector<PromptPiece> pieces(1);
  for (;;) {
    const std::size_t picture = text.find(places_.picture);
    const std::size_t video = has_videos_ ? text.find(places_.video) : std::string_view::npos;
    const std::size_t at = std::min(picture, video);
    pieces.back().text += text.substr(0, at);
    if (at == std::string_view::npos) return pieces;
    const std::string medium =
        next_text(at == video ? MediumText::Kind::kVideo : MediumText::Kind::kPicture);
    add_medium(pieces, medium, static_cast<std::int64_t>(used_) - 1);
    text.remove_prefix(at + (at == video ? places_.video : places_.picture).size());
  }
}

std::string PromptExpansion::expand(std::string_view text) {
  std::string expanded;
  for (const PromptPiece& piece : expand_in_pieces(text)) expanded += piece.text;
  return expanded;
}

void PromptExpansion::check_all_used() const {
  if (used_ == texts_.size()) return;
  if (has_videos_) {
    throw Error({.what = "image and video places in the conversation don't fit the media",
                 .got = concat(used_, " places"),
                 .wanted = concat(texts_.size(), " for the pictures and videos given")});
  }
  throw Error({.what = "image places in the conversation don't fit the pictures",
               .got = concat(used_, " places"),
               .wanted = concat(texts_.size(), " for the pictures given")});
}

// Marks are tokens whatever stands beside them, so the cuts change no ids. What a medium's text
// says around its marks is text like other text.
void PromptExpansion::add_medium(std::vector<PromptPiece>& pieces, const std::string& text,
                                 std::int64_t number) const {
  const bool is_video =
      text.empty() || texts_[static_cast<std::size_t>(number)].kind == MediumText::Kind::kVideo;
  const std::string& mark = is_video ? places_.video_mark : places_.picture_mark;
  const std::size_t first = text.find(mark), last = text.rfind(mark);
  if (first == std::string::npos) {
    pieces.back().text += text;
    return;
  }
  const std::size_t end = last + mark.size();
  pieces.back().text += text.substr(0, first);
  pieces.push_back({text.substr(first, end - first), number});
  pieces.push_back({text.substr(end), -1});
}

std::string PromptExpansion::next_text(MediumText::Kind kind) {
  const std::size_t index = used_++;
  if (index >= texts_.size()) return {};  // check_all_used tells
  if (texts_[index].kind == kind) return texts_[index].text;
  const bool is_video = kind == MediumText::Kind::kVideo;
  throw Error({.what = "media are in another order than the parts of the conversation",
               .got = concat(is_video ? "a picture" : "a video", " as medium ", index + 1),
               .wanted = is_video ? "a video" : "a picture"});
}

std::string expand_media(const MediaMarks& places, std::string_view rendered,
                         const std::vector<MediumText>& texts) {
  PromptExpansion expansion(places, texts);
  std::string text = expansion.expand(rendered);
  expansion.check_all_used();
  return text;
}

namespace {

std::vector<std::int64_t> encode_text(const ConversationCodec& codec, std::string_view text,
                                      bool is_first) {
  std::vector<std::int64_t> ids =
      codec.tokenizer.encode(text, is_first && codec.adds_special_tokens);
  for (const std::int64_t& id : ids) {
    if (id < codec.vocab_size) continue;
    throw Error({.what = "the prompt has a token that the model has no embedding for",
                 .where = codec.where,
                 .got = concat(codec.tokenizer.decode(std::span(&id, 1), false), ", id ", id),
                 .wanted = concat("ids below ", codec.vocab_size)});
  }
  return ids;
}

}  // namespace

EncodedConversation encode_expanded(const ConversationCodec& codec, std::string_view rendered,
                                    const ProcessedMedia& media) {
  EncodedConversation encoded{
      .ids = encode_text(codec, expand_media(codec.places, rendered, media.texts), true),
      .pixels = media.pixels};
  std::vector<std::int64_t> counts;
  for (const MediumText& medium : media.texts) counts.push_back(medium.tokens);
  encoded.layout.media = find_media(encoded.ids, codec.media_ids, counts);
  return encoded;
}

EncodedConversation encode_turns(const ConversationCodec& codec, const TurnSpans& turns,
                                 const ProcessedMedia& media) {
  PromptExpansion expansion(codec.places, media.texts);
  EncodedConversation encoded{.pixels = media.pixels};
  std::string whole;
  for (const TurnSpans::Span& span : turns.spans) {
    const auto text = std::string_view(turns.text).substr(span.begin, span.end - span.begin);
    for (const PromptPiece& piece : expansion.expand_in_pieces(text)) {
      const auto ids = encode_text(codec, piece.text, whole.empty());
      whole += piece.text;
      const std::int64_t begin = std::ssize(encoded.ids);
      encoded.ids.insert(encoded.ids.end(), ids.begin(), ids.end());
      // A picture in the assistant's turn is given, not said.
      encoded.is_trained.resize(encoded.ids.size(), span.is_learned && piece.medium < 0);
      if (piece.medium >= 0) {
        encoded.layout.media.push_back({.begin = begin, .end = std::ssize(encoded.ids)});
      }
    }
  }
  expansion.check_all_used();
  // Training must see the ids that generation will: encoding in pieces may change nothing.
  if (codec.tokenizer.encode(whole, codec.adds_special_tokens) != encoded.ids) {
    throw Error(
        {.what = "the tokenizer merges text across the border of a turn", .where = codec.where});
  }
  return encoded;
}

}  // namespace vlm
