// Adapters of a tied model through the program: answers beside the base and merged, and what is
// refused.
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/run_program.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

const std::string kTiedFolder = "tests/fixtures/smolvlm_odd";

Json answer(const std::string& model, const std::string& more) {
  const ProgramResult result = run_vlm(
      "generate --device cpu --dtype float32 --threads 1 --format json --max-new-tokens 5 --image "
      "tests/fixtures/pictures/wide.png --prompt 'What is this?' --model " +
      model + more);
  INFO(result.err);
  REQUIRE(result.code == 0);
  return Json::parse(result.out);
}

TEST_CASE("adapters of embeddings and tied heads answer beside the base as merged into it") {
  const ScratchFolder folder;
  for (const std::string kind : {"head", "both", "both_tied", "tokens", "saved_head"}) {
    INFO(kind);
    const std::string adapter = " --adapter " + kTiedFolder + "/adapters/" + kind;
    const std::string merged = (folder.path() / kind).string();
    REQUIRE(run_vlm("merge --model " + kTiedFolder + adapter + " --output " + merged).code == 0);
    const Json beside = answer(kTiedFolder, adapter), alone = answer(merged, "");
    CHECK(beside["token_ids"] == alone["token_ids"]);
    for (std::size_t i = 0; i < beside["token_logprobs"].size(); ++i) {
      CHECK(beside["token_logprobs"][i].get<double>() ==
            Approx(alone["token_logprobs"][i].get<double>()).margin(1e-4));
    }
    CHECK(beside["token_logprobs"] != answer(kTiedFolder, "")["token_logprobs"]);
  }
}

TEST_CASE("an adapter whose pattern would run for ever ends with an error") {
  const ScratchFolder folder;
  save_text(folder.path() / "adapter_config.json",
            R"({"peft_type": "LORA", "r": 2, "target_modules": "(?:[a-z_.0-9]+)+[!?]"})");
  const ProgramResult result =
      run_vlm("merge --model " + kTiedFolder + " --adapter " + folder.path().string() +
              " --output " + (folder.path() / "out").string());
  CHECK(result.code == 1);
  CHECK_THAT(result.err, Contains("target_modules: regular expression needs too many steps"));
  CHECK_FALSE(std::filesystem::exists(folder.path() / "out"));
}

}  // namespace
}  // namespace vlm
