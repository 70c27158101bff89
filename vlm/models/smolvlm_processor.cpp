#include "vlm/models/smolvlm_processor.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "vlm/core/concat.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/json_access.h"
#include "vlm/models/smolvlm.h"
#include "vlm/models/smolvlm_video_prompt.h"

namespace vlm {
namespace {

constexpr std::string_view kImage = "<image>";
constexpr std::string_view kVideo = "<video>";
constexpr std::string_view kFake = "<fake_token_around_image>";
constexpr std::string_view kGlobal = "<global-img>";
constexpr std::string_view kEndOfUtterance = "<end_of_utterance>";

// The published template with a place for video parts.
constexpr const char* kVideoTemplate =
    "<|im_start|>"
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'image' %}{{ '<image>' }}"
    "{% elif part['type'] == 'video' %}{{ '<video>' }}{% endif %}"
    "{% endfor %}"
    "{{ '<end_of_utterance>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}";

std::int64_t load_image_seq_len(const std::filesystem::path& folder) {
  std::int64_t image_seq_len = 169;  // the class's default
  const auto path = folder / "processor_config.json";
  if (std::filesystem::exists(path)) {
    read_fields(load_json(path), {{"image_seq_len", &image_seq_len}}, UnknownKeys::kIgnore,
                path.string());
  }
  if (image_seq_len < 1 || image_seq_len > 1 << 20) {
    throw Error({.what = "value out of range",
                 .where = path.string() + ": image_seq_len",
                 .got = concat(image_seq_len)});
  }
  return image_seq_len;
}

LlamaConfig load_text_config(const std::filesystem::path& folder) {
  const auto path = folder / "config.json";
  return SmolVlmConfig::parse(load_json(path), path.string()).text_config;
}

// What closes a turn: <end_of_utterance>, or where the model has no embedding for it (as
// Granite-Docling, whose processor adds it all the same) the tokenizer's end of text.
std::string load_end_mark(const std::filesystem::path& folder, const Tokenizer& tokenizer,
                          std::int64_t vocab_size) {
  const std::string usual(kEndOfUtterance);
  const std::vector<std::int64_t> ids = tokenizer.encode(usual);
  if (ids.size() == 1 && ids[0] < vocab_size) return usual;
  const auto path = folder / "tokenizer_config.json";
  if (!std::filesystem::exists(path)) return usual;
  const Json json = load_json(path);
  const Json* token = find_member(json, "eos_token", path.string());
  if (token && token->is_string()) return token->get<std::string>();
  if (token && token->is_object()) return get_string(*token, "content", path.string());
  return usual;
}

}  // namespace

std::string image_prompt(std::int64_t rows, std::int64_t cols, std::int64_t image_seq_len) {
  std::string tokens;
  for (std::int64_t i = 0; i < image_seq_len; ++i) tokens += kImage;
  std::string text;
  for (std::int64_t r = 1; r <= rows; ++r) {
    for (std::int64_t c = 1; c <= cols; ++c) {
      text += concat(kFake, "<row_", r, "_col_", c, ">", tokens);
    }
    text += "\n";
  }
  if (rows > 0) text += "\n";
  return text + concat(kFake, kGlobal, tokens, kFake);
}

// Places in the prompt are replaced by the texts of the media, in order, as the prompt is walked
// through. "<video>" is a place only where there are clips: it is no token, so without clips it is
// text that somebody wrote, and stays.
class SmolVlmProcessor::Expansion {
 public:
  explicit Expansion(const std::vector<MediumText>& texts)
      : texts_(texts),
        has_videos_(std::any_of(texts.begin(), texts.end(), [](const MediumText& text) {
          return text.kind == MediumText::Kind::kVideo;
        })) {}

  // A stretch of the prompt: text (medium -1), or from the first to the last marker of one medium.
  struct Piece {
    std::string text;
    std::int64_t medium;
  };

  std::vector<Piece> expand_in_pieces(std::string_view text) {
    std::vector<Piece> pieces = {{"", -1}};
    for (;;) {
      const std::size_t image = text.find(kImage);
      const std::size_t video = has_videos_ ? text.find(kVideo) : std::string_view::npos;
      const std::size_t at = std::min(image, video);
      pieces.back().text += text.substr(0, at);
      if (at == std::string_view::npos) return pieces;
      const std::string medium =
          next_text(at == video ? MediumText::Kind::kVideo : MediumText::Kind::kPicture);
      add_medium(pieces, medium, static_cast<std::int64_t>(used_) - 1);
      text.remove_prefix(at + (at == video ? kVideo : kImage).size());
    }
  }

  std::string expand(std::string_view text) {
    std::string expanded;
    for (const Piece& piece : expand_in_pieces(text)) expanded += piece.text;
    return expanded;
  }

