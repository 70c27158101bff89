// The cache that a pull leaves: its layout, after kills, wrong bytes, company and a full disk.
#include "vlm/io/hub_pull.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <set>
#include <thread>

#include "tests/support/catch.h"
#include "tests/support/environment_guard.h"
#include "tests/support/hub_server.h"
#include "tests/support/run_program.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/io/hub_cache.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

struct PullFixture {
  EnvironmentGuard environment;
  ScratchFolder scratch;
  HubServer server;
  std::atomic<int> waits = 0;
  Names told;
  fs::path cache = scratch.path() / "hub";
  fs::path repository = cache / "models--org--tiny";

  PullFixture() {
    server.files = tiny_model_files();
    ::setenv("HF_ENDPOINT", server.endpoint().c_str(), 1);
    ::setenv("HF_HUB_CACHE", cache.c_str(), 1);
    set_log_sink([this](LogLevel, const std::string& message) { told.push_back(message); });
  }
  ~PullFixture() { set_log_sink({}); }

  HubOptions options() {
    HubOptions options = hub_options();
    options.retry.sleep = [this](double) { ++waits; };
    return options;
  }
  fs::path pull(const std::string& model = "org/tiny") { return pull_model(model, options()); }

  const HubServerFile& weights() const { return server.files.at("model.safetensors"); }
  fs::path blob(const HubServerFile& file) const { return repository / "blobs" / hub_hash(file); }
  fs::path partial(const HubServerFile& file) const { return blob(file).string() + ".incomplete"; }
  fs::path snapshot() const { return repository / "snapshots" / server.commit; }

  // What an earlier run that was killed has left of the weights.
  void leave_partial(const std::string& bytes) const {
    fs::create_directories(repository / "blobs");
    std::ofstream(partial(weights()), std::ios::binary) << bytes;
  }
  // The ranges asked of the host with the contents.
  Names ranges() const {
    Names ranges;
    for (const HubRequest& request : server.requests()) {
      if (request.is("GET", "/cdn/")) ranges.push_back(request.range);
    }
    return ranges;
  }
  // Every file and link below the cache, with a link's target.
  Names tree() const {
    Names tree;
    for (const auto& item : fs::recursive_directory_iterator(cache)) {
      if (item.is_directory() && !item.is_symlink()) continue;
      std::string line = item.path().lexically_relative(cache).string();
      if (item.is_symlink()) line += " -> " + fs::read_symlink(item.path()).string();
      tree.push_back(line);
    }
    std::sort(tree.begin(), tree.end());
    return tree;
  }
};

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

TEST_CASE("wrong bytes are removed and nothing is linked") {
  PullFixture fixture;
  const std::string good = fixture.weights().content;
  std::string name = "model.safetensors", kind = "SHA-256 ";
  SECTION("of a large file") {}
  SECTION("of a small file") {
    name = "config.json";
    kind = "git blob ";
  }
  const std::string hash = hub_hash(fixture.server.files.at(name));
  fixture.server.hook = [&](const HubRequest& request) -> std::optional<HubReply> {
    const bool is_it = request.is("GET", "/cdn/" + hash) || request.is("GET", "resolve-cache/");
    if (!is_it || (name == "config.json") != request.is("GET", "config.json")) return std::nullopt;
    HubReply reply = fixture.server.answer(request);
    if (request.is("GET", "preprocessor_config.json")) return reply;
    reply.body[3] ^= 1;
    return reply;
  };
  CHECK_THROWS_WITH(fixture.pull(), concat("org/tiny/", name,
                                           ": the bytes are not those the hub has told; the file "
                                           "is removed: wanted ",
                                           kind, hash));
  CHECK_FALSE(fs::exists(fixture.repository / "blobs" / hash));
  CHECK_FALSE(fs::exists(fixture.repository / "blobs" / (hash + ".incomplete")));
  CHECK_FALSE(fs::exists(fixture.repository / "snapshots"));
  CHECK_FALSE(fs::exists(fixture.repository / "refs"));
  fixture.server.hook = {};
  CHECK(fixture.pull() == fixture.snapshot());
  CHECK(read_file(fixture.snapshot() / "model.safetensors") == good);
}

TEST_CASE("wrong sizes are noticed") {
  PullFixture fixture;
  HubServerFile& weights = fixture.server.files["model.safetensors"];
  SECTION("more bytes than told") {
    weights.told_size = "2999";
    CHECK_THROWS_WITH(
        fixture.pull(),
        "model.safetensors: the server sends more bytes than the hub has told: wanted "
        "2999 bytes");
    CHECK_FALSE(fs::exists(fixture.partial(weights)));
  }
  SECTION("fewer bytes than told") {
    weights.told_size = "3001";
    CHECK_THROWS_WITH(
        fixture.pull(),
        concat("org/tiny/model.safetensors: no whole answer from ", fixture.server.endpoint(),
               ": got only 0 of 3001 bytes (started again, a pull goes on where it "
               "stopped)"));
  }
  CHECK_FALSE(fs::exists(fixture.snapshot()));
}

