// What the trainer's evaluation asks: each sample has its answer, or its own reason for none.
#include "infer/answer_samples.h"

#include "tests/support/catch.h"
#include "vlm/core/run/stop_signal.h"
#include "vlm/models/registry.h"

namespace vlm::infer {
namespace {

data::Sample held_question(const std::string& text, const std::string& picture, int line) {
  data::Sample sample;
  sample.where = "eval.jsonl:" + std::to_string(line);
  sample.messages = {{.role = "user", .content = {{.type = "text", .text = text}}}};
  if (!picture.empty()) {
    sample.messages[0].content.insert(sample.messages[0].content.begin(), {.type = "image"});
    sample.media = {{.name = picture}};
  }
  return sample;
}

std::vector<std::variant<std::string, Error>> answers_of(
    const std::vector<data::Sample>& samples, const std::function<bool()>& should_stop = {}) {
  const ModelPtr model = load_model(fixture("smolvlm_tiny"), {});
  const std::shared_ptr<const Processor> processor = load_processor(fixture("smolvlm_tiny"));
  return answer_samples(
      model, processor, samples,
      {.folder = fixture("smolvlm_tiny"), .max_new_tokens = 4, .should_stop = should_stop});
}

TEST_CASE("a sample that can't be answered costs the others nothing") {
  std::string endless;
  for (int i = 0; i < 600; ++i) endless += "word ";
  const data::Sample good = held_question("What?", fixture("pictures/square.png").string(), 1);
  const data::Sample text = held_question("Where?", "", 4);
  const auto answers = answers_of(
      {good, held_question("What?", "/nowhere.png", 2), held_question(endless, "", 3), text});
  REQUIRE(answers.size() == 4);
  CHECK(answers[0].index() == 0);
  CHECK(answers[3].index() == 0);
  REQUIRE(answers[1].index() == 1);
  CHECK_THAT(std::get<Error>(answers[1]).what(), Contains("eval.jsonl:2: /nowhere.png"));
  REQUIRE(answers[2].index() == 1);
  CHECK_THAT(std::get<Error>(answers[2]).what(), Contains("eval.jsonl:3"));
  // They are what they are without the bad ones.
  const auto alone = answers_of({good, text});
  CHECK(std::get<std::string>(alone[0]) == std::get<std::string>(answers[0]));
  CHECK(std::get<std::string>(alone[1]) == std::get<std::string>(answers[3]));
}

TEST_CASE("answers that were cut by a stop are none") {
  const data::Sample sample = held_question("What?", "", 1);
  for (const int last : {0, 1, 3}) {  // before the sample, before and amid its tokens
    int asked = 0;
    CHECK_THROWS_AS(answers_of({sample}, [&] { return asked++ >= last; }), Interrupted);
  }
  CHECK(answers_of({sample}, [] { return false; })[0].index() == 0);
}

}  // namespace
}  // namespace vlm::infer
