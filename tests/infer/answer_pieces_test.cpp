// Pieces of streamed answers: whole characters, exact bytes, nothing of a stop string.
#include "infer/engine/answer_pieces.h"

#include "infer/answer_text.h"
#include "infer/generator.h"
#include "infer/search/stop_strings.h"
#include "tests/infer/engine_callers.h"
#include "tests/infer/prompts.h"
#include "tests/infer/sessions.h"

namespace vlm::infer {
namespace {

struct Streamed {
  std::vector<AnswerPiece> pieces;
  std::string text, bytes;
  std::vector<std::int64_t> ids;
};

// The ids one after the other, as a search gives them.
Streamed stream(const Tokenizer& tokenizer, const std::vector<std::int64_t>& ids,
                const GenerationOptions& options) {
  AnswerPieces pieces(tokenizer, options);
  Hypothesis answer;
  Streamed streamed;
  const auto take = [&](AnswerPiece piece) {
    streamed.text += piece.text;
    for (const PieceToken& token : piece.tokens) {
      streamed.bytes += token.bytes;
      streamed.ids.push_back(token.id);
    }
    if (!piece.text.empty() || !piece.tokens.empty()) streamed.pieces.push_back(std::move(piece));
  };
  for (const std::int64_t id : ids) {
    answer.ids.push_back(id);
    answer.logprobs.push_back(-0.5 * static_cast<double>(answer.ids.size()));
    take(pieces.add(answer));
  }
  take(pieces.finish(answer));
  return streamed;
}

TEST_CASE("pieces joined are the text, and the bytes of their tokens too") {
  const Session session = open_fixture(kTinyModel);
  const Tokenizer& tokenizer = session.generator->processor().tokenizer();
  const GenerationOptions options;
  for (const std::string text : {" a red circle", "  two", "\xF0\x9F\x90\x95 dog \xF0\x9F\x90\x88",
                                 "\xC3\xBC\xE2\x82\xAC", "", " ", "x"}) {
    INFO(text);
    const std::vector<std::int64_t> ids = tokenizer.encode(text);
    const Streamed streamed = stream(tokenizer, ids, options);
    CHECK(streamed.text == without_leading_space(text));
    CHECK(streamed.text == answer_text(tokenizer, ids, options));
    CHECK(streamed.bytes == streamed.text);
    CHECK(streamed.ids == ids);
  }
}

TEST_CASE("a character of several tokens is one piece with all of them") {
  const Session session = open_fixture(kTinyModel);
  const Tokenizer& tokenizer = session.generator->processor().tokenizer();
  const std::string dog = "\xF0\x9F\x90\x95";
  const std::vector<std::int64_t> ids = tokenizer.encode("a" + dog + "b");
  REQUIRE(ids.size() >= 5);  // the emoji is no token of its own here
  const Streamed streamed = stream(tokenizer, ids, {});
  const auto found = std::ranges::find_if(
      streamed.pieces, [&](const AnswerPiece& piece) { return piece.text == dog; });
  REQUIRE(found != streamed.pieces.end());
  CHECK(found->tokens.size() == ids.size() - 2);
  for (const AnswerPiece& piece : streamed.pieces) {
    CHECK(piece.text.find("\xEF\xBF\xBD") == std::string::npos);
  }
  // Half of it at the end is no character, but nothing is lost.
  const std::vector<std::int64_t> half(ids.begin(), ids.end() - 2);
  CHECK(stream(tokenizer, half, {}).text == "a\xEF\xBF\xBD");
  CHECK(stream(tokenizer, half, {}).ids == half);
}

TEST_CASE("no piece holds what a stop string may take away, and the text ends in front of it") {
  const Session session = open_fixture(kTinyModel);
  const Tokenizer& tokenizer = session.generator->processor().tokenizer();
  struct Case {
    std::string text, wanted;
    std::vector<std::string> stops;
  };
  for (const Case& one : std::vector<Case>{{"one END two", "one ", {"END"}},
                                           {"one EN two", "one EN two", {"END"}},
                                           {"one EN", "one EN", {"END"}},
                                           {"abcabd", "abc", {"abd"}},
                                           {"aab", "a", {"ab"}},
                                           {"x\n\nUser", "x", {"\n\nUser", "Question"}},
                                           {" END", "", {"END"}},
                                           {"say \xF0\x9F\x90\x95!", "say ", {"\xF0\x9F\x90\x95"}},
                                           {"both b a", "both ", {"a", "b a", "b"}}}) {
    INFO(one.text);
    GenerationOptions options;
    options.stop_strings = one.stops;
    options.hides_stop_strings = true;
    const std::vector<std::int64_t> ids = tokenizer.encode(one.text);
    // As a search ends: with the token that completes a stop string.
    const StopStrings stops(tokenizer, one.stops);
    std::size_t count = 0;
    while (count < ids.size() && !stops.is_completed_by_last(std::span(ids).first(count))) ++count;
    const std::vector<std::int64_t> cut(ids.begin(), ids.begin() + static_cast<long>(count));
    std::string wanted = one.wanted;
    if (one.text == "both b a") wanted = "";  // the "b" of "both"
    CHECK(answer_text(tokenizer, cut, options) == wanted);
    const Streamed streamed = stream(tokenizer, cut, options);
    CHECK(streamed.text == wanted);
    CHECK(streamed.bytes == wanted);
    options.hides_stop_strings = false;
    CHECK(stream(tokenizer, cut, options).text == answer_text(tokenizer, cut, options));
  }
}

TEST_CASE("log-probabilities of the likeliest tokens come with the pieces") {
  Session session = open_fixture(kTinyModel);
  GenerationOptions options = session.generation;
  options.max_new_tokens = 12;
  options.eos_token_ids = {};
  const EncodedConversation prompt{.ids = {1, 278, 28, 223}};
  const Generation plain = generate(session, prompt, options);
  options.top_logprobs = 3;
  options.do_sample = true;
  options.temperature = 3;
  options.seed = 4;
  Engine engine(*session.generator);
  Collected collected;
  engine.submit(EngineRequest::of(prompt, {.id = 9, .options = options}), collected.events());
  const RequestAnswer answer = collected.wait();
  const Generation& sampled = answer.generations.at(0);
  CHECK(sampled.ids != plain.ids);
  std::vector<PieceToken> tokens;
  for (const AnswerPiece& piece : collected.pieces) {
    CHECK(piece.request == 9);
    tokens.insert(tokens.end(), piece.tokens.begin(), piece.tokens.end());
  }
  // Special tokens are in no text.
  std::vector<std::int64_t> shown;
  std::vector<double> logprobs;
  for (std::size_t i = 0; i < sampled.ids.size(); ++i) {
    if (engine.processor().tokenizer().token_bytes(sampled.ids[i]).empty()) continue;
    shown.push_back(sampled.ids[i]);
    logprobs.push_back(sampled.logprobs[i]);
  }
  REQUIRE(tokens.size() == shown.size());
  REQUIRE(tokens.size() > 5);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    CHECK(tokens[i].id == shown[i]);
    CHECK(tokens[i].logprob == logprobs[i]);
    REQUIRE(tokens[i].top.size() == 3);
    CHECK(tokens[i].top[0].logprob >= tokens[i].top[1].logprob);
    CHECK(tokens[i].top[1].logprob >= tokens[i].top[2].logprob);
    CHECK(tokens[i].top[0].logprob >= tokens[i].logprob);
    for (const TokenText& top : tokens[i].top) {
      if (top.id == tokens[i].id) CHECK(top.logprob == Approx(tokens[i].logprob));
    }
  }
  // The likeliest first token is the greedy one.
  REQUIRE(sampled.top.size() == sampled.ids.size());
  CHECK(sampled.top[0][0].id == plain.ids[0]);
  CHECK(sampled.top[0][0].logprob == Approx(plain.logprobs[0]).margin(1e-5));
  CHECK(collected.text() == sampled.text);
}

TEST_CASE("several answers stream side by side, beams at their end") {
  Session session = open_fixture(kTinyModel);
  GenerationOptions options = session.generation;
  options.max_new_tokens = 10;
  options.do_sample = true;
  options.temperature = 2;
  options.num_return_sequences = 3;
  const EncodedConversation prompt{.ids = {1, 278, 28, 223}};
  Engine engine(*session.generator);
  Collected samples, beams;
  engine.submit(EngineRequest::of(prompt, {.options = options}), samples.events());
  GenerationOptions of_beams = session.generation;
  of_beams.max_new_tokens = 10;
  of_beams.num_beams = of_beams.num_return_sequences = 3;
  engine.submit(EngineRequest::of(prompt, {.options = of_beams}), beams.events());
  for (Collected* one : {&samples, &beams}) {
    const RequestAnswer answer = one->wait();
    REQUIRE(answer.generations.size() == 3);
    for (std::int64_t i = 0; i < 3; ++i) {
      CHECK(one->text(i) == answer.generations[static_cast<std::size_t>(i)].text);
    }
  }
  CHECK(beams.pieces.size() <= 3);
  CHECK(samples.pieces.size() > 3);
}

}  // namespace
}  // namespace vlm::infer
