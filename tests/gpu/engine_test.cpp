// The engine on the GPU: answers of the CPU, whatever runs beside, and recorded steps.
#include "infer/engine/engine.h"

#include <future>

#include "data/media/media.h"
#include "infer/items/item.h"
#include "infer/session.h"
#include "tests/gpu/program.h"
#include "tests/support/simulated_cuda/device.h"
#include "tests/support/tensors.h"

namespace vlm {
namespace {

using infer::Engine;
using infer::EngineRequest;
using infer::RequestAnswer;

infer::Session open_on(const std::string& model, const std::string& device, bool records) {
  return infer::open_session({.model = fixture(model).string(), .records_steps = records},
                             {.device = device, .dtype = "float32"});
}

// Prompts about pictures, text alone, and one that comes in several pieces.
std::vector<EncodedConversation> make_prompts(const infer::Session& session) {
  const Processor& processor = session.generator->processor();
  const auto load = [](const std::string& name) {
    return data::load_image(fixture("pictures/" + name + ".png"));
  };
  const auto ask = [&](const std::string& question, const std::vector<Image>& pictures) {
    return processor.encode_prompt(
        infer::make_conversation(question, std::vector<infer::MediaRef>(pictures.size()), ""),
        pictures);
  };
  EncodedConversation longer = ask("Why?", {});
  while (longer.ids.size() < 560) longer.ids.push_back(20 + std::ssize(longer.ids) % 40);
  std::vector<EncodedConversation> prompts = {ask("What is it?", {load("square")}),
                                              ask("And these?", {load("wide"), load("tall")}),
                                              ask("What colour is it?", {})};
  if (std::ssize(longer.ids) + 20 < session.generator->max_positions()) prompts.push_back(longer);
  return prompts;
}

std::vector<RequestAnswer> ask_together(const infer::Session& session) {
  Engine engine(*session.generator,
                {.max_running = 3, .kept_media_bytes = 1 << 20, .kept_prefix_bytes = 1 << 24});
  std::vector<std::future<RequestAnswer>> asked;
  for (int round = 0; round < 3; ++round) {
    for (const EncodedConversation& prompt : make_prompts(session)) {
      infer::GenerationOptions options = session.generation;
      options.max_new_tokens = 9;
      options.num_beams = round == 1 ? 3 : 1;
      asked.push_back(engine.submit(EngineRequest::of(prompt, {.options = options})));
    }
  }
  std::vector<RequestAnswer> answers;
  for (auto& one : asked) answers.push_back(one.get());
  return answers;
}

TEST_CASE("an engine on the GPU answers as one on the CPU") {
  for (const std::string model : {"smolvlm_tiny", "qwen2_5_vl_tiny", "qwen3_vl_tiny"}) {
    for (const bool records : {false, true}) {
      INFO(model << (records ? ", recorded" : ""));
      const infer::Session host = open_on(model, "cpu", false),
                           gpu = open_on(model, "cuda", records);
      const auto wanted = ask_together(host), found = ask_together(gpu);
      REQUIRE(found.size() == wanted.size());
      for (std::size_t i = 0; i < found.size(); ++i) {
        INFO(i);
        CHECK(found[i].outcome == infer::Outcome::kAnswered);
        REQUIRE(found[i].generations.size() == wanted[i].generations.size());
        for (std::size_t k = 0; k < found[i].generations.size(); ++k) {
          CHECK(found[i].generations[k].ids == wanted[i].generations[k].ids);
          CHECK(found[i].generations[k].mean_logprob() ==
                Approx(wanted[i].generations[k].mean_logprob()).margin(1e-4));
        }
      }
      CHECK((gpu.generator->replayed_steps() > 0) == records);
    }
  }
}

}  // namespace
}  // namespace vlm
