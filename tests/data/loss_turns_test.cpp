// Which turns are learned, and to the byte where: random conversations against an account of the
// published template that is written down here a second time.
#include "data/loss_turns.h"

#include <random>

#include "data/batch.h"
#include "tests/support/catch.h"
#include "vlm/core/error.h"
#include "vlm/models/registry.h"

namespace vlm::data {
namespace {

Message turn(const std::string& role, const std::string& content) {
  return {.role = role, .content = {{.type = "text", .text = content}}};
}

// One letter a message: the learned ones large, "+" behind for headers.
std::string turns_of(const std::string& roles, TrainOn train_on, const Sample& like = {}) {
  Sample sample = like;
  for (const char role : roles) {
    sample.messages.push_back(turn(role == 'a'   ? "assistant"
                                   : role == 'u' ? "user"
                                                 : "system",
                                   "x"));
  }
  const LossTurns turns = find_loss_turns(sample, train_on);
  std::string shown;
  for (std::size_t i = 0; i < roles.size(); ++i) {
    shown += turns.is_learned[i] ? static_cast<char>(roles[i] - 'a' + 'A') : roles[i];
  }
  return shown + (turns.with_headers ? "+" : "");
}

TEST_CASE("rules for turns") {
  CHECK(turns_of("suaua", TrainOn::kAssistant) == "suAuA");
  CHECK(turns_of("suaua", TrainOn::kLastAssistant) == "suauA");
  CHECK(turns_of("uaaua", TrainOn::kCompletion) == "uaauA");
  CHECK(turns_of("uauaa", TrainOn::kCompletion) == "uauAA");
  CHECK(turns_of("uau", TrainOn::kCompletion) == "uau");
  CHECK(turns_of("uau", TrainOn::kLastAssistant) == "uAu");
  CHECK(turns_of("sua", TrainOn::kAll) == "SUA+");
}

TEST_CASE("a prompt's own answers are given, those of the completion learned") {
  const Sample split{.completion = 3};
  CHECK(turns_of("uauaua", TrainOn::kAssistant, split) == "uauAuA");
  CHECK(turns_of("uauaua", TrainOn::kCompletion, split) == "uauAuA");
  CHECK(turns_of("uauaua", TrainOn::kLastAssistant, split) == "uauauA");
  CHECK(turns_of("uau", TrainOn::kLastAssistant, split) == "uau");
  CHECK(turns_of("uaua", TrainOn::kAll, split) == "UAUA+");
}

TEST_CASE("a message's own flag wins") {
  const Sample flags{.loss = {std::nullopt, false, true, std::nullopt}};
  CHECK(turns_of("uaua", TrainOn::kAssistant, flags) == "uaUA");
  CHECK(turns_of("uaua", TrainOn::kLastAssistant, flags) == "uaUA");
  CHECK(turns_of("uaua", TrainOn::kAll, flags) == "UaUA+");
}

TEST_CASE("names of the rules") {
  CHECK(parse_train_on("completion") == TrainOn::kCompletion);
  CHECK_THROWS_WITH(parse_train_on("user"),
                    "train_on: unknown value: got 'user', wanted assistant, last_assistant, "
                    "completion, all");
  CHECK(parse_length_policy("skip") == LengthPolicy::kSkip);
  CHECK_THROWS_WITH(parse_length_policy("cut"),
                    "length_policy: unknown value: got 'cut', wanted error, truncate, skip");
}

// The prompt and, a byte each, whether it is learned ('x'), not ('.') or of a picture ('p').
struct Expected {
  std::string text, marks;
  void add(const std::string& piece, char mark) {
    text += piece;
    marks.append(piece.size(), mark);
  }
};

// The published template; `learned` has one entry a message. Every picture stands for `picture`.
Expected render(const std::vector<Message>& messages, const std::vector<bool>& learned,
                bool with_headers, const std::string& picture) {
  Expected out;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const char body = learned[i] ? 'x' : '.', header = with_headers ? body : '.';
    if (i == 0) out.add("<|im_start|>", header);
    std::string name = messages[i].role;
    name[0] = static_cast<char>(name[0] - 'a' + 'A');
    out.add(name + ":", header);
    if (messages[i].content[0].type != "image") out.add(" ", body);
    for (const ContentPart& part : messages[i].content) {
      out.add(part.type == "image" ? picture : part.text, part.type == "image" ? 'p' : body);
    }
    out.add("<end_of_utterance>", body);
    out.add("\n", header);
  }
  return out;
}

// How many bytes of the text a token stands for: byte-level BPE writes each as one character.
std::size_t byte_count(const Tokenizer& tokenizer, std::int64_t id) {
  const std::string token = tokenizer.id_to_token(id).value();
  if (token.size() > 2 && token.front() == '<' && token.back() == '>') return token.size();
  std::size_t count = 0;
  for (const char c : token) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0;
  return count;
}

class RandomConversations {
 public:
  explicit RandomConversations(std::uint64_t seed) : random_(seed) {}

  std::size_t below(std::size_t bound) { return random_() % bound; }

