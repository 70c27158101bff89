// What is learned of a conversation, to the token, and how samples become a batch.
//
// The ids that labels are compared with come from transformers (tests/fixtures/smolvlm_tiny); which
// of them are learned was marked by hand.
#include "data/batch.h"

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"
#include "vlm/models/registry.h"

namespace vlm::data {
namespace {

using Ids = std::vector<std::int64_t>;

const Processor& processor() {
  static const auto loaded = load_processor(fixture("smolvlm_tiny"));
  return *loaded;
}

std::filesystem::path picture(const std::string& name) {
  return fixture("pictures/" + name + ".png");
}

Message text(const std::string& role, const std::string& content) {
  return {.role = role, .content = {{.type = "text", .text = content}}};
}

Message picture_and(const std::string& role, const std::string& content) {
  return {.role = role, .content = {{.type = "image"}, {.type = "text", .text = content}}};
}

Sample sample(std::vector<Message> messages,
              const std::vector<std::filesystem::path>& images = {}) {
  Sample made{.messages = std::move(messages), .where = "t.jsonl:3"};
  for (const auto& image : images) made.media.push_back({.name = image.string()});
  return made;
}

std::string sample_error(const Sample& sample, const EncodeOptions& options = {}) {
  try {
    encode_example(sample, processor(), options);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// The ids that carry a label, decoded, turn by turn.
std::vector<std::string> learned_turns(const Example& example) {
  std::vector<std::string> turns;
  Ids turn;
  for (std::size_t t = 0; t <= example.ids.size(); ++t) {
    if (t < example.ids.size() && example.labels[t] != kIgnoredLabel) {
      CHECK(example.labels[t] == example.ids[t]);
      turn.push_back(example.ids[t]);
    } else if (!turn.empty()) {
      turns.push_back(processor().tokenizer().decode(turn, false));
      turn.clear();
    }
  }
  return turns;
}

TEST_CASE("labels of a conversation with pictures and two answers, token by token") {
  const Json golden = load_json(fixture("smolvlm_tiny/golden.json"));
  Ids ids;
  for (const Json& conversation : golden["conversations"]) {
    if (conversation["name"] == "turns") ids = conversation["input_ids"].get<Ids>();
  }
  REQUIRE(ids.size() == 109);
  const Message second = {
      .role = "user",
      .content = {
          {.type = "text", .text = "And"}, {.type = "image"}, {.type = "text", .text = "?"}}};
  const Example example = encode_example(
      sample({picture_and("user", "What colour?"), text("assistant", "Red\nand 12 blue."), second,
              text("assistant", "naïve 日")},
             {picture("tall"), picture("square")}),
      processor(), {});
  CHECK(example.ids == ids);
  Ids labels(109, kIgnoredLabel);
  // " Red\nand 12 blue.<end_of_utterance>", from the space behind the colon; not the newline at 54.
  const Ids first_turn = {223, 52, 71, 70, 201, 265, 70, 223, 19, 20, 334, 87, 71, 16, 399};
  std::copy(first_turn.begin(), first_turn.end(), labels.begin() + 39);
  const Ids second_turn = {301, 308, 110, 299, 327, 101, 399};  // not the newline at 108
  std::copy(second_turn.begin(), second_turn.end(), labels.begin() + 101);
  CHECK(example.labels == labels);
  CHECK(example.pictures.pixels.values.sizes() == at::IntArrayRef({3 + 5, 3, 32, 32}));
}

TEST_CASE("neither system nor user are learned, nor pictures in an answer") {
  const Example talk = encode_example(
      sample({text("system", "Be brief."), text("user", "1?"), text("assistant", "a"),
              text("user", "Assistant: 2?<end_of_utterance>"), text("assistant", "")}),
      processor(), {});
  CHECK(learned_turns(talk) ==
        std::vector<std::string>{" a<end_of_utterance>", " <end_of_utterance>"});
  CHECK(talk.pictures.pixels.empty());

  // Nothing that stands for a picture is learned, its markers and the breaks between its rows
  // included.
  const Example shown = encode_example(
      sample({text("user", "Show!"), picture_and("assistant", "here")}, {picture("square")}),
      processor(), {});
  const std::int64_t image = *processor().tokenizer().token_to_id("<image>");
  std::int64_t places = 0;
  for (std::size_t t = 0; t < shown.ids.size(); ++t) {
    if (shown.ids[t] != image) continue;
    ++places;
    CHECK(shown.labels[t] == kIgnoredLabel);
  }
  CHECK(places == 5 * 4);
  CHECK(learned_turns(shown) == std::vector<std::string>{"here<end_of_utterance>"});
}

TEST_CASE("a batch is padded on the right, and labels are shifted to what comes next") {
  const at::Tensor one = at::full({1, 3, 2, 2}, 1.0F), two = at::full({2, 3, 2, 2}, 2.0F);
  const std::vector<Example> examples = {
      {.ids = {5, 6, 7}, .labels = {-100, 6, 7}, .pictures = {.pixels = {.values = one}}},
      {.ids = {8, 9}, .labels = {8, 9}},
      {.ids = {1, 2, 3, 4, 5},
       .labels = {-100, -100, 3, -100, 5},
       .pictures = {.pixels = {.values = two}}}};
  const Batch batch = collate(examples, 77);
  CHECK(batch.inputs.input_ids.equal(
      at::tensor(Ids{5, 6, 7, 77, 77, 8, 9, 77, 77, 77, 1, 2, 3, 4, 5}).view({3, 5})));
  CHECK(batch.labels.equal(at::tensor(Ids{6, 7, -100, -100, -100,     //
                                          9, -100, -100, -100, -100,  // 8 has nothing before it
                                          -100, 3, -100, 5, -100})
                               .view({3, 5})));
  CHECK(batch.label_count == 2 + 1 + 2);
  REQUIRE(batch.pictures.size() == 2);
  CHECK(batch.pictures[0].pixels.values.equal(one));
  CHECK(batch.pictures[1].pixels.values.equal(two));
  CHECK(batch.picture_order == Ids{0, 1});
  CHECK(batch.token_count == 10);
  CHECK(batch.padding() == Approx(5.0 / 15));
  CHECK_FALSE(batch.inputs.attention_mask.defined());
  CHECK_FALSE(batch.inputs.positions.defined());
  CHECK(collate({examples[1]}, 77).pictures.empty());
}

TEST_CASE("a sample that can't be learned from is refused by name") {
  const Sample talk = sample({text("user", "What is this?"), text("assistant", "A cat.")});
  const auto length = static_cast<std::int64_t>(encode_example(talk, processor(), {}).ids.size());
  CHECK(sample_error(talk, {.max_length = length}).empty());
  CHECK(sample_error(talk, {.max_length = length - 1}) ==
        "t.jsonl:3: sample is too long: got " + std::to_string(length) +
            " tokens, wanted at most max_length = " + std::to_string(length - 1));
  CHECK(sample_error(sample({text("user", "What is this?")})) ==
        "t.jsonl:3: sample has nothing to learn: wanted at least one assistant turn");
}

TEST_CASE("the model's positions bound a sample as max_length does") {
  REQUIRE(processor().max_positions() == 512);
  std::string words;
  for (int i = 0; i < 600; ++i) words += " b";
  const Sample talk = sample({text("user", "What?"), text("assistant", words)});
  const std::string wanted = " tokens, wanted at most max_position_embeddings = 512";
  CHECK_THAT(sample_error(talk),
             Contains("t.jsonl:3: sample is too long: got ") && Contains(wanted));
  CHECK_THAT(sample_error(talk, {.max_length = 513}), Contains(wanted));
  CHECK_THAT(sample_error(talk, {.max_length = 100}), Contains("at most max_length = 100"));
  const Example cut = encode_example(talk, processor(), {.length_policy = LengthPolicy::kTruncate});
  CHECK(cut.ids.size() == 512);
  CHECK(cut.labels.size() == 512);
  CHECK(cut.cut_tokens > 0);
  // Right up to the bound.
  const auto length = static_cast<std::int64_t>(
      make_example(processor().encode_conversation(talk.messages, ProcessedMedia{}), talk, {})
          .ids.size());
  const auto encoded = [&] {
    return processor().encode_conversation(talk.messages, ProcessedMedia{});
  };
  CHECK_NOTHROW(make_example(encoded(), talk, {}, length));
  CHECK_THROWS_WITH(make_example(encoded(), talk, {}, length - 1),
                    Contains("max_position_embeddings = " + std::to_string(length - 1)));
}

TEST_CASE("a sample that is too long is cut behind its pictures, or refused") {
  const Sample talk =
      sample({text("user", "What is this?"), text("assistant", "A cat, a big one.")});
  const Example whole = encode_example(talk, processor(), {});
  const auto length = static_cast<std::int64_t>(whole.ids.size());
  const EncodeOptions cut = {.max_length = length - 4, .length_policy = LengthPolicy::kTruncate};
  const Example shorter = encode_example(talk, processor(), cut);
  CHECK(shorter.cut_tokens == 4);
  CHECK(shorter.ids == Ids(whole.ids.begin(), whole.ids.end() - 4));
  CHECK(shorter.labels == Ids(whole.labels.begin(), whole.labels.end() - 4));
  CHECK(
      encode_example(talk, processor(), {.max_length = length, .length_policy = cut.length_policy})
          .cut_tokens == 0);
  CHECK(sample_error(talk, {.max_length = 3, .length_policy = LengthPolicy::kTruncate}) ==
        "t.jsonl:3: sample has nothing to learn within max_length: got " +
            std::to_string(length - 3) + " tokens cut off");

  // The bound may fall right behind the picture, not into it.
  const Sample seen =
      sample({text("user", "Look:"), picture_and("assistant", "A cat.")}, {picture("square")});
  const Example full = encode_example(seen, processor(), {});
  std::int64_t end = 0;
  const std::int64_t fake = *processor().tokenizer().token_to_id("<fake_token_around_image>");
  for (std::size_t t = 0; t < full.ids.size(); ++t) {
    if (full.ids[t] == fake) end = static_cast<std::int64_t>(t) + 1;
  }
  const Example just = encode_example(
      seen, processor(), {.max_length = end + 1, .length_policy = LengthPolicy::kTruncate});
  CHECK(just.ids.size() == static_cast<std::size_t>(end + 1));
  CHECK(just.pictures.pixels.values.equal(full.pictures.pixels.values));
  CHECK(sample_error(seen, {.max_length = end - 1, .length_policy = LengthPolicy::kTruncate}) ==
        "t.jsonl:3: sample is too long, and cutting it would cut a picture: got " +
            std::to_string(full.ids.size()) +
            " tokens, wanted pictures within max_length = " + std::to_string(end - 1));
}

// Samples by number; some are malformed.
class Numbered : public Dataset {
 public:
  std::int64_t size() const override { return 6; }
  std::string where(std::int64_t index) const override { return "t:" + std::to_string(index); }
  Sample at(std::int64_t index) const override {
    if (index == 1 || index == 2) throw Error({.what = "broken", .where = where(index)});
    const std::string answer = index == 4 ? "a very long answer" : "a" + std::to_string(index);
    return {.messages = {text("user", "?"), text("assistant", answer)}, .where = where(index)};
  }
};

std::string answer_of(const Example& example) {
  return learned_turns(example).at(0);
}

TEST_CASE("bad samples are passed over up to the bound, each counted and told once") {
  const ScratchFolder scratch;
  const std::string file = scratch.at("skipped.jsonl");
  std::vector<std::string> warnings;
  set_log_sink([&](LogLevel, const std::string& message) { warnings.push_back(message); });
  const Numbered dataset;
  {
    SkippedSamples skipped(2, file, false);
    for (int epoch = 0; epoch < 2; ++epoch) {
      CHECK(answer_of(read_example(dataset, 0, processor(), {}, skipped)) ==
            " a0<end_of_utterance>");
      CHECK(answer_of(read_example(dataset, 1, processor(), {}, skipped)) ==
            " a3<end_of_utterance>");
      CHECK(answer_of(read_example(dataset, 2, processor(), {}, skipped)) ==
            " a3<end_of_utterance>");
      CHECK_FALSE(try_example(dataset, 1, processor(), {}, skipped));
    }
    CHECK(skipped.bad_count() == 2);
  }
  CHECK(warnings ==
        std::vector<std::string>{"skips a sample: t:1: broken", "skips a sample: t:2: broken"});
  CHECK(load_text(file) == R"({"sample":"t:1","kind":"bad","reason":"t:1: broken"})"
                           "\n"
                           R"({"sample":"t:2","kind":"bad","reason":"t:2: broken"})"
                           "\n");
  // A run that goes on counts on.
  SkippedSamples more(2, file, true);
  CHECK(more.bad_count() == 2);
  CHECK_THROWS_WITH(
      more.add_bad("t:9", Error({.what = "bad"})),
      "too many bad samples: got 3, wanted at most max_bad_samples = 2 (the last one: "
      "bad; a higher max_bad_samples lets the run go on)");
  CHECK(more.bad_count() == 2);  // nor is it noted, so that it is met again
  CHECK(SkippedSamples(2, file, true).bad_count() == 2);
  CHECK_THROWS_WITH(SkippedSamples(1, file, true),
                    file +
                        ": the run has passed over more bad samples: got 2, wanted at most "
                        "max_bad_samples = 1");
  CHECK(SkippedSamples(2, file, false).bad_count() == 0);
  SkippedSamples none;
  CHECK_THROWS_WITH(read_example(dataset, 1, processor(), {}, none), "t:1: broken");
  set_log_sink({});
}

TEST_CASE("too long samples are passed over without a bound, where that is the policy") {
  set_log_level(LogLevel::kOff);
  const Numbered dataset;
  SkippedSamples skipped;
  EncodeOptions options;
  options.max_length =
      static_cast<std::int64_t>(encode_example(dataset.at(5), processor(), {}).ids.size());
  CHECK_THROWS_WITH(read_example(dataset, 4, processor(), options, skipped),
                    Contains("t:4: sample is too long"));
  options.length_policy = LengthPolicy::kSkip;
  CHECK(answer_of(read_example(dataset, 4, processor(), options, skipped)) ==
        " a5<end_of_utterance>");
  CHECK(skipped.long_count() == 1);
  CHECK(skipped.bad_count() == 0);
  options.max_length = 1;
  SkippedSamples all(9);
  CHECK_THROWS_WITH(read_example(dataset, 0, processor(), options, all),
                    "every sample of the data is skipped: got 2 bad, 4 too long");
  set_log_level(LogLevel::kInfo);
}

TEST_CASE("a picture that can't be read, or has no place, is refused with the sample's name") {
  const ScratchFolder scratch;
  const std::vector<Message> messages = {picture_and("user", "?"), text("assistant", "A cat.")};
  CHECK(sample_error(sample(messages, {scratch.at("none.png")})) ==
        "t.jsonl:3: " + scratch.at("none.png") +
            ": can't open the file: got No such file or directory");
  const std::string broken = scratch.write("broken.png", "GIF is not what this is");
  CHECK(sample_error(sample(messages, {broken})) ==
        "t.jsonl:3: " + broken +
            ": not a picture: wanted PNG, JPEG, WebP, BMP, TIFF, GIF, HEIC, AVIF, JPEG 2000, PNM, "
            "Radiance, Sun raster or EXR");
  CHECK(sample_error(sample(messages, {picture("square"), picture("wide")})) ==
        "t.jsonl:3: image places in the conversation don't fit the pictures: got 1 places, "
        "wanted 2 for the pictures given");
}

TEST_CASE("augmentation changes the tiles by the seed alone, and never the text") {
  const Sample seen =
      sample({picture_and("user", "?"), text("assistant", "A cat.")}, {picture("square")});
  const Example plain = encode_example(seen, processor(), {.seed = 1});
  CHECK(plain.pictures.pixels.values.equal(
      encode_example(seen, processor(), {.seed = 2}).pictures.pixels.values));
  const EncodeOptions moved = {.augmentation = {.shift = 0.4}, .seed = 1};
  const Example once = encode_example(seen, processor(), moved);
  CHECK(once.ids == plain.ids);
  CHECK(once.labels == plain.labels);
  CHECK_FALSE(once.pictures.pixels.values.equal(plain.pictures.pixels.values));
  CHECK(once.pictures.pixels.values.equal(
      encode_example(seen, processor(), moved).pictures.pixels.values));
  CHECK_FALSE(once.pictures.pixels.values.equal(
      encode_example(seen, processor(), {.augmentation = {.shift = 0.4}, .seed = 2})
          .pictures.pixels.values));
}

}  // namespace
}  // namespace vlm::data
