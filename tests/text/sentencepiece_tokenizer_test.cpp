#include "vlm/text/sentencepiece_tokenizer.h"

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

using vlm::Error;
using vlm::Json;
using vlm::SentencepieceTokenizer;
using Ids = std::vector<std::int64_t>;
namespace fs = std::filesystem;

namespace {

// A folder with a copy of a fixture's model, gone at the end of the test.
class Folder {
 public:
  explicit Folder(const std::string& family) {
    char name[] = "/tmp/vlm_sentencepiece_XXXXXX";
    path_ = ::mkdtemp(name);
    if (!family.empty()) {
      fs::copy_file(fixture("tokenizers/" + family + "/tokenizer.model"),
                    path_ / "tokenizer.model");
    }
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  void write(const std::string& name, const std::string& text) const {
    vlm::save_text(path_ / name, text);
  }
  const fs::path& path() const { return path_; }

  // The error's text, without the folder.
  std::string error() const {
    try {
      SentencepieceTokenizer tokenizer(path_);
    } catch (const Error& error) {
      const std::string text = error.what();
      return text.substr(text.find(path_.string()) + path_.string().size() + 1);
    }
    return "no error";
  }

 private:
  fs::path path_;
};

}  // namespace

TEST_CASE("a bare model parses no control tokens and adds its bos") {
  const Folder folder("spm_gemma");
  const SentencepieceTokenizer tokenizer(folder.path());
  CHECK(tokenizer.encode("<bos>").size() > 1);
  CHECK(tokenizer.encode("", true) == Ids{2});
  CHECK(tokenizer.decode(Ids{2, 1}, true).empty());
  CHECK(tokenizer.decode(Ids{2, 1}, false) == "<bos><eos>");
}

TEST_CASE("special tokens of the config are found in text") {
  const Folder folder("spm_gemma");
  const std::int64_t size = SentencepieceTokenizer(folder.path()).vocab_size();
  folder.write("special_tokens_map.json",
               R"({"bos_token": {"content": "<bos>"}, "eos_token": "<eos>"})");
  folder.write("added_tokens.json", "{\"<image>\": " + std::to_string(size) + "}");
  folder.write("tokenizer_config.json", R"({"add_bos_token": false, "add_eos_token": true})");
  const SentencepieceTokenizer tokenizer(folder.path());
  CHECK(tokenizer.vocab_size() == size + 1);
  CHECK(tokenizer.encode("<bos><image><eos>", true) == Ids{2, size, 1, 1});
  CHECK(tokenizer.decode(Ids{2, size, 1}, true) == "<image>");
  CHECK(tokenizer.token_to_id("<image>") == size);
}

TEST_CASE("a dummy prefix is added at the start only") {
  const Folder folder("spm_llama");
  const std::int64_t size = SentencepieceTokenizer(folder.path()).vocab_size();
  folder.write("added_tokens.json", "{\"<image>\": " + std::to_string(size) + "}");
  const SentencepieceTokenizer tokenizer(folder.path());
  const Ids start = tokenizer.encode("the");
  Ids later = tokenizer.encode("<image>the");
  CHECK(later.front() == size);
  later.erase(later.begin());
  CHECK(later != start);
  CHECK(tokenizer.decode(start, true) == "the");
  CHECK(tokenizer.decode(tokenizer.encode("a<image> the<image>x"), true) == "a<image> the<image>x");
}

TEST_CASE("libsentencepiece's failures are errors and print nothing") {
  const Folder folder("");
  CHECK_THAT(folder.error(), Contains("tokenizer.model: can't open the file"));
  folder.write("tokenizer.model", "no model");
  CHECK_THAT(folder.error(), Contains("tokenizer.model: not a sentencepiece model: got Internal"));
  folder.write("tokenizer.model", "");
  CHECK_THAT(folder.error(), Contains("tokenizer.model: not a sentencepiece model: got"));
}

TEST_CASE("added tokens have to agree with the model") {
  const Folder folder("spm_gemma");
  folder.write("added_tokens.json", R"({"<bos>": 7})");
  CHECK(folder.error() ==
        "added_tokens.json: id of \"<bos>\" contradicts tokenizer.model: got 7, wanted 2");
  folder.write("added_tokens.json", R"({"<image>": 7})");
  CHECK_THAT(folder.error(),
             Contains("added_tokens.json: id of \"<image>\" contradicts tokenizer.model: got 7, "
                      "wanted at least "));
  folder.write("added_tokens.json", R"({"<image>": 90000, "<other>": 90000})");
  CHECK(folder.error() == "added_tokens.json: id given to two tokens: got 90000");
  folder.write("added_tokens.json", R"({"<image>": "x"})");
  CHECK(folder.error() ==
        "added_tokens.json.<image>: wrong type: got string \"x\", wanted token id");
  folder.write("added_tokens.json", "[]");
  CHECK(folder.error() == "added_tokens.json: wrong type: got array, wanted object");
}

TEST_CASE("a broken tokenizer_config is named") {
  const Folder folder("spm_gemma");
  folder.write("tokenizer_config.json", R"({"add_bos_token": "yes"})");
  CHECK(folder.error() ==
        "tokenizer_config.json.add_bos_token: wrong type: got string \"yes\", wanted boolean");
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder": {"x1": {"content": "<a>"}}})");
  CHECK(folder.error() ==
        "tokenizer_config.json.added_tokens_decoder: key is not a token id: got \"x1\"");
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder": {"1": {}}})");
  CHECK(folder.error() == "tokenizer_config.json.added_tokens_decoder.1: \"content\" is missing");
}

TEST_CASE("a spare piece of the model takes the name that the config gives it") {
  const Folder folder("spm_gemma");
  const SentencepieceTokenizer plain(folder.path());
  const std::int64_t spare = plain.token_to_id("<unused0>").value();
  const std::string named = "{\"added_tokens_decoder\": {\"" + std::to_string(spare) +
                            "\": {\"content\": \"<|im_end|>\", \"special\": true}}}";
  folder.write("tokenizer_config.json", named);
  const SentencepieceTokenizer tokenizer(folder.path());
  CHECK(tokenizer.vocab_size() == plain.vocab_size());
  CHECK(tokenizer.encode("<|im_end|>") == Ids{spare});
  CHECK(tokenizer.decode(Ids{spare}, false) == "<|im_end|>");
  CHECK(tokenizer.decode(Ids{spare}, true).empty());
  CHECK(tokenizer.token_to_id("<|im_end|>") == spare);
  CHECK(tokenizer.id_to_token(spare) == "<|im_end|>");
  CHECK(plain.encode("<|im_end|>").size() > 1);
}
