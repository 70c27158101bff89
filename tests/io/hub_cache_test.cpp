// Which folder of the local Hugging Face cache a model's name leads to.
#include "vlm/io/hub_cache.h"

#include <stdlib.h>

#include <optional>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

// Environment variables as they were, once the test is over.
class EnvironmentGuard {
 public:
  EnvironmentGuard() {
    for (const char* name : kNames) {
      const char* value = ::getenv(name);
      before_.push_back(value ? std::optional<std::string>(value) : std::nullopt);
      ::unsetenv(name);
    }
  }
  ~EnvironmentGuard() {
    for (std::size_t i = 0; i < before_.size(); ++i) {
      before_[i] ? ::setenv(kNames[i], before_[i]->c_str(), 1) : ::unsetenv(kNames[i]);
    }
  }

 private:
  static constexpr const char* kNames[] = {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"};
  std::vector<std::optional<std::string>> before_;
};

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
  for (const std::string name :
       {"../x/y", "a/../b", "../x", "x/..", ".x/y", "x/.y", "-x/y", "a//b", "a/b/c", "a b/c",
        "org/", "/org", "org/na.me_1@", "org/na.me_1@../../x", "org/na.me_1@v1/../main"}) {
    INFO(name);
    CHECK_THROWS_WITH(resolve_model(name), name + ": no such model folder");
  }
  const std::string absolute = "org/na.me_1@" + cache.scratch.at("outside");
  CHECK_THROWS_WITH(resolve_model(absolute), absolute + ": no such model folder");
  CHECK_THROWS_WITH(resolve_model("org/na.me_1@away"),
                    Contains("revision 'away' is not in the cache"));
}

}  // namespace
}  // namespace vlm
