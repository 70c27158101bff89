// Media in a rendered conversation: each place is replaced by the text of the medium that stands
// there, and training learns which tokens are said and which are shown.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "vlm/models/interface/processor.h"

namespace vlm {

// What stands for a medium in the text that a chat template gives.
struct MediaMarks {
  std::string picture;
  // Only looked for where there are clips: without them it is text that somebody wrote, and stays.
  std::string video;
  // A medium's tokens go from the first to behind the last of these in its text.
  std::string picture_mark, video_mark;
};

// A stretch of the prompt: text (medium -1), or what stands for one medium.
struct PromptPiece {
  std::string text;
  std::int64_t medium = -1;
};

// Takes the media one after the other, as the prompt is walked through.
class PromptExpansion {
 public:
  // Both must outlive this.
  PromptExpansion(const MediaMarks& places, const std::vector<MediumText>& texts);

  // Throws Error when a place is for another kind than the next medium.
  std::vector<PromptPiece> expand_in_pieces(std::string_view text);
  std::string expand(std::string_view text);
  // Throws Error when the places were more or fewer than the media.
  void check_all_used() const;

 private:
  void add_medium(std::vector<PromptPiece>& pieces, const std::string& text,
                  std::int64_t number) const;
  std::string next_text(MediumText::Kind kind);

  const MediaMarks& places_;
  const std::vector<MediumText>& texts_;
  bool has_videos_;
  std::size_t used_ = 0;
};

// A rendered conversation with the texts of all media. Throws Error when they don't fit.
std::string expand_media(const MediaMarks& places, std::string_view rendered,
                         const std::vector<MediumText>& texts);

// What a family's processor encodes with.
struct ConversationCodec {
  const Tokenizer& tokenizer;
  const MediaMarks& places;
  const std::vector<std::int64_t>& media_ids;
  std::int64_t vocab_size;  // rows of the embedding; tokenizers may have more
  // What the tokenizer puts in front of a text (a bos) stands in front of the prompt.
  bool adds_special_tokens = false;
  std::string where;  // the checkpoint, for errors
};

// A rendered prompt. Finds its media; positions are left to the family. Throws Error for a token
// that the model has no embedding for.
EncodedConversation encode_expanded(const ConversationCodec& codec, std::string_view rendered,
                                    const ProcessedMedia& media);

// A whole conversation, cut into learned and other spans. Media are never learned.
EncodedConversation encode_turns(const ConversationCodec& codec, const TurnSpans& turns,
                                 const ProcessedMedia& media);

}  // namespace vlm
