// Bytes → a chat template and a conversation: an Error or a prompt.
//
// The first byte says what the conversation is like; then come the template, a zero byte, and the
// text of the messages. The prompt must be UTF-8, and rendering twice must give the same: only
// namespaces change, and those belong to one run.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "vlm/core/error.h"
#include "vlm/text/chat_template.h"
#include "vlm/text/unicode/unicode.h"

namespace {

std::vector<vlm::Message> make_messages(unsigned kind, const std::string& text) {
  std::vector<vlm::Message> messages;
  if (kind & 1U) messages.push_back({.role = "system", .content = {{"text", text}}});
  vlm::Message user{.role = "user", .content = {{"text", text}}};
  for (unsigned i = 0; i < (kind >> 1U & 3U); ++i) user.content.push_back({.type = "image"});
  messages.push_back(user);
  if (kind & 8U) messages.push_back({.role = "assistant", .plain_content = text});
  if (kind & 16U) messages.push_back({.role = text, .content = {{.type = "video"}}});
  return messages;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::size_t end = std::min(input.find('\0'), input.size());
  const std::string text(input.substr(std::min(end + 1, input.size())));
  try {
    const vlm::ChatTemplate chat(std::string(input.substr(0, end)), "fuzz", {{"bos_token", "<s>"}});
    const auto messages = make_messages(data[0], text);
    const bool open = (data[0] & 32U) != 0;
    const std::string prompt = chat.render(messages, open);
    if (chat.render(messages, open) != prompt || !vlm::is_valid_utf8(prompt)) std::abort();
  } catch (const vlm::Error&) {
  }
  return 0;
}
