// Which folder of the local Hugging Face cache a model's name leads to.
#include "vlm/io/hub/hub_cache.h"

#include <stdlib.h>

#include "tests/support/catch.h"
#include "tests/support/environment_guard.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

// A cache with org/name at two commits; main, a tag and a pull request point to them.
struct CacheFixture {
  EnvironmentGuard environment;
  ScratchFolder scratch;
  fs::path repository = scratch.path() / "hub/models--org--na.me_1";

  CacheFixture() {
    ::setenv("HF_HUB_CACHE", scratch.at("hub").c_str(), 1);
    for (const char* commit : {"c0ffee", "beef"}) {
      fs::create_directories(repository / "snapshots" / commit);
    }
    const std::string refs = "hub/models--org--na.me_1/refs/";
    scratch.write(refs + "main", "c0ffee");
    scratch.write(refs + "v1", "beef\n");
    scratch.write(refs + "refs/pr/1", "beef");
    scratch.write(refs + "gone", "deadbeef");
    scratch.write(refs + "away", "../../../secret");
    fs::create_directories(scratch.path() / "hub/secret");
    scratch.write("outside", "beef");
  }

  std::string snapshot(const std::string& commit) const {
    return (repository / "snapshots" / commit).string();
  }
};

TEST_CASE("the environment names the cache, the most particular variable first") {
  const EnvironmentGuard guard;
  ::setenv("HOME", "/home/me", 1);
  CHECK(hub_cache_folder() == "/home/me/.cache/huggingface/hub");
  ::setenv("XDG_CACHE_HOME", "/xdg", 1);
  CHECK(hub_cache_folder() == "/xdg/huggingface/hub");
  ::setenv("HF_HOME", "/hf", 1);
  CHECK(hub_cache_folder() == "/hf/hub");
  ::setenv("HUGGINGFACE_HUB_CACHE", "/old", 1);
  CHECK(hub_cache_folder() == "/old");
  ::unsetenv("HUGGINGFACE_HUB_CACHE");
  ::setenv("HF_HUB_CACHE", "~/cache", 1);
  CHECK(hub_cache_folder() == "/home/me/cache");
  ::setenv("HF_HUB_CACHE", "/cache", 1);
  CHECK(hub_cache_folder() == "/cache");
  ::setenv("HF_HUB_CACHE", "", 1);  // empty is unset
  CHECK(hub_cache_folder() == "/hf/hub");
}

TEST_CASE("a folder is itself, a file is no model") {
  const CacheFixture cache;
  CHECK(resolve_model(cache.scratch.path()) == cache.scratch.path());
  const std::string file = cache.scratch.at("outside");
  CHECK_THROWS_WITH(resolve_model(file), file + ": a model is a folder, this is a file");
  CHECK_THROWS_WITH(resolve_model("/no/such/folder"), "/no/such/folder: no such model folder");
  CHECK_THROWS_WITH(resolve_model("name"), "name: no such model folder");
  CHECK_THROWS_WITH(resolve_model(""), "no such model folder");
}

TEST_CASE("a name leads to the snapshot of main, of a ref or of a commit") {
  const CacheFixture cache;
  CHECK(resolve_model("org/na.me_1") == cache.snapshot("c0ffee"));
  CHECK(resolve_model("org/na.me_1@main") == cache.snapshot("c0ffee"));
  CHECK(resolve_model("org/na.me_1@v1") == cache.snapshot("beef"));
  CHECK(resolve_model("org/na.me_1@refs/pr/1") == cache.snapshot("beef"));
  CHECK(resolve_model("org/na.me_1@beef") == cache.snapshot("beef"));
}

TEST_CASE("what the cache lacks is named with the place looked at") {
  const CacheFixture cache;
  const std::string place = cache.scratch.at("hub/models--org--other");
  CHECK_THROWS_WITH(resolve_model("org/other"),
                    "org/other: no such model: got neither a folder nor " + place +
                        " (HF_HUB_CACHE and HF_HOME name the cache)");
  CHECK_THROWS_WITH(
      resolve_model("org/na.me_1@v2"),
      "org/na.me_1@v2: revision 'v2' is not in the cache: got no folder " + cache.snapshot("v2"));
  CHECK_THROWS_WITH(resolve_model("org/na.me_1@gone"),
                    "org/na.me_1@gone: revision 'gone' is not in the cache: got no folder " +
                        cache.snapshot("deadbeef"));
}

