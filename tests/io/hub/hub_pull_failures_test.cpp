// What a pull makes of wrong bytes, hostile names and a full disk.
#include <sys/resource.h>

#include <csignal>

#include "tests/io/hub/pull_fixture.h"
#include "tests/support/catch.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/io/hub/hub_pull.h"

namespace vlm {
namespace {

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

TEST_CASE("a repository without safetensors is refused before anything is written") {
  PullFixture fixture;
  fixture.server.files.erase("model.safetensors");
  CHECK_THROWS_WITH(
      fixture.pull(),
      "org/tiny@main: no safetensors weights in the repository (pickled weights (.bin, "
      ".pt) are never fetched)");
  CHECK(fixture.scratch.names().empty());
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

}  // namespace
}  // namespace vlm
