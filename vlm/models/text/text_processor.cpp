#include "vlm/models/text/text_processor.h"

#include <algorithm>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/models/parts/load_config.h"
#include "vlm/models/text/text_model.h"

namespace vlm {
namespace {

// Of a base model.
constexpr const char* kPlainText =
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}";

ChatTemplate load_template(const std::filesystem::path& folder, bool is_base,
                           const TemplateOptions& options) {
  if (!is_base) return load_chat_template(folder, options);
  return ChatTemplate(kPlainText, concat(folder.string(), ": plain text, as there is no template"),
                      load_special_tokens(folder), options);
}

}  // namespace

TextProcessor::TextProcessor(const std::filesystem::path& folder, const TemplateOptions& options)
    : folder_(folder.string()),
      tokenizer_(load_tokenizer(folder)),
      is_base_(!has_chat_template(folder)),
      chat_template_(load_template(folder, is_base_, options)),
      max_positions_(load_config<TextModelConfig>(folder).decoder.max_position_embeddings) {
  end_mark_ = find_end_mark();
}

// The first special token behind an answer.
std::string TextProcessor::find_end_mark() const {
  constexpr std::string_view kAnswer = "answer";
  std::string rendered;
  try {
    rendered = chat_template_.render({{.role = "user", .plain_content = "question"},
                                      {.role = "assistant", .plain_content = std::string(kAnswer)}},
                                     /*add_generation_prompt=*/false);
  } catch (const Error&) {
    return "";  // a template of other roles: its conversations tell
  }
  const std::size_t found = rendered.rfind(kAnswer);
  if (found == std::string::npos) return "";
  const std::string behind = rendered.substr(found + kAnswer.size());
  for (const std::int64_t id : tokenizer_->encode(behind)) {
    if (!tokenizer_->decode(std::vector<std::int64_t>{id}, /*skip_special_tokens=*/true).empty()) {
      continue;
    }
    const auto token = tokenizer_->id_to_token(id);
    if (token && behind.find(*token) != std::string::npos) return *token;
  }
  return behind;
}

void TextProcessor::refuse_media() const {
  throw Error({.what = "the model takes no pictures and no videos",
               .where = folder_,
               .hint = "it is a model of text alone"});
}

std::vector<Message> TextProcessor::to_plain(const std::vector<Message>& messages) const {
  std::vector<Message> plain;
  for (const Message& message : messages) {
    Message one{.role = message.role, .plain_content = message.plain_content.value_or("")};
    for (const ContentPart& part : message.content) {
      if (part.type != "text") refuse_media();
      *one.plain_content += part.text;
    }
    plain.push_back(std::move(one));
  }
  return plain;
}

std::string TextProcessor::render(const std::vector<Message>& messages,
                                  bool add_generation_prompt) const {
  return chat_template_.render(to_plain(messages), add_generation_prompt);
}

EncodedConversation TextProcessor::encode_prompt(const std::vector<Message>& messages,
                                                 const ProcessedMedia& media) const {
  if (!media.texts.empty()) refuse_media();
  return {.ids = tokenizer_->encode(render(messages, true), /*add_special_tokens=*/is_base_)};
}

// Piece by piece, as in generation: there the ids of a prompt are fixed before its answer begins.
EncodedConversation TextProcessor::encode_conversation(const std::vector<Message>& messages,
                                                       const ProcessedMedia& media,
                                                       const LossTurns& turns) const {
  if (!media.texts.empty()) refuse_media();
  const std::vector<Message> plain = to_plain(messages);
  const bool is_learned =
      std::find(turns.is_learned.begin(), turns.is_learned.end(), true) != turns.is_learned.end();
  if (is_learned && end_mark_.empty()) {
    throw Error({.what = "nothing marks the end of an answer",
                 .where = folder_,
                 .wanted = "an end token in the chat template, or eos_token in "
                           "tokenizer_config.json"});
  }
  const TurnSpans split = split_turns(chat_template_, plain, turns, end_mark_, folder_);
  EncodedConversation encoded;
  for (const TurnSpans::Span& span : split.spans) {
    const auto text = std::string_view(split.text).substr(span.begin, span.end - span.begin);
    const auto ids = tokenizer_->encode(text, is_base_ && span.begin == 0);
    encoded.ids.insert(encoded.ids.end(), ids.begin(), ids.end());
    encoded.is_trained.resize(encoded.ids.size(), span.is_learned);
  }
  return encoded;
}

ProcessedMedium TextProcessor::process_picture(const Image&, bool, const PictureChange&) const {
  refuse_media();
}

MediumText TextProcessor::picture_text(std::int64_t, std::int64_t, bool) const {
  refuse_media();
}

Pixels TextProcessor::process_frames(const std::vector<Image>&, std::int64_t,
                                     const PictureChange&) const {
  refuse_media();
}

MediumText TextProcessor::video_text(const ClipShape&) const {
  refuse_media();
}

}  // namespace vlm
