// A conversation → the prompt string, made by the checkpoint's own chat template.
//
// The template is Jinja; the part of the language that the templates of this family use is
// interpreted here (jinja_parser.h), and anything else is an Error naming file, line and construct.
// Reference: transformers' apply_chat_template (5.23). Media stay placeholders ("<image>"):
// smolvlm_processor expands them to tokens.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
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
  std::vector<ContentPart> content = {};
  // Content given as one string instead of parts. Templates tell the two apart; the published one
  // of SmolVLM2 renders a string as an empty message, so callers that mean text give one text part.
  std::optional<std::string> plain_content = {};
};

class ChatTemplate {
 public:
  // Named strings that a template may use besides the messages: "bos_token" and the like.
  using Variables = std::map<std::string, std::string>;

  // Parses the template, which is UTF-8; `where` names its file in errors.
  ChatTemplate(const std::string& source, const std::string& where, Variables variables = {});
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // The prompt. With `add_generation_prompt` it ends with the opening of the assistant's turn.
  // Bytes of the messages that are not UTF-8 are read as U+FFFD.
  // Throws Error when the template refuses the messages (raise_exception) or can't handle them.
  std::string render(const std::vector<Message>& messages, bool add_generation_prompt) const;

 private:
  struct Program;
  std::unique_ptr<Program> program_;
};

// The template of a checkpoint folder: chat_template.jinja, chat_template.json, or "chat_template"
// in processor_config.json or tokenizer_config.json (where a list of named ones holds "default"),
// in this order; with the special tokens of tokenizer_config.json or, beside an old one that lists
// no added tokens, special_tokens_map.json. Throws Error when there is none.
ChatTemplate load_chat_template(const std::filesystem::path& folder);

}  // namespace vlm
