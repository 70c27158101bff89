#include "vlm/text/bpe_tokenizer.h"

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "vlm/core/error.h"

using vlm::BpeTokenizer;
using vlm::Error;
using vlm::Json;
using Ids = std::vector<std::int64_t>;

namespace {

// A small tokenizer.json: characters a, b, c and the merges ab, abc.
Json small_file() {
  return Json::parse(R"({
    "added_tokens": [{"id": 6, "content": "<x>", "special": true, "normalized": false}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "<unk>": 5},
              "merges": ["a b", ["ab", "c"]]}})");
}

// The file with `patch` (RFC 7386) applied.
Json patched(const std::string& patch) {
  Json file = small_file();
  file.merge_patch(Json::parse(patch));
  return file;
}

std::string load_error(const Json& file) {
  try {
    BpeTokenizer(file, "t.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::string error_of(const std::string& patch) {
  return load_error(patched(patch));
}

Ids encode(const std::string& patch, const std::string& text, bool special = false) {
  return BpeTokenizer(patched(patch), "t.json").encode(text, special);
}

}  // namespace

TEST_CASE("merges are done by rank") {
  const BpeTokenizer tokenizer(small_file(), "t.json");
  CHECK(tokenizer.encode("abcab<x>c") == Ids{4, 3, 6, 2});
  CHECK(tokenizer.decode(Ids{4, 6, 99, -5, 2}, false) == "abc <x> c");
  CHECK(tokenizer.decode(Ids{4, 6, 2}, true) == "abc c");
  CHECK(tokenizer.vocab_size() == 7);
  CHECK(tokenizer.encode("").empty());
}

TEST_CASE("unknown symbols vanish, become unk, or bytes") {
  CHECK(encode("{}", "axxb") == Ids{3});  // and their neighbours merge
  CHECK(encode(R"({"model": {"unk_token": "<unk>"}})", "axxb") == Ids{0, 5, 5, 1});
  CHECK(encode(R"({"model": {"unk_token": "<unk>", "fuse_unk": true}})", "axxbx") ==
        Ids{0, 5, 1, 5});
  const std::string bytes =
      R"({"model": {"unk_token": "<unk>", "byte_fallback": true,
          "vocab": {"<0xC3>": 6, "<0xA9>": 7}}, "added_tokens": []})";
  CHECK(encode(bytes, "a\u00e9x") == Ids{0, 6, 7, 5});
}

TEST_CASE("model options") {
  CHECK(encode(R"({"model": {"merges": [], "ignore_merges": true}})", "abc") == Ids{4});
  CHECK(encode(R"({"model": {"merges": [], "ignore_merges": false}})", "abc") == Ids{0, 1, 2});
  const std::string affixes = R"({"added_tokens": [], "model": {
      "continuing_subword_prefix": "#", "end_of_word_suffix": "$", "merges": ["a #b"],
      "vocab": {"#b": 6, "#c$": 7, "a$": 8}}})";
  CHECK(encode(affixes, "abc") == Ids{3, 7});
  CHECK(encode(affixes, "a") == Ids{8});
  CHECK(encode(R"({"model": {"dropout": 0.0}})", "ab") == Ids{3});
}

TEST_CASE("the post-processor adds its tokens when asked") {
  const std::string patch = R"({"post_processor": {"type": "Sequence", "processors": [
      {"type": "ByteLevel"},
      {"type": "TemplateProcessing", "special_tokens": {"<x>": {"id": "<x>", "ids": [6, 5]}},
       "single": [{"SpecialToken": {"id": "<x>", "type_id": 0}}, {"Sequence": {"id": "A"}}]}]}})";
  CHECK(encode(patch, "a", true) == Ids{6, 5, 0});
  CHECK(encode(patch, "a", false) == Ids{0});
}

TEST_CASE("truncation and padding of the file are not applied") {
  CHECK(encode(R"({"truncation": {"max_length": 1}, "padding": {"length": 9}})", "ab<x>") ==
        Ids{3, 6});
}

