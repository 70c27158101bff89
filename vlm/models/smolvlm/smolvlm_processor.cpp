#include "vlm/models/smolvlm/smolvlm_processor.h"

#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/json_access.h"
#include "vlm/models/parts/load_config.h"
#include "vlm/models/smolvlm/smolvlm_video_prompt.h"

namespace vlm {
namespace {

constexpr const char* kImage = "<image>";
constexpr const char* kVideo = "<video>";
constexpr const char* kFake = "<fake_token_around_image>";
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

SmolVlmProcessor::SmolVlmProcessor(const std::filesystem::path& folder,
                                   const TemplateOptions& options)
    : folder_(folder.string()),
      config_(load_config<SmolVlmConfig>(folder)),
      tokenizer_(load_tokenizer(folder)),
      media_ids_({config_.image_token_id}),
      chat_template_(load_chat_template(folder, options)),
      video_template_(kVideoTemplate, "built-in chat template for videos"),
      image_processor_(ImageProcessorConfig::load(folder)),
      video_processor_(VideoProcessorConfig::load(folder)),
      image_seq_len_(load_image_seq_len(folder)),
      end_mark_(load_end_mark(folder, *tokenizer_, config_.text_config.vocab_size)) {}

Pixels SmolVlmProcessor::to_pixels(const at::Tensor& tiles) const {
  return {.values = tiles, .tokens = tiles.size(0) * image_seq_len_};
}

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
  return {to_pixels(image_processor_.process(image, is_whole, change).pixel_values),
          picture_text(image.height, image.width, is_whole)};
}

MediumText SmolVlmProcessor::picture_text(std::int64_t height, std::int64_t width,
                                          bool is_whole) const {
  const TilePlan plan = image_processor_.plan({.height = height, .width = width}, is_whole);
  const std::int64_t tiles = plan.rows * plan.cols + 1;
  return {.kind = MediumText::Kind::kPicture,
          .text = image_prompt(plan.rows, plan.cols, image_seq_len_),
          .rows = plan.rows,
          .cols = plan.cols,
          .tokens = tiles * image_seq_len_,
          .units = tiles};
}

Pixels SmolVlmProcessor::process_frames(const std::vector<Image>& frames, std::int64_t,
                                        const PictureChange& change) const {
  return to_pixels(video_processor_.process(frames, change));
}

MediumText SmolVlmProcessor::video_text(const ClipShape& clip) const {
  const std::int64_t tiles = std::ssize(clip.times_s);
  return {.kind = MediumText::Kind::kVideo,
          .text = video_prompt(clip.times_s, clip.duration_s, image_prompt(0, 0, image_seq_len_)),
          .tokens = tiles * image_seq_len_,
          .units = tiles};
}

ConversationCodec SmolVlmProcessor::codec() const {
  static const MediaMarks places = {
      .picture = kImage, .video = kVideo, .picture_mark = kFake, .video_mark = kFake};
  return {.tokenizer = *tokenizer_,
          .places = places,
          .media_ids = media_ids_,
          .vocab_size = config_.text_config.vocab_size,
          .where = folder_};
}

std::string SmolVlmProcessor::expand_prompt(const std::vector<Message>& messages,
                                            const ProcessedMedia& media,
                                            bool add_generation_prompt) const {
  return expand_media(codec().places,
                      template_for(messages).render(messages, add_generation_prompt), media.texts);
}

EncodedConversation SmolVlmProcessor::encode_prompt(const std::vector<Message>& messages,
                                                    const ProcessedMedia& media) const {
  return encode_expanded(codec(), template_for(messages).render(messages, true), media);
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
  return encode_turns(
      codec(), split_turns(template_for(messages), messages, turns, end_mark_, folder_), media);
}

}  // namespace vlm
