// Which names of a repository are let near the disk, and which of its files are fetched.
#include "vlm/io/hub/hub_files.h"

#include "tests/support/catch.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

using Names = std::vector<std::string>;

TEST_CASE("plain relative names pass") {
  for (const std::string name : {"a", "config.json", "a/b/c.txt", "tool use.jinja", "..a", "a..",
                                 "naïve.json", ".gitattributes"}) {
    INFO(name);
    CHECK_NOTHROW(check_file_name(name, "org/x"));
  }
}

TEST_CASE("names that could leave the folder are refused") {
  for (const std::string& name :
       {std::string("../x.json"), std::string("a/../../x.json"), std::string("/etc/x.json"),
        std::string(".."), std::string("."), std::string("a/./b"), std::string("a//b"),
        std::string("a/"), std::string(""), std::string("..\\x.json"), std::string("C:\\x.json"),
        std::string("a\0.json", 7), std::string("a\n.json"), std::string("\x1b[2J.json"),
        std::string("\xc2\x9b"
                    "2J.json"),
        std::string(256, 'x'), std::string(600, 'x') + "/" + std::string(600, 'x')}) {
    INFO(name);
    CHECK_THROWS_WITH(check_file_name(name, "org/x"),
                      Contains("org/x: the hub names a file that is not let near the disk: got '"));
  }
  CHECK_THROWS_WITH(check_file_name("../\x1b.json", "org/x"),
                    "org/x: the hub names a file that is not let near the disk: got '../?.json', "
                    "wanted a relative path without '..'");
}

TEST_CASE("JSON and text of a checkpoint are fetched, code, pickles and exports are not") {
  for (const std::string name :
       {"config.json", "merges.txt", "chat_template.jinja", "README.md", "LICENSE",
        "tokenizer.model", "additional_chat_templates/rag.jinja"}) {
    INFO(name);
    CHECK(is_text_file(name));
  }
  for (const std::string name :
       {"pytorch_model.bin", "model.pt", "modeling.py", "onnx/config.json", "word2vec.model",
        "model.safetensors", "additional_chat_templates/x/y.jinja",
        "additional_chat_templates/x.py", ".gitattributes", "json"}) {
    INFO(name);
    CHECK_FALSE(is_text_file(name));
  }
  CHECK(is_needed_file("config.json"));
  CHECK_FALSE(is_needed_file("README.md"));
  CHECK_FALSE(is_needed_file("LICENSE"));
}

TEST_CASE("one file of weights, else an index, else all at the top") {
  const std::string index = "model.safetensors.index.json";
  CHECK(weight_files({"consolidated.safetensors", "model.safetensors", index}) ==
        Names{"model.safetensors"});
  CHECK(weight_files({"model-00001-of-00001.safetensors", index}).empty());
  CHECK(weight_files({"adapter_model.safetensors", "x/model.safetensors", "a.bin"}) ==
        Names{"adapter_model.safetensors"});
  CHECK(weight_files({"a.bin", "config.json"}).empty());
}

TEST_CASE("an index names its shards once each, and nothing else") {
  CHECK(shard_names(R"({"weight_map": {"x": "b.safetensors", "y": "a.safetensors",
                        "z": "b.safetensors"}})",
                    "i") == Names{"a.safetensors", "b.safetensors"});
  CHECK_THROWS_WITH(shard_names("[]", "i"), "i: no weight_map: wanted an object");
  CHECK_THROWS_WITH(shard_names(R"({"weight_map": 1})", "i"), "i: no weight_map: wanted an object");
  for (const std::string shard :
       {R"("../a.safetensors")", R"("x/a.safetensors")", R"("a.bin")", R"("a\u0000.safetensors")",
        R"("\\a.safetensors")", "1", "null", R"("")"}) {
    INFO(shard);
    CHECK_THROWS_WITH(shard_names(R"({"weight_map": {"key": )" + shard + "}}", "i"),
                      Contains("i: key: not a shard of this folder: got "));
  }
}

}  // namespace
}  // namespace vlm
