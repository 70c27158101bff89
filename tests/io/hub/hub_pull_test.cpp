// The cache that a pull leaves: its layout, what is fetched of it, after kills and in company.
#include "vlm/io/hub/hub_pull.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <set>
#include <thread>

#include "tests/io/hub/pull_fixture.h"
#include "tests/support/catch.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/io/hub/hub_cache.h"

namespace vlm {
namespace {

const Names kFetched = {"README.md",
                        "additional_chat_templates/tool use.jinja",
                        "chat_template.jinja",
                        "config.json",
                        "empty.txt",
                        "model.safetensors",
                        "preprocessor_config.json",
                        "tokenizer.json"};

TEST_CASE("a pull leaves the Hugging Face cache's layout, without pickles, code and exports") {
  PullFixture fixture;
  CHECK(fixture.pull() == fixture.snapshot());
  Names wanted = {"CACHEDIR.TAG", "models--org--tiny/refs/main"};
  std::set<std::string> hashes;
  for (const std::string& name : kFetched) {
    const HubServerFile& file = fixture.server.files.at(name);
    const std::string up = name.find('/') == std::string::npos ? "../../" : "../../../";
    wanted.push_back(concat("models--org--tiny/snapshots/", fixture.server.commit, "/", name,
                            " -> ", up, "blobs/", hub_hash(file)));
    CHECK(read_file(fixture.snapshot() / name) == file.content);
    hashes.insert(hub_hash(file));
  }
  for (const std::string& hash : hashes) {  // each content once
    wanted.push_back("models--org--tiny/blobs/" + hash);
    wanted.push_back(".locks/models--org--tiny/" + hash + ".lock");
  }
  std::sort(wanted.begin(), wanted.end());
  CHECK(fixture.tree() == wanted);
  CHECK(read_file(fixture.repository / "refs/main") == fixture.server.commit);
  CHECK(resolve_model("org/tiny") == fixture.snapshot());
  CHECK(missing_files(fixture.snapshot()).empty());
}

TEST_CASE("a second pull asks for the commit and fetches nothing") {
  PullFixture fixture;
  fixture.pull();
  fixture.server.forget_requests();
  CHECK(fixture.pull() == fixture.snapshot());
  CHECK(fixture.server.requests().size() == 1);
  fixture.server.forget_requests();
  CHECK(fixture.pull("org/tiny@refs/pr/1") == fixture.snapshot());
  CHECK(read_file(fixture.repository / "refs/refs/pr/1") == fixture.server.commit);
  CHECK(fixture.server.requests().size() == 1);
}

TEST_CASE("a commit is no ref") {
  PullFixture fixture;
  CHECK(fixture.pull("org/tiny@" + fixture.server.commit) == fixture.snapshot());
  CHECK_FALSE(fs::exists(fixture.repository / "refs"));
}

TEST_CASE("a new commit shares what hasn't changed with the old one") {
  PullFixture fixture;
  fixture.pull();
  fixture.server.commit = std::string(40, 'd');
  fixture.server.files["config.json"].content = "{\"new\": 1}";
  fixture.server.forget_requests();
  CHECK(fixture.pull() == fixture.snapshot());
  CHECK(fixture.server.count("GET", "resolve") == 2);  // the config, with its redirect
  CHECK(read_file(fixture.snapshot() / "config.json") == "{\"new\": 1}");
  CHECK(read_file(fixture.repository / "snapshots" / std::string(40, 'c') / "config.json") ==
        "{\"model_type\": \"tiny\"}");
  CHECK(read_file(fixture.repository / "refs/main") == fixture.server.commit);
}

TEST_CASE("what an earlier run has left is gone on with") {
  PullFixture fixture;
  const std::string content = fixture.weights().content;
  fixture.leave_partial(content.substr(0, 1234));
  fixture.pull();
  CHECK(fixture.ranges() == Names{"bytes=1234-"});
  CHECK(read_file(fixture.snapshot() / "model.safetensors") == content);
  CHECK_FALSE(fs::exists(fixture.partial(fixture.weights())));
}

TEST_CASE("a partial file that is whole needs its check and no bytes") {
  PullFixture fixture;
  fixture.leave_partial(fixture.weights().content);
  fixture.pull();
  CHECK(fixture.ranges().empty());
  CHECK(read_file(fixture.snapshot() / "model.safetensors") == fixture.weights().content);
}

TEST_CASE("a damaged or overlong partial file is fetched anew") {
  PullFixture fixture;
  fixture.leave_partial("damaged");
  fixture.pull();
  CHECK(fixture.ranges() == Names{"bytes=7-", ""});
  CHECK(read_file(fixture.snapshot() / "model.safetensors") == fixture.weights().content);

  fs::remove_all(fixture.cache);
  fixture.server.forget_requests();
  fixture.leave_partial(fixture.weights().content + "x");
  fixture.pull();
  CHECK(fixture.ranges() == Names{""});
  CHECK(read_file(fixture.snapshot() / "model.safetensors") == fixture.weights().content);
}

TEST_CASE("a server that ignores ranges doesn't spoil a resumed file") {
  PullFixture fixture;
  fixture.server.has_ranges = false;
  fixture.leave_partial(fixture.weights().content.substr(0, 2000));
  fixture.pull();
  CHECK(fixture.ranges() == Names{"bytes=2000-"});
  CHECK(read_file(fixture.snapshot() / "model.safetensors") == fixture.weights().content);
}

TEST_CASE("a cut connection is taken up again within one pull") {
  PullFixture fixture;
  bool is_cut = false;
  fixture.server.hook = [&](const HubRequest& request) -> std::optional<HubReply> {
    if (is_cut || !request.is("GET", "/cdn/")) return std::nullopt;
    is_cut = true;
    HubReply reply = fixture.server.answer(request);
    reply.cut_after = 1000;
    return reply;
  };
  fixture.pull();
  CHECK(fixture.ranges() == Names{"", "bytes=1000-"});
  CHECK(fixture.waits == 1);
  CHECK(read_file(fixture.snapshot() / "model.safetensors") == fixture.weights().content);
}

TEST_CASE("of a sharded model the named shards are fetched and no others") {
  PullFixture fixture;
  auto& files = fixture.server.files;
  files.erase("model.safetensors");
  files["model-00001-of-00002.safetensors"] = {"first", true};
  files["model-00002-of-00002.safetensors"] = {"second", true};
  files["consolidated.safetensors"] = {"again", true};
  HubServerFile& index = files["model.safetensors.index.json"];
  SECTION("whole") {
    index.content = R"({"weight_map": {"a": "model-00001-of-00002.safetensors",
                        "b": "model-00002-of-00002.safetensors"}})";
    fixture.pull();
    CHECK(read_file(fixture.snapshot() / "model-00001-of-00002.safetensors") == "first");
    CHECK(read_file(fixture.snapshot() / "model-00002-of-00002.safetensors") == "second");
    CHECK_FALSE(fs::exists(fixture.snapshot() / "consolidated.safetensors"));
    CHECK(fs::exists(fixture.snapshot() / "model.safetensors.index.json"));
    CHECK(missing_files(fixture.snapshot()).empty());
  }
  SECTION("with a shard that isn't there") {
    index.content = R"({"weight_map": {"a": "lost.safetensors"}})";
    CHECK_THROWS_WITH(fixture.pull(),
                      "org/tiny/model.safetensors.index.json: the index names a shard that the "
                      "repository lacks: got lost.safetensors");
    CHECK_FALSE(fs::exists(fixture.snapshot()));
  }
}

