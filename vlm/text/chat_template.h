// A conversation → the prompt string, by the checkpoint's own chat template.
//
// The template is Jinja; the part of the language that the templates of this family use is
// interpreted here, and anything else is an Error naming the construct. Reference: transformers'
// apply_chat_template (5.23). Media stay placeholders ("<image>"): smolvlm_processor expands them
// to tokens.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace vlm {

// One part of a message: {"type": "text", "text": …}, {"type": "image"} or {"type": "video"}.
struct ContentPart {
  std::string type;
  std::string text = {};
};

struct Message {
  std::string role;  // "user", "assistant", "system"
  std::vector<ContentPart> content;
};

class ChatTemplate {
 public:
  // Parses the template; `where` names its file in errors.
  ChatTemplate(const std::string& source, const std::string& where);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // The prompt. With `add_generation_prompt` it ends with the opening of the assistant's turn.
  std::string render(const std::vector<Message>& messages, bool add_generation_prompt) const;

 private:
  struct Program;
  std::unique_ptr<Program> program_;
};

// The template of a checkpoint folder: chat_template.jinja, chat_template.json, or "chat_template"
// in processor_config.json or tokenizer_config.json, in this order. Throws Error when there is
// none.
ChatTemplate load_chat_template(const std::filesystem::path& folder);

}  // namespace vlm
