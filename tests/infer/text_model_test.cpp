// Text models in the generator: answers, beams, choices and shared prompts across LongRoPE's
// switch; and where the end of an answer is named.
#include <c10/core/GradMode.h>

#include "infer/generator.h"
#include "tests/infer/sessions.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"

namespace vlm::infer {
namespace {

using Ids = std::vector<std::int64_t>;

const char* const kTextFixtures[] = {"llama_tiny", "qwen2_tiny", "qwen3_tiny", "phi3_tiny"};

Ids list_of(const at::Tensor& ids) {
  const at::Tensor flat = ids.flatten().contiguous();
  return {flat.const_data_ptr<std::int64_t>(), flat.const_data_ptr<std::int64_t>() + flat.numel()};
}

std::vector<RequestAnswer> answer_all(Generator& generator, std::vector<RequestGroup> groups) {
  for (RequestGroup& group : groups) generator.submit(std::move(group));
  std::vector<RequestAnswer> answers;
  while (!generator.is_idle()) {
    for (RequestAnswer& answer : generator.step()) answers.push_back(std::move(answer));
  }
  std::sort(answers.begin(), answers.end(),
            [](const RequestAnswer& a, const RequestAnswer& b) { return a.id < b.id; });
  return answers;
}

RequestGroup group_of(std::vector<Request> requests) {
  RequestGroup group;
  group.requests = std::move(requests);
  return group;
}

TEST_CASE("text models: answers of several prompts at a time equal transformers'") {
  for (const std::string name : kTextFixtures) {
    INFO(name);
    const Golden golden(name + "/golden.safetensors");
    Session session = open_fixture(name);
    session.generator->set_batch_size(3);
    GenerationOptions options{.max_new_tokens = 14};
    const auto answers =
        answer_all(*session.generator,
                   {group_of({{.id = 0, .prompt = list_of(golden["ids.0"]), .options = options}}),
                    group_of({{.id = 1, .prompt = list_of(golden["ids.1"]), .options = options}})});
    REQUIRE(answers.size() == 2);
    for (const std::size_t row : {0U, 1U}) {
      const Generation& found = answers[row].generations.at(0);
      CHECK(found.ids == list_of(golden["greedy_ids." + std::to_string(row)]));
      const at::Tensor logprobs = golden["greedy_logprobs." + std::to_string(row)][0];
      for (std::size_t i = 0; i < found.logprobs.size(); ++i) {
        CHECK(found.logprobs[i] ==
              Approx(logprobs[static_cast<std::int64_t>(i)].item<double>()).margin(1e-4));
      }
    }
  }
}

TEST_CASE("text models: beams equal transformers', also across the switch") {
  for (const std::string name : kTextFixtures) {
    INFO(name);
    const Golden golden(name + "/golden.safetensors");
    const Session session = open_fixture(name);
    const GenerationOptions options{.max_new_tokens = 9, .num_beams = 3, .num_return_sequences = 3};
    const auto answers =
        answer_all(*session.generator,
                   {group_of({{.id = 0, .prompt = list_of(golden["ids.1"]), .options = options}})});
    REQUIRE(answers.at(0).generations.size() == 3);
    for (const std::int64_t k : {0, 1, 2}) {
      const Generation& found = answers[0].generations[static_cast<std::size_t>(k)];
      CHECK(found.ids == list_of(golden["beam_ids"][k]));
      CHECK(found.score == Approx(golden["beam_scores"][k].item<double>()).margin(1e-4));
    }
  }
}

TEST_CASE("choices and shared prompts: short and long ones beside each other, across the switch") {
  const Golden golden("phi3_tiny/golden.safetensors");
  const Session session = open_fixture("phi3_tiny");
  const Ids text = list_of(golden["ids.0"]);
  const auto part = [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    return Ids(text.begin() + begin, text.begin() + end);
  };
  // The switch is at 16; the prompt has 12 tokens.
  const std::vector<Ids> choices = {part(12, 14), part(12, 30), part(20, 24), part(13, 18)};
  const auto scored = answer_all(
      *session.generator, {group_of({{.id = 0, .prompt = part(0, 12), .choices = choices}})});
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    Ids whole = part(0, 12);
    whole.insert(whole.end(), choices[i].begin(), choices[i].end() - 1);
    const at::Tensor ids = at::tensor(whole, at::kLong).unsqueeze(0);
    const at::Tensor logprobs =
        session.model->logits(session.model->decode(session.model->embed(ids, {}), {}, nullptr))[0]
            .log_softmax(-1);
    double wanted = 0;
    for (std::size_t t = 0; t < choices[i].size(); ++t) {
      wanted += logprobs[11 + static_cast<std::int64_t>(t)][choices[i][t]].item<double>();
    }
    INFO(i);
    CHECK(scored.at(0).choices.at(i).logprob == Approx(wanted).margin(1e-4));
  }

  const GenerationOptions options{.max_new_tokens = 6};
  std::vector<Request> together;
  std::vector<RequestGroup> apart;
  for (const std::ptrdiff_t length : {2, 20, 3, 9, 5, 4, 30, 6, 2, 7}) {
    Ids prompt = part(0, 9);
    const Ids rest = part(12, 12 + length);
    prompt.insert(prompt.end(), rest.begin(), rest.end());
    const Request request{.id = together.size(), .prompt = prompt, .options = options};
    together.push_back(request);
    apart.push_back(group_of({request}));
  }
  const auto wanted = answer_all(*session.generator, std::move(apart));
  const auto found = answer_all(*session.generator, {group_of(together)});
  REQUIRE(found.size() == wanted.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    INFO(i);
    CHECK(found[i].generations.at(0).ids == wanted[i].generations.at(0).ids);
    CHECK(found[i].generations.at(0).mean_logprob() ==
          Approx(wanted[i].generations.at(0).mean_logprob()).margin(1e-4));
  }
}

TEST_CASE("end tokens come from generation_config, else config, else the tokenizer") {
  const ScratchFolder folder;
  const auto ends = [&] { return load_generation_options(folder.path()).eos_token_ids; };
  folder.write("generation_config.json", R"({"eos_token_id": [5, 7]})");
  folder.write("config.json", R"({"eos_token_id": 3})");
  folder.write("tokenizer_config.json", R"({"eos_token": {"content": "<end>"}})");
  folder.write("tokenizer.json", R"({"added_tokens": [{"id": 1, "content": "<x>"},
                                                      {"id": 9, "content": "<end>"}]})");
  CHECK(ends() == Ids{5, 7});
  folder.write("generation_config.json", R"({"do_sample": false})");
  CHECK(ends() == Ids{3});
  folder.write("config.json", R"({"text_config": {"eos_token_id": [4]}})");
  CHECK(ends() == Ids{4});
  folder.write("config.json", "{}");
  CHECK(ends() == Ids{9});
  std::filesystem::remove(folder.path() / "generation_config.json");
  CHECK(ends() == Ids{9});
  folder.write("tokenizer_config.json", "{}");
  CHECK(ends().empty());
}

}  // namespace
}  // namespace vlm::infer