TEST_CASE("components that are not supported are named") {
  const auto unsupported = [](const std::string& place, const std::string& type) {
    return "t.json: " + place + ".type: component is not supported: got \"" + type + "\", wanted ";
  };
  CHECK(error_of(R"({"normalizer": {"type": "BertNormalizer"}})") ==
        unsupported("normalizer", "BertNormalizer") +
            "NFC, Lowercase, Prepend, Replace or Sequence");
  CHECK(error_of(R"({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}]}})") ==
        unsupported("normalizer.normalizers[0]", "NFKC") +
            "NFC, Lowercase, Prepend, Replace or Sequence");
  CHECK(error_of(R"({"pre_tokenizer": {"type": "Metaspace"}})") ==
        unsupported("pre_tokenizer", "Metaspace") + "Sequence, Digits, Split or ByteLevel");
  CHECK(error_of(R"({"post_processor": {"type": "BertProcessing"}})") ==
        unsupported("post_processor", "BertProcessing") +
            "ByteLevel, TemplateProcessing or Sequence");
  CHECK(error_of(R"({"decoder": {"type": "WordPiece"}})") ==
        unsupported("decoder", "WordPiece") +
            "ByteLevel, Replace, ByteFallback, Fuse, Strip or Sequence");
  CHECK(error_of(R"({"model": {"type": "Unigram"}})") == unsupported("model", "Unigram") + "BPE");
  CHECK(error_of(R"({"decoder": {"type": "Sequence", "decoders": [
                     {"type": "Fuse"}, {"type": "ByteFallback"}]}})") ==
        "t.json: decoder.decoders[1].type: component is not supported behind Fuse: got "
        "\"ByteFallback\", wanted Strip");
  CHECK(error_of(R"({"model": {"dropout": 0.1}})") ==
        "t.json: model.dropout: option is not supported: got number 0.1, wanted null");
  CHECK_THAT(error_of(R"({"pre_tokenizer": {"type": "Split", "behavior": "Isolated",
                          "pattern": {"Regex": "\\w+"}}})"),
             Contains("t.json: pre_tokenizer.pattern: regular expression uses a construct that is "
                      "not supported: got \"\\w\""));
}

TEST_CASE("missing and wrong members of components are named") {
  CHECK(load_error(Json::parse("[]")) == "t.json: wrong type: got array, wanted object");
  CHECK(error_of(R"({"model": null})") == "t.json: \"model\" is missing");
  CHECK(error_of(R"({"model": {"vocab": null}})") == "t.json: model: \"vocab\" is missing");
  CHECK(error_of(R"({"model": {"merges": null}})") == "t.json: model: \"merges\" is missing");
  CHECK(error_of(R"({"model": {"vocab": [1]}})") ==
        "t.json: model.vocab: wrong type: got array, wanted object");
  CHECK(error_of(R"({"model": {"merges": {}}})") ==
        "t.json: model.merges: wrong type: got object, wanted array");
  CHECK(error_of(R"({"model": {"fuse_unk": 1}})") ==
        "t.json: model.fuse_unk: wrong type: got number 1, wanted boolean");
  CHECK(error_of(R"({"normalizer": 3})") ==
        "t.json: normalizer: wrong type: got number 3, wanted object");
  CHECK(error_of(R"({"normalizer": {}})") == "t.json: normalizer: \"type\" is missing");
  CHECK(error_of(R"({"pre_tokenizer": {"type": "Split", "pattern": {"String": "a"}}})") ==
        "t.json: pre_tokenizer: \"behavior\" is missing");
  CHECK(error_of(R"({"pre_tokenizer": {"type": "Split", "behavior": "Glue",
                     "pattern": {"String": "a"}}})") ==
        "t.json: pre_tokenizer.behavior: unknown behavior: got \"Glue\", wanted Removed, Isolated, "
        "Contiguous, MergedWithPrevious or MergedWithNext");
  CHECK(error_of(R"({"decoder": {"type": "Strip", "content": "ab", "start": 1, "stop": 0}})") ==
        "t.json: decoder.content: wrong value: got \"ab\", wanted one character");
  CHECK(error_of(R"({"decoder": {"type": "Strip", "content": "a", "start": -1, "stop": 0}})") ==
        "t.json: decoder.start: wrong type: got number -1, wanted count");
  CHECK(error_of(R"({"post_processor": {"type": "TemplateProcessing", "special_tokens": {},
                     "single": [{"Sequence": {"id": "B"}}]}})") ==
        "t.json: post_processor.single[0]: template for one text names another: got \"B\", wanted "
        "\"A\"");
  CHECK(error_of(R"({"post_processor": {"type": "TemplateProcessing", "special_tokens": {},
                     "single": [{"SpecialToken": {"id": "<s>"}}]}})") ==
        "t.json: post_processor.special_tokens: \"<s>\" is missing");
}

