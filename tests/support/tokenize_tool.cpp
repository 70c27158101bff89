// Runs the tokenizers and chat templates on JSON files, for scripts/parity_text.py. Not installed.
//
//   tokenize_tool encode   FOLDER TEXTS.json    a line a text: {"ids", "special", "text", "skip"}
//   tokenize_tool decode   FOLDER IDS.json      a line a list: {"text", "skip"}
//   tokenize_tool bench    FOLDER TEXTS.json    seconds of the fastest of five passes over all
//   texts tokenize_tool template FOLDER CASES.json    a line a case: {"text"} or {"error"}
//
// TEXTS.json is an array of strings, or of arrays of bytes for text that isn't UTF-8. A case is
// {"messages": […], "add_generation_prompt": bool}.
#include <chrono>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>

#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/text/chat_template.h"
#include "vlm/text/tokenizer.h"

namespace {

using vlm::Json;
using Ids = std::vector<std::int64_t>;

std::string to_text(const Json& json) {
  if (json.is_string()) return json.get<std::string>();
  std::string text;
  for (const Json& byte : json) text += static_cast<char>(byte.get<int>());
  return text;
}

// The decoded text; checks that the stream never hands out half a character.
std::string decode(const vlm::Tokenizer& tokenizer, const Ids& ids, bool skip) {
  vlm::StreamDecoder stream(tokenizer, skip);
  std::string text;
  for (const std::int64_t id : ids) {
    const std::string piece = stream.add(id);
    Json(piece).dump();  // throws when it isn't UTF-8
    text += piece;
  }
  return text + stream.finish();
}

void encode_all(const vlm::Tokenizer& tokenizer, const Json& texts) {
  for (const Json& json : texts) {
    const Ids ids = tokenizer.encode(to_text(json));
    const Json row = {{"ids", ids},
                      {"special", tokenizer.encode(to_text(json), true)},
                      {"text", decode(tokenizer, ids, false)},
                      {"skip", decode(tokenizer, ids, true)}};
    std::cout << row.dump() << "\n";
  }
}

void decode_all(const vlm::Tokenizer& tokenizer, const Json& lists) {
  for (const Json& json : lists) {
    const auto ids = json.get<Ids>();
    const Json row = {{"text", decode(tokenizer, ids, false)},
                      {"skip", decode(tokenizer, ids, true)}};
    std::cout << row.dump() << "\n";
  }
}

void time_all(const vlm::Tokenizer& tokenizer, const Json& json) {
  const auto texts = json.get<std::vector<std::string>>();
  double best = 1e30;
  for (int pass = 0; pass < 5; ++pass) {
    const auto begin = std::chrono::steady_clock::now();
    for (const std::string& text : texts) tokenizer.encode(text);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    best = std::min(best, took.count());
  }
  std::cout << best << "\n";
}

vlm::Message to_message(const Json& json) {
  vlm::Message message{.role = json["role"].get<std::string>()};
  if (json["content"].is_string()) {
    message.plain_content = json["content"].get<std::string>();
    return message;
  }
  for (const Json& part : json["content"]) {
    message.content.push_back({.type = part["type"], .text = part.value("text", "")});
  }
  return message;
}

void render_all(const std::string& folder, const Json& cases) {
  const vlm::ChatTemplate chat = vlm::load_chat_template(folder);
  for (const Json& json : cases) {
    std::vector<vlm::Message> messages;
    for (const Json& message : json["messages"]) messages.push_back(to_message(message));
    try {
      const std::string text = chat.render(messages, json["add_generation_prompt"].get<bool>());
      std::cout << Json({{"text", text}}).dump() << "\n";
    } catch (const vlm::Error& error) {
      std::cout << Json({{"error", error.what()}}).dump() << "\n";
    }
  }
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 4) {
    std::cerr << "usage: tokenize_tool encode|decode|bench|template FOLDER FILE.json\n";
    return 2;
  }
  const std::string command = argv[1];
  const Json input = vlm::load_json(argv[3]);
  if (command == "template") {
    render_all(argv[2], input);
    return 0;
  }
  const auto tokenizer = vlm::load_tokenizer(argv[2]);
  if (command == "encode") encode_all(*tokenizer, input);
  if (command == "decode") decode_all(*tokenizer, input);
  if (command == "bench") time_all(*tokenizer, input);
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
