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

// What a user gives a template beside the messages.
struct TemplateOptions {
  // Variables by name, as JSON (transformers' chat_template_kwargs): texts, integers, booleans,
  // null, lists and objects of them.
  std::map<std::string, std::string> arguments = {};
  std::optional<std::string> day;  // "2024-07-26", what strftime_now takes for today
  // Whether templates have strftime_now where no day is given; then it is the time at which the
  // template was loaded. Without, they fall back to what they have.
  bool has_clock = true;

  // Adds "name=value", where the value is JSON or a bare text.
  void add_argument(const std::string& assignment);
};

class ChatTemplate {
 public:
  // Named strings that a template may use besides the messages: "bos_token" and the like.
  using Variables = std::map<std::string, std::string>;

  // Parses the template, which is UTF-8; `where` names its file in errors. Throws Error for an
  // argument or a day that the template has no use for.
  ChatTemplate(const std::string& source, const std::string& where, Variables variables = {},
               const TemplateOptions& options = {});
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

// Whether a checkpoint folder has a template. Base models have none.
bool has_chat_template(const std::filesystem::path& folder);

// The text of a checkpoint folder's template, as load_chat_template chooses it.
std::optional<std::string> find_chat_template(const std::filesystem::path& folder);

// The members "…_token" of a folder's tokenizer files, as templates know them.
ChatTemplate::Variables load_special_tokens(const std::filesystem::path& folder);

// The template of a checkpoint folder: chat_template.jinja, chat_template.json, or "chat_template"
// in processor_config.json or tokenizer_config.json (where a list of named ones holds "default"),
// in this order; with the special tokens of tokenizer_config.json or, beside an old one that lists
// no added tokens, special_tokens_map.json. Throws Error when there is none.
ChatTemplate load_chat_template(const std::filesystem::path& folder,
                                const TemplateOptions& options = {});

}  // namespace vlm