TEST_CASE("contradictions in the vocabulary are refused") {
  CHECK(error_of(R"({"model": {"vocab": {"c": 1}}})") ==
        "t.json: model.vocab: id given to two tokens: got 1 for \"b\" and \"c\"");
  CHECK(error_of(R"({"model": {"vocab": {"c": -2}}})") ==
        "t.json: model.vocab.c: token id is out of range: got -2, wanted 0 to 16000000");
  CHECK(error_of(R"({"model": {"vocab": {"c": 18446744073709551615}}})") ==
        "t.json: model.vocab.c: token id is out of range: got 18446744073709551615, wanted 0 to "
        "16000000");
  CHECK(error_of(R"({"model": {"vocab": {"c": 2.0}}})") ==
        "t.json: model.vocab.c: wrong type: got number 2.0, wanted token id");
  CHECK(error_of(R"({"model": {"merges": ["a b", "b a"]}})") ==
        "t.json: model.merges[1]: merge names a token that is not in the vocabulary: got \"ba\"");
  CHECK(error_of(R"({"model": {"merges": ["a  b"]}})") ==
        "t.json: model.merges[0]: not a merge: got string \"a  b\", wanted \"left right\" or "
        "[\"left\", \"right\"]");
  CHECK(error_of(R"({"model": {"merges": [["a"]]}})") ==
        "t.json: model.merges[0]: not a merge: got array, wanted \"left right\" or [\"left\", "
        "\"right\"]");
  CHECK(error_of(R"({"model": {"continuing_subword_prefix": "##"}})") ==
        "t.json: model.merges[0]: right side is shorter than continuing_subword_prefix: got \"b\"");
  CHECK(error_of(R"({"model": {"unk_token": "?"}})") ==
        "t.json: model.unk_token: token is not in the vocabulary: got \"?\"");
}

TEST_CASE("added tokens have to agree with the vocabulary") {
  const auto added = [](const std::string& entries) {
    return error_of("{\"added_tokens\": " + entries + "}");
  };
  CHECK(added(R"([{"content": "<x>"}])") == "t.json: added_tokens[0]: \"id\" is missing");
  CHECK(added(R"([{"id": 6}])") == "t.json: added_tokens[0]: \"content\" is missing");
  CHECK(added(R"([{"id": 6, "content": "<x>", "lstrip": "no"}])") ==
        "t.json: added_tokens[0].lstrip: wrong type: got string \"no\", wanted boolean");
  CHECK(added(R"([{"id": 8, "content": "<x>"}])") ==
        "t.json: added_tokens[0]: id of \"<x>\" doesn't follow from the vocabulary: got 8, wanted "
        "6");
  CHECK(added(R"([{"id": 6, "content": "a"}])") ==
        "t.json: added_tokens[0]: id of \"a\" doesn't follow from the vocabulary: got 6, wanted 0");
  CHECK(added(R"([{"id": 6, "content": "<x>"}, {"id": 7, "content": "<x>"}])") ==
        "t.json: added_tokens[1]: token is given twice: got \"<x>\"");
  CHECK(added(R"({"id": 6})") == "t.json.added_tokens: wrong type: got object, wanted array");
}

TEST_CASE("a folder without a tokenizer is named") {
  const auto folder = fixture("tokenizers");
  std::string message;
  try {
    vlm::load_tokenizer(folder);
  } catch (const Error& error) {
    message = error.what();
  }
  CHECK(message == folder.string() +
                       ": no tokenizer found: wanted tokenizer.json, tokenizer.model, or "
                       "vocab.json with merges.txt");
}
