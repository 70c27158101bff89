// Folders with vocab.json and merges.txt and no tokenizer.json, against the same tokenizers' golden
// files (scripts/make_text_fixtures.py).
#include "vlm/text/vocabulary_files.h"

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"
#include "vlm/text/added_token_files.h"
#include "vlm/text/tokenizer.h"
#include "vlm/text/unicode/unicode.h"

using vlm::Json;
using Ids = std::vector<std::int64_t>;

namespace {

// vocab.json and merges.txt of a fixture's tokenizer.json, which is returned.
Json write_vocabulary(const ScratchFolder& folder, const std::string& family) {
  const Json whole = vlm::load_json(fixture("tokenizers/" + family + "/tokenizer.json"));
  std::string merges = "#version: 0.2\n";
  for (const Json& merge : whole["model"]["merges"]) {
    const bool is_pair = merge.is_array();
    merges += is_pair ? merge[0].get<std::string>() + " " + merge[1].get<std::string>()
                      : merge.get<std::string>();
    merges += "\n";
  }
  folder.write("merges.txt", merges);
  folder.write("vocab.json", whole["model"]["vocab"].dump());
  return whole;
}

void check_golden(const ScratchFolder& folder, const std::string& family) {
  const auto tokenizer = vlm::load_tokenizer(folder.path());
  const Json texts = vlm::load_json(fixture("tokenizers/texts.json"));
  const Json golden = vlm::load_json(fixture("tokenizers/" + family + "/golden.json"));
  REQUIRE(texts.size() == golden.size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (!texts[i].is_string()) continue;  // bytes that aren't UTF-8
    const auto text = texts[i].get<std::string>();
    INFO(family << ": " << text);
    const Ids ids = golden[i]["ids"].get<Ids>();
    CHECK(tokenizer->encode(text) == ids);
    const std::string decoded = golden[i].value("decoded", vlm::to_valid_utf8(text));
    CHECK(tokenizer->decode(ids, false) == decoded);
    CHECK(tokenizer->decode(ids, true) == golden[i].value("skipped", decoded));
  }
}

std::string vocabulary_error(const ScratchFolder& folder) {
  try {
    vlm::load_tokenizer(folder.path());
    return "";
  } catch (const vlm::Error& error) {
    std::string text = error.what();
    for (std::size_t at = 0; (at = text.find(folder.path().string())) != std::string::npos;) {
      text.replace(at, folder.path().string().size(), "F");
    }
    return text;
  }
}

}  // namespace

TEST_CASE("vocab.json with merges.txt gives the ids of tokenizer.json") {
  for (const std::string family : {"qwen2", "gpt2"}) {
    const ScratchFolder folder;
    const Json whole = write_vocabulary(folder, family);
    Json decoder = Json::object();
    for (const Json& token : whole["added_tokens"]) {
      decoder[std::to_string(token["id"].get<int>())] = token;
    }
    const std::string name = family == "qwen2" ? "Qwen2TokenizerFast" : "GPT2Tokenizer";
    folder.write("tokenizer_config.json",
                 Json{{"tokenizer_class", name}, {"added_tokens_decoder", decoder}}.dump());
    check_golden(folder, family);
  }
}

TEST_CASE("added tokens without flags come from added_tokens.json and special_tokens_map.json") {
  const ScratchFolder folder;
  const Json whole = write_vocabulary(folder, "qwen2");
  Json added = Json::object();
  for (const Json& token : whole["added_tokens"]) {
    if (token["content"] != "<|endoftext|>")
      added[token["content"].get<std::string>()] = token["id"];
  }
  // The class's own token comes first, by the vocabulary or the next id.
  const auto first = whole["added_tokens"][0];
  REQUIRE(first["content"] == "<|endoftext|>");
  added["<|endoftext|>"] = first["id"];
  folder.write("added_tokens.json", added.dump());
  folder.write("special_tokens_map.json",
               R"({"additional_special_tokens": ["<|im_start|>", {"content": "<|im_end|>"}],
                   "eos_token": "<|endoftext|>"})");
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "Qwen2Tokenizer"})");
  check_golden(folder, "qwen2");
  CHECK(vlm::find_added_token(folder.path(), "<|im_end|>") == added["<|im_end|>"]);
  CHECK(!vlm::find_added_token(folder.path(), "<none>"));
}

TEST_CASE("what only the class or the config names gets the next ids, and a bos stands in front") {
  const ScratchFolder folder;
  const auto size =
      static_cast<std::int64_t>(write_vocabulary(folder, "qwen2")["model"]["vocab"].size());
  folder.write("tokenizer_config.json",
               R"({"tokenizer_class": "Qwen2Tokenizer", "bos_token": "<b>", "eos_token": null,
                   "add_bos_token": true, "additional_special_tokens": ["<x>"]})");
  const auto tokenizer = vlm::load_tokenizer(folder.path());
  CHECK(tokenizer->token_to_id("<b>") == size);
  CHECK(tokenizer->token_to_id("<|endoftext|>") == size + 1);  // the class's unk_token
  CHECK(tokenizer->token_to_id("<x>") == size + 2);
  const Ids alone = tokenizer->encode("a<x>");
  Ids begun = tokenizer->encode("a<x>", true);
  REQUIRE(begun.size() == alone.size() + 1);
  CHECK(begun.front() == size);
  CHECK(alone.back() == size + 2);
}

TEST_CASE("files of a vocabulary that can't be read are named") {
  const ScratchFolder folder;
  write_vocabulary(folder, "qwen2");
  CHECK_THAT(vocabulary_error(folder),
             Contains("F/tokenizer_config.json.tokenizer_class: unsupported tokenizer beside "
                      "vocab.json: got 'none', wanted Qwen2Tokenizer or GPT2Tokenizer"));
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "XLMTokenizer"})");
  CHECK_THAT(vocabulary_error(folder), Contains("got 'XLMTokenizer'"));
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "Qwen2Tokenizer"})");
  folder.write("merges.txt", "#version: 0.2\na b c\n");
  CHECK(vocabulary_error(folder) ==
        "F/merges.txt:2: not a merge: got \"a b c\", wanted two tokens with a space between them");
  folder.write("merges.txt", "");
  folder.write("added_tokens.json", R"({"<x>": 9})");
  CHECK_THAT(vocabulary_error(folder),
             Contains("id of \"<x>\" doesn't follow from the vocabulary: got 9, wanted "));
  folder.write("vocab.json", "[]");
  CHECK_THAT(vocabulary_error(folder), Contains("F/vocab.json: wrong type: got array"));
}
