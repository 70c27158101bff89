// Prompts of text models: ids and texts of transformers, learned turns, base models, dates.
#include "vlm/models/text/text_processor.h"

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

using Ids = std::vector<std::int64_t>;

std::vector<Message> messages_of(const Json& list) {
  std::vector<Message> messages;
  for (const Json& one : list) {
    messages.push_back({.role = one["role"].get<std::string>(),
                        .content = {{.type = "text", .text = one["content"].get<std::string>()}}});
  }
  return messages;
}

TemplateOptions arguments_for(const std::string& name) {
  TemplateOptions options;
  if (name == "llama_tiny") options.add_argument("date_string=26 Jul 2024");
  if (name == "qwen3_tiny") options.add_argument("enable_thinking=false");
  return options;
}

// The text of what is learned.
std::string learned_text(const TextProcessor& processor, const EncodedConversation& encoded) {
  Ids ids;
  for (std::size_t i = 0; i < encoded.ids.size(); ++i) {
    if (encoded.is_trained[i]) ids.push_back(encoded.ids[i]);
  }
  return processor.tokenizer().decode(ids, /*skip_special_tokens=*/false);
}

TEST_CASE("text processor: prompts and conversations are transformers', text and ids") {
  for (const std::string name : {"llama_tiny", "qwen2_tiny", "qwen3_tiny", "phi3_tiny"}) {
    INFO(name);
    const TextProcessor processor(fixture(name), arguments_for(name));
    const Json golden = load_json(fixture(name) / "golden.json");
    for (const Json& chat : golden["chats"]) {
      const auto messages = messages_of(chat["messages"]);
      const bool is_prompt = chat["is_prompt"].get<bool>();
      INFO(chat.dump());
      CHECK(processor.render(messages, is_prompt) == chat["text"].get<std::string>());
      const Ids found = is_prompt ? processor.encode_prompt(messages, ProcessedMedia{}).ids
                                  : processor.encode_conversation(messages, ProcessedMedia{}).ids;
      CHECK(found == chat["ids"].get<Ids>());
    }
    CHECK(processor.tokenizer().encode(golden["text"].get<std::string>(), true) ==
          golden["ids"].get<Ids>());
  }
}

TEST_CASE("text processor: answers are learned with their end, in every turn") {
  const std::vector<Message> messages = {{.role = "user", .plain_content = "Hi"},
                                         {.role = "assistant", .plain_content = "yes"},
                                         {.role = "user", .plain_content = "no"},
                                         {.role = "assistant", .plain_content = "left"}};
  const auto learned = [&](const std::string& name, const TemplateOptions& options = {}) {
    const TextProcessor processor(fixture(name), options);
    return learned_text(processor, processor.encode_conversation(messages, ProcessedMedia{}));
  };
  CHECK(learned("llama_tiny") == "yes<|eot_id|>left<|eot_id|>");
  CHECK(learned("phi3_tiny") == "yes<|end|>left<|end|>");
  // The template writes an empty thought into the last answer.
  CHECK(learned("qwen3_tiny") == "yes<|im_end|><think>\n\n</think>\n\nleft<|im_end|>");
  // Here what asks for an answer closes the thought, so that of the last answer is given.
  CHECK(learned("qwen3_tiny", arguments_for("qwen3_tiny")) == "yes<|im_end|>left<|im_end|>");
  // No template: text, and the end token behind each answer.
  CHECK(learned("qwen2_tiny") == "yes<|endoftext|>left<|endoftext|>");
}

TEST_CASE("text processor: a base model is given the text as it is") {
  const TextProcessor processor(fixture("qwen2_tiny"));
  const std::vector<Message> prompt = {
      {.role = "user", .content = {{.type = "text", .text = " Two and two"}}}};
  CHECK(processor.render(prompt, true) == " Two and two");
  CHECK(processor.encode_prompt(prompt, ProcessedMedia{}).ids ==
        processor.tokenizer().encode(" Two and two"));
  CHECK_THROWS_WITH(TextProcessor(fixture("qwen2_tiny"), arguments_for("qwen3_tiny")),
                    "argument enable_thinking: the chat template doesn't use it: got " +
                        fixture("qwen2_tiny").string() + ": plain text, as there is no template");
}

TEST_CASE("text processor: a base model of Llama's kind begins with its BOS once") {
  const ScratchFolder folder;
  for (const char* file : {"config.json", "tokenizer.json", "tokenizer_config.json"}) {
    std::filesystem::copy(fixture("llama_tiny") / file, folder.path() / file);
  }
  const TextProcessor processor(folder.path());
  const std::vector<Message> messages = {{.role = "user", .plain_content = "Hi"},
                                         {.role = "assistant", .plain_content = " there"}};
  const Ids ids = processor.encode_conversation(messages, ProcessedMedia{}).ids;
  const std::int64_t bos = *processor.tokenizer().token_to_id("<|begin_of_text|>");
  CHECK(ids.front() == bos);
  CHECK(std::count(ids.begin(), ids.end(), bos) == 1);
  CHECK(processor.encode_prompt({messages[0]}, ProcessedMedia{}).ids.front() == bos);
}

TEST_CASE("text processor: the day is today, one that was chosen, or the template's own") {
  const std::vector<Message> messages = {{.role = "user", .plain_content = "Hi"}};
  const auto dated = [&](const TemplateOptions& options) {
    return TextProcessor(fixture("llama_tiny"), options).render(messages, true);
  };
  CHECK(dated({.day = "2023-02-01"}).find("Today Date: 01 Feb 2023\n") != std::string::npos);
  CHECK(dated({.has_clock = false}).find("Today Date: 26 Jul 2024\n") != std::string::npos);
  CHECK(dated({}).find("Today Date: 26 Jul 2024\n") == std::string::npos);
  CHECK_THROWS_WITH(dated({.day = "2023-02-30"}),
                    "date: not a day: got '2023-02-30', wanted YYYY-MM-DD");
  CHECK_THROWS_WITH(TextProcessor(fixture("phi3_tiny"), {.day = "2023-02-01"}),
                    "date: the chat template doesn't use it: got " +
                        (fixture("phi3_tiny") / "chat_template.jinja").string());
}

TEST_CASE("text processor: pictures and videos are refused by name") {
  const TextProcessor processor(fixture("llama_tiny"));
  const std::string refusal = fixture("llama_tiny").string() +
                              ": the model takes no pictures and no videos (it is a model of text "
                              "alone)";
  CHECK_FALSE(processor.takes_media());
  const Image image{.height = 2, .width = 2, .pixels = std::vector<std::uint8_t>(12)};
  CHECK_THROWS_WITH(processor.process_picture(image, false, {}), refusal);
  CHECK_THROWS_WITH(processor.process_frames({image}, 0, {}), refusal);
  CHECK_THROWS_WITH(
      processor.encode_prompt({{.role = "user", .content = {{.type = "image"}}}}, ProcessedMedia{}),
      refusal);
}

}  // namespace
}  // namespace vlm