  Sample next() {
    Sample sample{.where = "r"};
    const std::size_t turns = 1 + below(6);
    for (std::size_t i = 0; i < turns; ++i) {
      const std::size_t role = below(7);
      Message message{.role = role == 0 ? "system" : role < 4 ? "user" : "assistant"};
      const std::size_t parts = 1 + below(3);
      for (std::size_t p = 0; p < parts; ++p) {
        if (below(4) == 0) {
          message.content.push_back({.type = "image"});
          sample.media.push_back({.name = fixture("pictures/square.png").string()});
        } else {
          message.content.push_back({.type = "text", .text = words()});
        }
      }
      sample.messages.push_back(std::move(message));
      if (below(5) == 0) {
        sample.loss.resize(sample.messages.size());
        sample.loss.back() = below(2) == 0;
      }
    }
    if (!sample.loss.empty()) sample.loss.resize(turns);
    if (below(4) == 0) sample.completion = below(turns + 1);
    return sample;
  }

 private:
  std::string words() {
    static const std::vector<std::string> kWords = {"a",
                                                    " cat",
                                                    "the ",
                                                    "\n",
                                                    " ",
                                                    "  ",
                                                    "12",
                                                    " 3.5",
                                                    "naïve",
                                                    "日本",
                                                    "Assistant:",
                                                    " User:",
                                                    "<end_of_utterance>",
                                                    "!?",
                                                    "\t",
                                                    "\n\n",
                                                    "Red",
                                                    "'s",
                                                    "<|im_start|>",
                                                    ":",
                                                    "é"};
    std::string text;
    for (std::size_t i = below(6); i > 0; --i) text += kWords[below(kWords.size())];
    return text;
  }

  std::mt19937_64 random_;
};

TEST_CASE("random conversations: every token carries a loss exactly where its bytes are learned") {
  const auto processor = load_processor(fixture("smolvlm_tiny"));
  const Image square = load_picture({.name = fixture("pictures/square.png").string()});
  const std::string picture = processor->picture_text(square.height, square.width).text;
  RandomConversations conversations(7);
  std::int64_t learned_tokens = 0, refused = 0;
  for (int round = 0; round < 300; ++round) {
    const Sample sample = conversations.next();
    const auto train_on = static_cast<TrainOn>(conversations.below(4));
    const LossTurns turns = find_loss_turns(sample, train_on);
    std::vector<Image> images(sample.media.size(), square);
    const EncodedConversation encoded =
        processor->encode_conversation(sample.messages, processor->process_pictures(images), turns);
    const Expected expected =
        render(sample.messages, turns.is_learned, turns.with_headers, picture);
    INFO(round << ": " << expected.text);
    REQUIRE(encoded.ids == processor->tokenizer().encode(expected.text));
    std::size_t at = 0;
    std::int64_t last_medium = -1;
    for (std::size_t t = 0; t < encoded.ids.size(); ++t) {
      const std::size_t bytes = byte_count(processor->tokenizer(), encoded.ids[t]);
      const std::string marks = expected.marks.substr(at, bytes);
      INFO("token " << t << " at byte " << at << ", marks " << marks);
      REQUIRE(marks == std::string(bytes, marks[0]));
      REQUIRE(encoded.is_trained[t] == (marks[0] == 'x'));
      REQUIRE((encoded.layout.medium_at(static_cast<std::int64_t>(t)) >= 0) == (marks[0] == 'p'));
      const std::int64_t before = t > 0 ? last_medium : -1;
      last_medium = std::max(before, encoded.layout.medium_at(static_cast<std::int64_t>(t)));
      REQUIRE(last_medium <= before + 1);
      learned_tokens += encoded.is_trained[t] ? 1 : 0;
      at += bytes;
    }
    REQUIRE(at == expected.text.size());
    try {
      const Example example = make_example(encoded, sample, {});
      for (std::size_t t = 0; t < example.ids.size(); ++t) {
        REQUIRE(example.labels[t] == (encoded.is_trained[t] ? example.ids[t] : kIgnoredLabel));
      }
    } catch (const Error&) {
      ++refused;
      REQUIRE(std::count(encoded.is_trained.begin() + 1, encoded.is_trained.end(), true) == 0);
    }
  }
  CHECK(learned_tokens > 1000);
  CHECK(refused < 200);
}

TEST_CASE("random conversations with a padded batch: no label stands on padding or pictures") {
  const auto processor = load_processor(fixture("smolvlm_tiny"));
  RandomConversations conversations(11);
  std::vector<Example> examples;
  while (examples.size() < 6) {
    try {
      examples.push_back(encode_example(conversations.next(), *processor, {}));
    } catch (const Error&) {  // nothing to learn
    }
  }
  const std::int64_t pad = 2;
  const Batch batch = collate(examples, pad);
  const auto width = static_cast<std::size_t>(batch.labels.size(1));
  const std::int64_t* labels = batch.labels.data_ptr<std::int64_t>();
  for (std::size_t b = 0; b < examples.size(); ++b) {
    for (std::size_t t = 0; t < width; ++t) {
      const bool has_next = t + 1 < examples[b].labels.size();
      CHECK(labels[b * width + t] == (has_next ? examples[b].labels[t + 1] : kIgnoredLabel));
    }
  }
}

}  // namespace
}  // namespace vlm::data