  void check_all_used() const {
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

 private:
  // Markers are tokens whatever stands beside them, so the cuts change no ids. What a clip's text
  // says in front of its first frame is text like other text.
  static void add_medium(std::vector<Piece>& pieces, const std::string& text, std::int64_t number) {
    const std::size_t first = text.find(kFake), last = text.rfind(kFake);
    if (first == std::string::npos) {
      pieces.back().text += text;
      return;
    }
    const std::size_t end = last + kFake.size();
    pieces.back().text += text.substr(0, first);
    pieces.push_back({text.substr(first, end - first), number});
    pieces.push_back({text.substr(end), -1});
  }

  std::string next_text(MediumText::Kind kind) {
    const std::size_t index = used_++;
    if (index >= texts_.size()) return {};  // check_all_used tells
    if (texts_[index].kind == kind) return texts_[index].text;
    const bool is_video = kind == MediumText::Kind::kVideo;
    throw Error({.what = "media are in another order than the parts of the conversation",
                 .got = concat(is_video ? "a picture" : "a video", " as medium ", index + 1),
                 .wanted = is_video ? "a video" : "a picture"});
  }

  const std::vector<MediumText>& texts_;
  bool has_videos_;
  std::size_t used_ = 0;
};

SmolVlmProcessor::SmolVlmProcessor(const std::filesystem::path& folder)
    : folder_(folder.string()),
      tokenizer_(load_tokenizer(folder)),
      chat_template_(load_chat_template(folder)),
      video_template_(kVideoTemplate, "built-in chat template for videos"),
      image_processor_(ImageProcessorConfig::load(folder)),
      video_processor_(VideoProcessorConfig::load(folder)),
      image_seq_len_(load_image_seq_len(folder)),
      max_positions_(load_text_config(folder).max_position_embeddings),
      vocab_size_(load_text_config(folder).vocab_size),
      end_mark_(load_end_mark(folder, *tokenizer_, vocab_size_)) {}

const ChatTemplate& SmolVlmProcessor::template_for(const std::vector<Message>& messages) const {
  for (const Message& message : messages) {
    for (const ContentPart& part : message.content) {
      if (part.type == "video") return video_template_;
    }
  }
  return chat_template_;
}

ProcessedMedium SmolVlmProcessor::process_picture(const Image& image, bool is_whole,
                                                  const PictureChange& change) const {
  return {image_processor_.process(image, is_whole, change).pixel_values,
          picture_text(image.height, image.width, is_whole)};
}

MediumText SmolVlmProcessor::picture_text(std::int64_t height, std::int64_t width,
                                          bool is_whole) const {
  const TilePlan plan = image_processor_.plan({.height = height, .width = width}, is_whole);
  return {MediumText::Kind::kPicture, image_prompt(plan.rows, plan.cols, image_seq_len_), plan.rows,
          plan.cols};
}

at::Tensor SmolVlmProcessor::process_frames(const std::vector<Image>& frames,
                                            const PictureChange& change) const {
  return video_processor_.process(frames, change);
}

MediumText SmolVlmProcessor::video_text(const std::vector<double>& times_s,
                                        double duration_s) const {
  return {MediumText::Kind::kVideo,
          video_prompt(times_s, duration_s, image_prompt(0, 0, image_seq_len_))};
}

std::string SmolVlmProcessor::expand_prompt(const std::vector<Message>& messages,
                                            const ProcessedMedia& media,
                                            bool add_generation_prompt) const {
  Expansion expansion(media.texts);
  const std::string text =
      expansion.expand(template_for(messages).render(messages, add_generation_prompt));
  expansion.check_all_used();
  return text;
}

std::vector<std::int64_t> SmolVlmProcessor::encode(const std::string& prompt) const {
  std::vector<std::int64_t> ids = tokenizer_->encode(prompt);
  for (const std::int64_t& id : ids) {
    if (id < vocab_size_) continue;
    throw Error({.what = "the prompt has a token that the model has no embedding for",
                 .where = folder_,
                 .got = concat(tokenizer_->decode(std::span(&id, 1), false), ", id ", id),
                 .wanted = concat("ids below ", vocab_size_)});
  }
  return ids;
}

EncodedConversation SmolVlmProcessor::encode_prompt(const std::vector<Message>& messages,
                                                    const ProcessedMedia& media) const {
  return {.ids = encode(expand_prompt(messages, media, true)), .pixel_values = media.pixel_values};
}

std::string SmolVlmProcessor::picture_settings() const {
  const ImageProcessorConfig& c = image_processor_.config();
  return Json({c.do_resize, c.do_image_splitting, c.do_rescale, c.do_normalize, c.resample,
               c.rescale_factor, c.image_mean, c.image_std, c.size_longest_edge, c.size_height,
               c.size_width, c.max_image_size_longest_edge, image_seq_len_})
      .dump();
}

EncodedConversation SmolVlmProcessor::encode_conversation(const std::vector<Message>& messages,
                                                          const ProcessedMedia& media,
                                                          const LossTurns& turns) const {
  const TurnSpans split = split_turns(template_for(messages), messages, turns, end_mark_, folder_);
  Expansion expansion(media.texts);
  EncodedConversation encoded{.pixel_values = media.pixel_values};
  std::string whole;
  for (const TurnSpans::Span& span : split.spans) {
    const auto text = std::string_view(split.text).substr(span.begin, span.end - span.begin);
    for (const Expansion::Piece& piece : expansion.expand_in_pieces(text)) {
      const auto ids = tokenizer_->encode(piece.text);
      whole += piece.text;
      encoded.ids.insert(encoded.ids.end(), ids.begin(), ids.end());
      // A picture in the assistant's turn is given, not said.
      encoded.is_trained.resize(encoded.ids.size(), span.is_learned && piece.medium < 0);
      encoded.medium.resize(encoded.ids.size(), piece.medium);
    }
  }
  expansion.check_all_used();
  // Training must see the ids that generation will: encoding in pieces may change nothing.
  if (encode(whole) != encoded.ids) {
    throw Error(
        {.what = "the tokenizer merges text across the border of a turn", .where = folder_});
  }
  return encoded;
}

}  // namespace vlm
