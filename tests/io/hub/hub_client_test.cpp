// Who sees the token, what is tried again, and what a hub's refusals become.
#include "vlm/io/hub/hub_client.h"

#include "tests/support/catch.h"
#include "tests/support/environment_guard.h"
#include "tests/support/hub/hub_server.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"

namespace vlm {
namespace {

using Names = std::vector<std::string>;

// A file in memory.
class StringSink : public HubSink {
 public:
  std::int64_t size() const override { return static_cast<std::int64_t>(text.size()); }
  void restart() override {
    text.clear();
    ++restarts;
  }
  void append(std::string_view bytes) override { text += bytes; }

  std::string text;
  int restarts = 0;
};

struct ClientFixture {
  EnvironmentGuard environment;
  HubServer server;
  std::vector<double> waits;
  HubName name{.org = "org", .name = "tiny"};

  ClientFixture() {
    server.files = tiny_model_files();
    set_log_sink([](LogLevel, const std::string&) {});
  }
  ~ClientFixture() { set_log_sink({}); }

  HubClient client(const std::string& token = "") {
    HubOptions options{.endpoint = server.endpoint(), .token = token};
    options.retry.sleep = [this](double seconds) { waits.push_back(seconds); };
    return HubClient(options);
  }
  HubFile weights() const {
    const HubServerFile& file = server.files.at("model.safetensors");
    return {.name = "model.safetensors",
            .hash = hub_hash(file),
            .bytes = static_cast<std::int64_t>(file.content.size())};
  }
  std::string content() const { return server.files.at("model.safetensors").content; }
};

TEST_CASE("a listing names the commit and the files") {
  ClientFixture fixture;
  const HubListing listing = fixture.client().list(fixture.name);
  CHECK(listing.commit == fixture.server.commit);
  Names wanted;
  for (const auto& [name, file] : fixture.server.files) wanted.push_back(name);
  CHECK(listing.files == wanted);
  fixture.name.revision = "refs/pr/1";
  CHECK(fixture.client().list(fixture.name).commit == fixture.server.commit);
  CHECK(fixture.server.requests().back().path == "/api/models/org/tiny/revision/refs%2Fpr%2F1");
}

TEST_CASE("size and hash come from the hub, for small files and for large ones") {
  ClientFixture fixture;
  HubClient client = fixture.client();
  const HubFile config = client.describe(fixture.name, fixture.server.commit, "config.json");
  CHECK(config.hash == hub_hash(fixture.server.files.at("config.json")));
  CHECK(config.bytes == 22);
  const HubFile weights = client.describe(fixture.name, fixture.server.commit, "model.safetensors");
  CHECK(weights.hash == fixture.weights().hash);
  CHECK(weights.bytes == 3000);
  CHECK(fixture.server.count("HEAD", "/cdn/") == 0);  // the redirect itself has told enough
  const HubFile tools = client.describe(fixture.name, fixture.server.commit,
                                        "additional_chat_templates/tool use.jinja");
  CHECK(tools.bytes == 11);
}

TEST_CASE("the token stays with the endpoint when a redirect leads to another host") {
  ClientFixture fixture;
  fixture.server.token = "hf_secret";
  HubClient client = fixture.client("hf_secret");
  StringSink sink;
  client.list(fixture.name);
  client.describe(fixture.name, fixture.server.commit, "config.json");
  client.fetch(fixture.name, fixture.server.commit, fixture.weights(), sink);
  CHECK(sink.text == fixture.content());
  int elsewhere = 0;
  for (const HubRequest& request : fixture.server.requests()) {
    INFO(request.path);
    const bool is_home = request.host.starts_with("127.0.0.1");
    CHECK(request.authorization == (is_home ? "Bearer hf_secret" : ""));
    elsewhere += is_home ? 0 : 1;
  }
  CHECK(elsewhere == 1);
}

TEST_CASE("a redirect back to the endpoint doesn't bring the token back") {
  ClientFixture fixture;
  HubServer& server = fixture.server;
  server.hook = [&](const HubRequest& request) -> std::optional<HubReply> {
    if (request.host.starts_with("localhost")) {
      return HubReply{.status = 302, .headers = {{"Location", server.endpoint() + "/back"}}};
    }
    if (request.is("GET", "/back")) return HubReply{.body = fixture.content()};
    return std::nullopt;
  };
  StringSink sink;
  fixture.client("hf_secret").fetch(fixture.name, server.commit, fixture.weights(), sink);
  CHECK(sink.text == fixture.content());
  const auto requests = server.requests();
  REQUIRE(requests.size() == 3);
  CHECK(requests[0].authorization == "Bearer hf_secret");
  CHECK(requests[1].authorization.empty());
  CHECK(requests[2].path == "/back");
  CHECK(requests[2].authorization.empty());
}

TEST_CASE("another port of the same machine is another host") {
  ClientFixture fixture;
  HubServer other;
  other.hook = [&](const HubRequest&) { return HubReply{.body = fixture.content()}; };
  fixture.server.hook = [&](const HubRequest&) {
    return HubReply{.status = 307, .headers = {{"Location", other.endpoint() + "/x"}}};
  };
  StringSink sink;
  fixture.client("hf_secret").fetch(fixture.name, fixture.server.commit, fixture.weights(), sink);
  REQUIRE(other.requests().size() == 1);
  CHECK(other.requests()[0].authorization.empty());
}

TEST_CASE("redirects without end or to other protocols are refused") {
  ClientFixture fixture;
  HubServer& server = fixture.server;
  std::string location = "/again?key=secret";
  server.hook = [&](const HubRequest&) {
    return HubReply{.status = 302, .headers = {{"Location", location}}};
  };
  CHECK_THROWS_WITH(fixture.client().list(fixture.name),
                    server.endpoint() + "/again: too many redirects: wanted at most 10");
  for (const char* address : {"file:///etc/passwd", "ftp://127.0.0.1/x"}) {
    location = address;
    CHECK_THROWS_WITH(fixture.client().list(fixture.name),
                      Contains(location + ": not an address that is followed"));
  }
}

TEST_CASE("https doesn't fall back to http") {
  const EnvironmentGuard guard;
  HubServer server(/*with_tls=*/true);
  server.hook = [](const HubRequest&) {
    return HubReply{.status = 302, .headers = {{"Location", "http://127.0.0.1:1/x?key=secret"}}};
  };
  const ScratchFolder scratch;
  ::setenv("SSL_CERT_FILE", scratch.write("store.pem", server.certificate()).c_str(), 1);
  const std::string address = server.endpoint().substr(std::string("https").size());
  for (const std::string scheme : {"https", "HTTPS"}) {
    HubClient client({.endpoint = scheme + address});
    CHECK_THROWS_WITH(client.list({.org = "org", .name = "tiny"}),
                      "http://127.0.0.1:1/x: a redirect from https to http is not followed");
  }
}

TEST_CASE("429 waits as long as the server asks, within a bound") {
  ClientFixture fixture;
  std::vector<HubReply> refusals = {{.status = 429, .headers = {{"Retry-After", "7"}}},
                                    {.status = 429, .headers = {{"RateLimit", "\"api\";r=0;t=55"}}},
                                    {.status = 429, .headers = {{"Retry-After", "86400"}}},
                                    {.status = 503}};
  fixture.server.hook = [&](const HubRequest&) -> std::optional<HubReply> {
    if (refusals.empty()) return std::nullopt;
    HubReply reply = refusals.front();
    refusals.erase(refusals.begin());
    return reply;
  };
  CHECK(fixture.client().list(fixture.name).commit == fixture.server.commit);
  CHECK(fixture.waits == std::vector<double>{7, 55, 300, 8});
}

TEST_CASE("a server that stays broken is given up, with growing waits") {
  ClientFixture fixture;
  fixture.server.hook = [](const HubRequest&) { return HubReply{.status = 502}; };
  const std::string wanted =
      concat("org/tiny@main: no whole answer from ", fixture.server.endpoint(),
             ": got HTTP 502 (started again, a pull goes on where it stopped)");
  CHECK_THROWS_WITH(fixture.client().list(fixture.name), wanted);
  CHECK(fixture.waits == std::vector<double>{1, 2, 4, 8, 16});
  CHECK(fixture.server.requests().size() == 6);
}

TEST_CASE("nobody there is told, too") {
  ClientFixture fixture;
  HubOptions options{.endpoint = "http://127.0.0.1:1"};
  options.retry = {.tries = 2, .sleep = [](double) {}};
  CHECK_THROWS_WITH(HubClient(options).list(fixture.name),
                    Contains("org/tiny@main: no whole answer from http://127.0.0.1:1: got ") &&
                        Contains("connect"));
}

TEST_CASE("a cut download goes on where it broke, as long as bytes come") {
  ClientFixture fixture;
  fixture.server.hook = [&](const HubRequest& request) -> std::optional<HubReply> {
    if (!request.is("GET", "/cdn/")) return std::nullopt;
    HubReply reply = fixture.server.answer(request);
    reply.cut_after = 300;  // ten pieces, more than there are tries
    return reply;
  };
  StringSink sink;
  fixture.client().fetch(fixture.name, fixture.server.commit, fixture.weights(), sink);
  CHECK(sink.text == fixture.content());
  CHECK(sink.restarts == 0);
  CHECK(fixture.waits == std::vector<double>(9, 1.0));
  Names ranges;
  for (const HubRequest& request : fixture.server.requests()) {
    if (request.is("GET", "/cdn/")) ranges.push_back(request.range);
  }
  Names wanted{""};
  for (int start = 300; start < 3000; start += 300) wanted.push_back(concat("bytes=", start, "-"));
  CHECK(ranges == wanted);
}

TEST_CASE("a server without ranges sends all again") {
  ClientFixture fixture;
  fixture.server.has_ranges = false;
  StringSink sink;
  sink.text = fixture.content().substr(0, 1000);
  fixture.client().fetch(fixture.name, fixture.server.commit, fixture.weights(), sink);
  CHECK(sink.text == fixture.content());
  CHECK(sink.restarts == 1);
}

TEST_CASE("a server that always breaks at the same place is given up") {
  ClientFixture fixture;
  fixture.server.has_ranges = false;
  fixture.server.hook = [&](const HubRequest& request) -> std::optional<HubReply> {
    if (!request.is("GET", "/cdn/")) return std::nullopt;
    HubReply reply = fixture.server.answer(request);
    reply.cut_after = 500;
    return reply;
  };
  StringSink sink;
  CHECK_THROWS_WITH(
      fixture.client().fetch(fixture.name, fixture.server.commit, fixture.weights(), sink),
      Contains("org/tiny/model.safetensors: no whole answer from "));
  CHECK(fixture.server.count("GET", "/cdn/") == 6);
}

TEST_CASE("a range that wasn't asked for is refused") {
  ClientFixture fixture;
  fixture.server.hook = [&](const HubRequest& request) -> std::optional<HubReply> {
    if (!request.is("GET", "/cdn/")) return std::nullopt;
    return HubReply{.status = 206,
                    .headers = {{"Content-Range", "bytes 0-2999/3000"}},
                    .body = fixture.content()};
  };
  StringSink sink;
  sink.text = fixture.content().substr(0, 1000);
  CHECK_THROWS_WITH(
      fixture.client().fetch(fixture.name, fixture.server.commit, fixture.weights(), sink),
      "model.safetensors: the server sends another range than the one asked for: got bytes "
      "0-2999/3000, wanted bytes 1000-");
}

TEST_CASE("a gated model and a missing one are told apart as far as the hub does") {
  ClientFixture fixture;
  fixture.server.token = "hf_right";
  const std::string gated =
      "org/tiny@main: the model is gated: its terms must be accepted on the hub first: got HTTP "
      "401: Access to model org/tiny is restricted. (";
  CHECK_THROWS_WITH(fixture.client().list(fixture.name),
                    gated + "set HF_TOKEN to a token of an account that may read it)");
  CHECK_THROWS_WITH(fixture.client("hf_wrong").list(fixture.name),
                    gated + "the token in HF_TOKEN, or of `hf auth login`, may not read it)");
  CHECK(fixture.server.requests().size() == 2);  // refusals aren't tried again
  CHECK_THROWS_WITH(
      fixture.client("hf_right").list({.org = "org", .name = "other"}),
      concat("org/other@main: no such model on ", fixture.server.endpoint(),
             ", or a private one: got HTTP 401: Invalid username or password. (the token in "
             "HF_TOKEN, or of `hf auth login`, may not read it)"));
}

TEST_CASE("403, unknown revisions and lost files have their own words") {
  ClientFixture fixture;
  CHECK_THROWS_WITH(
      fixture.client().list({.org = "org", .name = "tiny", .revision = "v9"}),
      "org/tiny@v9: no revision 'v9' on the hub: got HTTP 404: Invalid rev id: v9 (there are main, "
      "v1, refs/pr/1)");
  CHECK_THROWS_WITH(fixture.client().describe(fixture.name, fixture.server.commit, "none.json"),
                    "org/tiny/none.json: no such file on the hub: got HTTP 404: Entry not found");
  fixture.server.hook = [](const HubRequest&) {
    return HubReply{.status = 403, .headers = {{"X-Error-Message", "no\x1b[31m"}}};
  };
  CHECK_THROWS_WITH(
      fixture.client().list(fixture.name),
      "org/tiny@main: no access: got HTTP 403: no?[31m (set HF_TOKEN to a token of an "
      "account that may read it)");
  fixture.server.hook = [](const HubRequest&) { return HubReply{.status = 418}; };
  CHECK_THROWS_WITH(fixture.client().list(fixture.name),
                    concat("org/tiny@main: unexpected answer from ", fixture.server.endpoint(),
                           ": got HTTP 418"));
}

TEST_CASE("a listing that is none is refused") {
  ClientFixture fixture;
  std::string body;
  fixture.server.hook = [&](const HubRequest&) { return HubReply{.body = body}; };
  const std::string hint = " (is HF_ENDPOINT, or a proxy, a hub?)";
  const std::string sha = R"({"sha": ")" + std::string(40, 'a') + R"(", )";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"<html>Please log in</html>", "not valid JSON"},
      {std::string(300, '['), "JSON is nested too deeply"},
      {"[]", "the listing names no commit" + hint},
      {R"({"sha": "../../x", "siblings": []})", "the listing names no commit" + hint},
      {R"({"sha": "main", "siblings": []})", "the listing names no commit" + hint},
      {sha + R"("siblings": {}})", "the listing names no files" + hint},
      {sha + R"("siblings": ["a"]})", "the listing has a file without a name" + hint},
      {sha + R"("siblings": [{"rfilename": 1}]})", "the listing has a file without a name" + hint},
      {sha + R"("siblings": [{"rfilename": "../x"}]})",
       "org/tiny@main: the hub names a file that is not let near the disk: got '../x'"}};
  for (const auto& [text, wanted] : cases) {
    INFO(text);
    body = text;
    CHECK_THROWS_WITH(fixture.client().list(fixture.name), Contains(wanted));
  }
}