TEST_CASE("no name or ref leads out of the cache") {
  const CacheFixture cache;
  for (const std::string name : {"../x/y",
                                 "a/../b",
                                 "../x",
                                 "x/..",
                                 ".x/y",
                                 "x/.y",
                                 "-x/y",
                                 "a//b",
                                 "a/b/c",
                                 "a b/c",
                                 "org/",
                                 "/org",
                                 "a--b/c",
                                 "a/b--c",
                                 "a..b/c",
                                 "org/na.me_1@",
                                 "org/na.me_1@../../x",
                                 "org/na.me_1@v1/../main",
                                 "org/na.me_1@a//b",
                                 "org/na.me_1@.x",
                                 "org/na.me_1@a/.x",
                                 "org/na.me_1@a\\b",
                                 "org/na.me_1@a b",
                                 "org/na.me_1@a\nb",
                                 "org/na.me_1@a/"}) {
    INFO(name);
    CHECK_THROWS_WITH(resolve_model(name), name + ": no such model folder");
  }
  const std::string absolute = "org/na.me_1@" + cache.scratch.at("outside");
  CHECK_THROWS_WITH(resolve_model(absolute), absolute + ": no such model folder");
  CHECK_THROWS_WITH(resolve_model("org/na.me_1@away"),
                    Contains("revision 'away' is not in the cache"));
}

TEST_CASE("an empty byte in a name is no end of it") {
  CHECK_FALSE(parse_hub_name(std::string("org/name\0/../x", 14)));
  CHECK_FALSE(parse_hub_name(std::string("org/name@v1\0", 12)));
}

// A snapshot with everything that missing_files wants, but what a test leaves out.
class SnapshotFixture {
 public:
  SnapshotFixture() {
    add("config.json", R"({"vision_config": {}})");
    for (const char* file : {"tokenizer.json", "preprocessor_config.json", "model.safetensors"}) {
      add(file);
    }
  }
  void add(const std::string& file, const std::string& text = "{}") const {
    scratch.write("snapshots/beef/" + file, text);
  }
  void remove(const std::string& file) const { fs::remove(folder() / file); }
  fs::path folder() const { return scratch.path() / "snapshots/beef"; }
  std::vector<std::string> missing() const { return missing_files(folder()); }

  ScratchFolder scratch;
};

using Names = std::vector<std::string>;

TEST_CASE("a snapshot is whole when a checkpoint can be loaded from it") {
  const SnapshotFixture snapshot;
  CHECK(snapshot.missing().empty());
  snapshot.remove("tokenizer.json");
  snapshot.remove("preprocessor_config.json");
  CHECK(snapshot.missing() == Names{"tokenizer.json or tokenizer.model or merges.txt",
                                    "preprocessor_config.json or processor_config.json"});
  snapshot.add("tokenizer.model");
  snapshot.add("processor_config.json");
  CHECK(snapshot.missing().empty());
  snapshot.remove("config.json");
  snapshot.remove("model.safetensors");
  CHECK(snapshot.missing() == Names{"config.json", "model.safetensors"});
}

TEST_CASE("a text model needs no preprocessor") {
  const SnapshotFixture snapshot;
  snapshot.remove("preprocessor_config.json");
  snapshot.add("config.json", R"({"model_type": "llama"})");
  CHECK(snapshot.missing().empty());
  snapshot.add("config.json", "{torn");
  CHECK(snapshot.missing() == Names{"preprocessor_config.json or processor_config.json"});
}

TEST_CASE("a link to a blob that isn't there is no file") {
  const SnapshotFixture snapshot;
  snapshot.remove("model.safetensors");
  fs::create_symlink("../../blobs/none", snapshot.folder() / "model.safetensors");
  CHECK(snapshot.missing() == Names{"model.safetensors"});
}

TEST_CASE("with an index every shard is wanted") {
  const SnapshotFixture snapshot;
  snapshot.remove("model.safetensors");
  snapshot.add(
      "model.safetensors.index.json",
      R"({"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}})");
  CHECK(snapshot.missing() == Names{"1.safetensors", "2.safetensors"});
  snapshot.add("2.safetensors");
  CHECK(snapshot.missing() == Names{"1.safetensors"});
  snapshot.add("1.safetensors");
  CHECK(snapshot.missing().empty());
  snapshot.add("model.safetensors.index.json", R"({"weight_map": {"a": "../1.safetensors"}})");
  CHECK_THROWS_WITH(snapshot.missing(),
                    (snapshot.folder() / "model.safetensors.index.json").string() +
                        ": a: not a shard of this folder: got string \"../1.safetensors\"");
}

TEST_CASE("what the Python client has listed is wanted, but for card, licence and other formats") {
  const SnapshotFixture snapshot;
  snapshot.scratch.write("trees/beef.json", R"({"format_version": 1, "files": {
    "config.json": {"size": 2}, "chat_template.jinja": {"size": 2}, "README.md": {"size": 2},
    "LICENSE.txt": {"size": 1}, "pytorch_model.bin": {"size": 2}, "onnx/config.json": {}}})");
  CHECK(snapshot.missing() == Names{"chat_template.jinja"});
  snapshot.add("chat_template.jinja");
  CHECK(snapshot.missing().empty());
  snapshot.scratch.write("trees/beef.json", "{torn");
  CHECK(snapshot.missing().empty());
}

}  // namespace
}  // namespace vlm