TEST_CASE("a blob of the wrong size in the cache is replaced") {
  PullFixture fixture;
  fs::create_directories(fixture.repository / "blobs");
  std::ofstream(fixture.blob(fixture.weights())) << "torn";
  fixture.pull();
  CHECK(read_file(fixture.snapshot() / "model.safetensors") == fixture.weights().content);
}

TEST_CASE("no name that the server tells leads out of the cache") {
  for (const std::string& name :
       {std::string("../../../escaped.json"), std::string("/tmp/vlm_escaped.json"),
        std::string("..\\escaped.json"), std::string("x/../../escaped.json"),
        std::string("escaped.json\0", 13), std::string("additional_chat_templates/../x.jinja")}) {
    INFO(name);
    PullFixture fixture;
    fixture.server.more_names = {name};
    CHECK_THROWS_WITH(
        fixture.pull(),
        Contains("org/tiny@main: the hub names a file that is not let near the disk"));
    CHECK(fixture.scratch.names().empty());
  }
  PullFixture fixture;
  fixture.server.commit = "../../../../../escaped";
  fixture.server.revisions = {"main"};
  CHECK_THROWS_WITH(fixture.pull(), Contains("the listing names no commit"));
  CHECK(fixture.scratch.names().empty());
}

TEST_CASE("names from the command line don't lead out either, and reach no server") {
  PullFixture fixture;
  for (const std::string name : {"../x", "a/b/c", "tiny", "org/tiny@../x", "/org/tiny", "org\\tiny",
                                 "org/tiny@a b", "https://hub/org/tiny"}) {
    INFO(name);
    CHECK_THROWS_WITH(fixture.pull(name), name +
                                              ": not the name of a model on a hub: wanted "
                                              "org/name or org/name@revision");
  }
  CHECK(fixture.server.requests().empty());
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

TEST_CASE("a repository without safetensors is refused before anything is written") {
  PullFixture fixture;
  fixture.server.files.erase("model.safetensors");
  CHECK_THROWS_WITH(
      fixture.pull(),
      "org/tiny@main: no safetensors weights in the repository (pickled weights (.bin, "
      ".pt) are never fetched)");
  CHECK(fixture.scratch.names().empty());
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

TEST_CASE("a full disk is told, and the pull goes on when there is room") {
  PullFixture fixture;
  fixture.server.files = tiny_model_files(300'000);
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{.rlim_cur = 100'000, .rlim_max = before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const std::string file = fixture.partial(fixture.weights()).string();
  CHECK_THROWS_WITH(fixture.pull(), file +
                                        ": can't write the file: got File too large (with more "
                                        "room, the same command goes on where it stopped)");
  ::setrlimit(RLIMIT_FSIZE, &before);
  CHECK(fs::file_size(file) == 100'000);
  fixture.pull();
  CHECK(fixture.ranges() == Names{"", "bytes=100000-"});
  CHECK(read_file(fixture.snapshot() / "model.safetensors") == fixture.weights().content);
}

TEST_CASE("what can't fit is refused before the first byte") {
  PullFixture fixture;
  fixture.server.files["model.safetensors"].told_size = "9000000000000000000";
  CHECK_THROWS_WITH(fixture.pull(),
                    Contains(fixture.cache.string() + ": not enough room on the disk: got ") &&
                        Contains("wanted 9000000000000.0 MB (HF_HUB_CACHE"));
  CHECK(fixture.server.count("GET", "/cdn/") == 0);
}

TEST_CASE("a link in the place of a partial file is not written through") {
  PullFixture fixture;
  const std::string victim = fixture.scratch.write("victim", "precious");
  fs::create_directories(fixture.repository / "blobs");
  fs::create_symlink(victim, fixture.partial(fixture.weights()));
  CHECK_THROWS_WITH(fixture.pull(), Contains(".incomplete: can't write the file: got "));
  CHECK(read_file(victim) == "precious");
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
             " without tokenizer.json or tokenizer.model, model.safetensors "
             "(HF_HUB_OFFLINE is set; `vlm pull` completes it)"));
  ::setenv("HF_HUB_OFFLINE", "0", 1);
  CHECK(find_or_pull_model("org/tiny") == fixture.snapshot());
  CHECK(fixture.told.front() ==
        "the cached org/tiny lacks tokenizer.json or tokenizer.model, model.safetensors");
  CHECK(fixture.ranges() == Names{""});
  CHECK(fixture.server.count("GET", "resolve-cache/") == 0);  // the tokenizer's blob was there
  CHECK(missing_files(fixture.snapshot()).empty());
}

}  // namespace
}  // namespace vlm
