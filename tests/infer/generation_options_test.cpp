// generation_config.json: what transformers takes is taken, and what it can't sample with is told.
//
// The oracle is GenerationConfig.from_pretrained and generate of transformers 5.23 with these
// files.
#include "infer/search/generation_options.h"

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"

namespace vlm::infer {
namespace {

struct Loaded {
  GenerationOptions options;
  std::string warnings, error;
};

Loaded load_options(const std::string& text, const ScratchFolder& folder) {
  save_text(folder.path() / "generation_config.json", text);
  Loaded loaded;
  set_log_sink([&](LogLevel, const std::string& said) { loaded.warnings += said + "\n"; });
  try {
    loaded.options = load_generation_options(folder.path());
  } catch (const Error& error) {
    loaded.error = error.what();
  }
  set_log_sink({});
  return loaded;
}

Loaded load_options(const std::string& text) {
  return load_options(text, ScratchFolder());
}

TEST_CASE("settings that transformers accepts are accepted") {
  for (const char* text :
       {R"({"do_sample": false, "temperature": 0.0})",
        R"({"temperature": 0})",
        R"({"do_sample": null, "temperature": null, "top_k": null, "top_p": null, "min_p": null,
            "num_beams": null, "repetition_penalty": null, "length_penalty": null,
            "no_repeat_ngram_size": null, "min_new_tokens": null, "early_stopping": null,
            "num_return_sequences": null, "typical_p": null, "max_new_tokens": null})",
        R"({"top_k": -1})",
        R"({"top_k": 0, "do_sample": true})",
        R"({"top_p": 1.5})",
        R"({"top_p": 1.5, "do_sample": true})",
        R"({"top_p": 0.0})",
        R"({"top_p": 0.0, "do_sample": true})",
        R"({"top_p": -1})",
        R"({"typical_p": 0.0})",
        R"({"typical_p": 2, "do_sample": true})",
        R"({"min_p": 3})",
        R"({"repetition_penalty": 1})",
        R"({"no_repeat_ngram_size": -1})",
        R"({"min_new_tokens": -3})",
        R"({"early_stopping": "never"})",
        R"({"early_stopping": true})",
        R"({"length_penalty": 0.5})",
        R"({"num_return_sequences": 2, "do_sample": true})",
        R"({"num_return_sequences": 0})",
        R"({"epsilon_cutoff": 0.1})",
        R"({"guidance_scale": 1})",
        R"({"foo": 3})",
        R"({"temperature": "0.7"})",
        R"({"top_k": 50.0})",
        R"({"temperature": 1e-5})",
        R"({"eos_token_id": null})",
        R"({"eos_token_id": []})",
        R"({"max_length": 0, "pad_token_id": -1})",
        R"({"do_sample": 0, "temperature": 0})",
        R"({"do_sample": 1})"}) {
    INFO(text);
    const Loaded loaded = load_options(text);
    CHECK(loaded.error.empty());
    CHECK(loaded.warnings.empty());
  }
}

TEST_CASE("what is accepted means what it means there") {
  const GenerationOptions greedy = load_options(R"({"temperature": 0.0, "top_k": -1})").options;
  CHECK_FALSE(greedy.do_sample);
  CHECK(greedy.temperature == 1);
  CHECK(greedy.top_k == 50);
  CHECK(load_options(R"({"do_sample": 1})").options.do_sample);
  CHECK(load_options(R"({"top_p": 1.5, "do_sample": true})").options.top_p == 1);
  const double narrow = load_options(R"({"top_p": 0.0, "do_sample": true})").options.top_p;
  CHECK(narrow > 0);  // the likeliest token alone
  CHECK(narrow < 1e-300);
  CHECK(load_options(R"({"no_repeat_ngram_size": -1})").options.no_repeat_ngram_size == 0);
  CHECK(load_options(R"({"early_stopping": "never"})").options.early_stopping == "never");
  CHECK(load_options(R"({"temperature": 0.6})").options.temperature == 0.6);
}

TEST_CASE("what can't be sampled with is refused with sampling, and told when it is turned on") {
  for (const char* text :
       {R"({"temperature": 0.0, "do_sample": true})", R"({"top_k": -1, "do_sample": true})",
        R"({"min_p": 3, "do_sample": true})", R"({"repetition_penalty": 0.0})",
        R"({"early_stopping": "soon"})", R"({"num_return_sequences": 2})", R"({"num_beams": 0})"}) {
    INFO(text);
    CHECK_THAT(load_options(text).error, Contains("generation_config.json"));
  }
  const Loaded loaded = load_options(R"({"temperature": 0.0})");
  std::string said;
  set_log_sink([&](LogLevel, const std::string& text) { said += text + "\n"; });
  GenerationOptions options = loaded.options;
  options.validate("here");
  CHECK(said.empty());
  options.do_sample = true;
  options.validate("here");
  options.validate("here");
  set_log_sink({});
  CHECK_THAT(said, Contains("generation_config.json: temperature is 0.0: sampling goes on as if it "
                            "weren't set\n"));
  CHECK(said.find('\n') == said.size() - 1);  // once
}

TEST_CASE("settings that would change answers and aren't supported are told once, by name") {
  const ScratchFolder folder;
  const std::string text =
      R"({"suppress_tokens": [3], "guidance_scale": 1.5, "renormalize_logits": true, "top_h": 0.5})";
  const std::string where = (folder.path() / "generation_config.json").string();
  const std::string end = " is not supported: answers are made without it\n";
  CHECK(load_options(text, folder).warnings == where + ": guidance_scale" + end + where +
                                                   ": renormalize_logits" + end + where +
                                                   ": suppress_tokens" + end);
  CHECK(load_options(text, folder).warnings.empty());
  CHECK(load_options(R"({"top_h": 0.5, "do_sample": true})", folder).warnings ==
        where + ": top_h" + end);
}

}  // namespace
}  // namespace vlm::infer
