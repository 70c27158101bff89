#include "vlm/models/internvl/internvl_conversation.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

constexpr const char* kFirstSystem =
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, "
    "是一个有用无害的人工智能助手。";
constexpr const char* kLaterSystem =
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的"
    "多模态大语言模型。";

struct ConversationText {
  const char* name;
  const char* opening;  // of a turn: with the role's name and a line break behind
  const char* role_end;
  const char* end;  // the token that ends a turn
  const char* behind;
  const char* system;
};
constexpr std::array<ConversationText, 4> kConversations = {{
    {"Hermes-2", "<|im_start|>", "\n", "<|im_end|>", "", kFirstSystem},
    {"internlm2-chat", "<|im_start|>", "\n", "<|im_end|>", "", kFirstSystem},
    {"phi3-chat", "<|", "|>\n", "<|end|>", "", kFirstSystem},
    {"internvl2_5", "<|im_start|>", "\n", "<|im_end|>", "\n", kLaterSystem},
}};

constexpr const char* kJinja =
    "{% set system = system_message %}"
    "{% if messages|length > 0 and messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] %}{% endif %}"
    "{{ opening + 'system' + role_end + system + end }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}"
    "{% if not loop.first %}{{ raise_exception('a system message has to stand first') }}{% endif %}"
    "{% else %}{{ opening + message['role'] + role_end + message['content'] + end }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ opening + 'assistant' + role_end }}{% endif %}";

bool is_picture(const ContentPart& part) {
  return part.type == "image";
}

}  // namespace

InternVlConversation make_conversation(const std::string& name,
                                       const std::optional<std::string>& system,
                                       const std::string& where, const TemplateOptions& options) {
  std::vector<std::string> known;
  for (const ConversationText& text : kConversations) {
    known.emplace_back(text.name);
    if (name != text.name) continue;
    ChatTemplate::Variables variables = {{"opening", text.opening},
                                         {"role_end", text.role_end},
                                         {"end", concat(text.end, text.behind)},
                                         {"system_message", system.value_or(text.system)}};
    return {ChatTemplate(kJinja, concat(where, ": ", name), std::move(variables), options),
            text.end};
  }
  throw Error({.what = "unknown conversation",
               .where = where,
               .got = concat("'", name, "'"),
               .wanted = join(known)});
}

std::vector<Message> name_media(const std::vector<Message>& messages, const std::string& picture,
                                const std::string& video) {
  std::vector<Message> named;
  std::int64_t shown = 0;  // pictures
  for (const Message& message : messages) {
    Message one{.role = message.role, .plain_content = message.plain_content.value_or("")};
    std::string& text = *one.plain_content;
    const bool has_several =
        std::count_if(message.content.begin(), message.content.end(), is_picture) > 1;
    bool is_behind_text = !text.empty();
    for (const ContentPart& part : message.content) {
      if (part.type == "text") {
        text += part.text;
        is_behind_text = is_behind_text || !part.text.empty();
        continue;
      }
      if (is_picture(part)) ++shown;
      if (is_picture(part) && has_several && !is_behind_text) text += concat("Image-", shown, ": ");
      text += is_picture(part) ? picture : video;
      if (!is_behind_text) text += "\n";
    }
    named.push_back(std::move(one));
  }
  return named;
}

}  // namespace vlm