TEST_CASE("several pulls of one model at once fetch each content once") {
  PullFixture fixture;
  fixture.server.files = tiny_model_files(300'000);
  constexpr int kPulls = 4;
  std::vector<std::thread> threads;
  std::atomic<int> done = 0;
  for (int i = 0; i < kPulls; ++i) {
    threads.emplace_back([&, options = fixture.options()] {
      if (pull_model("org/tiny", options) == fixture.snapshot()) ++done;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(done == kPulls);
  CHECK(fixture.server.count("GET", "/cdn/") == 1);
  CHECK(fixture.server.count("GET", "resolve-cache/") == 6);  // empty.txt needs no request
  CHECK(read_file(fixture.snapshot() / "model.safetensors") == fixture.weights().content);
}

TEST_CASE("the lock of another process is waited for") {
  PullFixture fixture;
  const fs::path lock =
      fixture.cache / ".locks/models--org--tiny" / (hub_hash(fixture.weights()) + ".lock");
  fs::create_directories(lock.parent_path());
  const int held = ::open(lock.c_str(), O_RDWR | O_CREAT, 0600);
  REQUIRE(::flock(held, LOCK_EX) == 0);
  std::thread pull([&, options = fixture.options()] { pull_model("org/tiny", options); });
  while (fixture.server.count("HEAD", "tokenizer.json") == 0) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(fixture.server.count("GET", "/cdn/") == 0);
  ::close(held);
  pull.join();
  CHECK(fixture.server.count("GET", "/cdn/") == 1);
}

TEST_CASE("offline nothing is pulled") {
  PullFixture fixture;
  ::setenv("HF_HUB_OFFLINE", "1", 1);
  CHECK_THROWS_WITH(fixture.pull(),
                    "org/tiny: nothing is pulled offline (HF_HUB_OFFLINE or "
                    "TRANSFORMERS_OFFLINE is set)");
  CHECK_THROWS_WITH(find_or_pull_model("org/tiny"),
                    "org/tiny: no such model: got neither a folder nor " +
                        fixture.repository.string() + " (HF_HUB_CACHE and HF_HOME name the cache)");
  CHECK(fixture.server.requests().empty());
}

TEST_CASE("a name is found in the cache, or pulled") {
  PullFixture fixture;
  CHECK(find_or_pull_model("org/tiny") == fixture.snapshot());
  CHECK(fixture.told.front() ==
        "no folder org/tiny, and not in the cache: asking " + fixture.server.endpoint());
  fixture.server.forget_requests();
  CHECK(find_or_pull_model("org/tiny") == fixture.snapshot());
  CHECK(find_or_pull_model(fixture.snapshot()) == fixture.snapshot());
  ::setenv("HF_HUB_OFFLINE", "1", 1);
  CHECK(find_or_pull_model("org/tiny@main") == fixture.snapshot());
  CHECK(fixture.server.requests().empty());
  CHECK_THROWS_WITH(find_or_pull_model("no such/thing"), "no such/thing: no such model folder");
}

TEST_CASE("a snapshot that isn't whole is completed, not loaded") {
  PullFixture fixture;
  fixture.pull();
  fs::remove(fixture.snapshot() / "tokenizer.json");
  fs::remove(fixture.blob(fixture.weights()));
  fixture.server.forget_requests();
  fixture.told.clear();

  ::setenv("HF_HUB_OFFLINE", "1", 1);
  CHECK_THROWS_WITH(
      find_or_pull_model("org/tiny"),
      concat("org/tiny: the model in the cache is not whole: got ", fixture.snapshot().string(),
             " without tokenizer.json or tokenizer.model or merges.txt, model.safetensors "
             "(HF_HUB_OFFLINE is set; `vlm pull` completes it)"));
  ::setenv("HF_HUB_OFFLINE", "0", 1);
  CHECK(find_or_pull_model("org/tiny") == fixture.snapshot());
  CHECK(fixture.told.front() ==
        "the cached org/tiny lacks tokenizer.json or tokenizer.model or merges.txt, "
        "model.safetensors");
  CHECK(fixture.ranges() == Names{""});
  CHECK(fixture.server.count("GET", "resolve-cache/") == 0);  // the tokenizer's blob was there
  CHECK(missing_files(fixture.snapshot()).empty());
}

}  // namespace
}  // namespace vlm