TEST_CASE("a description that can't be verified is refused") {
  ClientFixture fixture;
  HubServerFile& config = fixture.server.files["config.json"];
  config.is_lfs = true;
  const std::string& commit = fixture.server.commit;
  const auto describe = [&] { fixture.client().describe(fixture.name, commit, "config.json"); };
  for (const char* hash : {"../../x", "abc", "ABCDEF", ""}) {
    config.told_hash = concat(hash, ".");
    CHECK_THROWS_WITH(describe(),
                      concat("org/tiny/config.json: the hub tells no hash that can be verified: "
                             "got '",
                             hash,
                             ".', wanted 40 or 64 hex digits (is HF_ENDPOINT, or a "
                             "proxy, a hub?)"));
  }
  config.told_hash = "";
  for (const char* size : {"-1", "1e3", "x", "99999999999999999999", "0x10"}) {
    config.told_size = size;
    INFO(size);
    CHECK_THROWS_WITH(describe(), "org/tiny/config.json: the hub tells no size");
  }
  config.told_size = "268435457";
  CHECK_THROWS_WITH(describe(),
                    "org/tiny/config.json: text file is too large: got 268435457 bytes, wanted at "
                    "most 268435456");
  config.told_size = "";
  fixture.server.hook = [&](const HubRequest& request) -> std::optional<HubReply> {
    HubReply reply = fixture.server.answer(request);
    for (auto& [name, value] : reply.headers) {
      if (name == "X-Repo-Commit") value = "other";
    }
    return reply;
  };
  CHECK_THROWS_WITH(describe(), Contains("org/tiny/config.json: the answer is not of the wanted "
                                         "commit: got other, wanted cccc"));
}

}  // namespace
}  // namespace vlm
