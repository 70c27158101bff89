// `vlm serve` as a program: the model of the tree by default, answers, keys, signals, a Unix
// socket.
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/child_process.h"
#include "tests/support/free_port.h"
#include "tests/support/raw_client.h"
#include "tests/support/run_program.h"
#include "tests/support/scratch_folder.h"

namespace {

using nlohmann::json;

const std::string kSource = VLM_SOURCE_DIR;

// A server until the end of the block.
class ServeProcess {
 public:
  explicit ServeProcess(const std::vector<std::string>& options,
                        const std::map<std::string, std::string>& variables = {},
                        const std::string& port = "0")
      : child_(arguments(options, port), log_.path() / "log", variables) {}

  // The port, once the model is there.
  int port() {
    const std::string text = wait_for("serving ");
    const auto at = text.find("http://127.0.0.1:");
    return at == std::string::npos ? 0 : std::stoi(text.substr(at + 17));
  }
  std::string wait_for(const std::string& text) {
    for (int i = 0; i < 3000; ++i) {
      const std::string so_far = log();
      if (so_far.find(text) != std::string::npos || child_.is_done()) return log();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return log();
  }
  std::string log() const { return read_file(log_.path() / "log"); }
  ChildProcess& child() { return child_; }

 private:
  static std::vector<std::string> arguments(const std::vector<std::string>& options,
                                            const std::string& port) {
    std::vector<std::string> all = {"serve", "--device", "cpu", "--threads", "1", "--port", port};
    all.insert(all.end(), options.begin(), options.end());
    return all;
  }

  ScratchFolder log_;
  ChildProcess child_;
};

std::string ask(int port, const json& body, const std::string& headers = "") {
  RawClient client(port);
  client.send(post_request("/v1/chat/completions", body.dump(), headers));
  return client.read_response();
}

json body_asking(const std::string& text, const json& fields = json::object()) {
  json body = {{"messages", json::array({{{"role", "user"}, {"content", text}}})}};
  body.update(fields);
  return body;
}

TEST_CASE("serve: without a model it is the tree's, and Ctrl-C ends it with 0") {
  ServeProcess server({});
  const int port = server.port();
  INFO(server.log());
  REQUIRE(port > 0);
  const std::string response = ask(port, body_asking("hello", {{"max_tokens", 4}}));
  REQUIRE(status_of(response) == 200);
  const json reply = json::parse(body_of(response));
  CHECK(reply["model"] == "easy-vqa-emoji");
  const auto wanted = run_vlm(
      "generate --model models/easy-vqa-emoji --device cpu --threads 1 "
      "--max-new-tokens 4 --prompt hello");
  CHECK(reply["choices"][0]["message"]["content"].get<std::string>() + "\n" == wanted.out);
  server.child().kill(SIGINT);
  CHECK(server.child().wait() == 0);
  CHECK(server.log().find(" POST /v1/chat/completions 200 ") != std::string::npos);
}

TEST_CASE("serve: SIGTERM ends an open stream with an error and the program with 0") {
  ServeProcess server({"--shutdown-timeout", "0.3"});
  const int port = server.port();
  RawClient client(port);
  client.send(
      post_request("/v1/chat/completions",
                   body_asking("hello", {{"min_tokens", 100000}, {"stream", true}}).dump()));
  client.read_until("data: ");
  server.child().kill(SIGTERM);
  const std::string all = client.read_all();
  CHECK(all.find("\"code\":\"shutting_down\"") != std::string::npos);
  CHECK(all.find("data: [DONE]\n\n") != std::string::npos);
  CHECK(server.child().wait() == 0);
}

TEST_CASE("serve: a second signal ends it at once") {
  ServeProcess server({"--shutdown-timeout", "600"});
  RawClient client(server.port());
  client.send(
      post_request("/v1/chat/completions",
                   body_asking("hello", {{"min_tokens", 100000}, {"stream", true}}).dump()));
  client.read_until("data: ");
  server.child().kill(SIGTERM);
  server.wait_for("shutting down");
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  server.child().kill(SIGTERM);
  CHECK(server.child().wait() == 128 + SIGTERM);
}

TEST_CASE("serve: keys from a file and a variable, JSON lines in the log") {
  const ScratchFolder scratch;
  const auto keys = scratch.path() / "keys";
  std::ofstream(keys) << "from-file\n";
  std::filesystem::permissions(keys, std::filesystem::perms(0600));
  ServeProcess server({"--api-key-file", keys.string(), "--log-format", "json"},
                      {{"VLM_API_KEY", "from-variable"}});
  const int port = server.port();
  const json body = body_asking("hello", {{"max_tokens", 1}});
  CHECK(status_of(ask(port, body)) == 401);
  CHECK(status_of(ask(port, body, "Authorization: Bearer from-file\r\n")) == 200);
  CHECK(status_of(ask(port, body, "Authorization: Bearer from-variable\r\n")) == 200);
  const std::string log = server.wait_for("\"status\":200");
  CHECK(log.find("from-file") == std::string::npos);
  const auto at = log.find("{\"time\":");
  REQUIRE(at != std::string::npos);
  CHECK(json::parse(log.substr(at, log.find('\n', at) - at))["status"] == 401);
}

TEST_CASE("serve: a Unix socket") {
  const ScratchFolder scratch;
  const std::string path = (scratch.path() / "vlm.sock").string();
  ServeProcess server({"--host", "unix:" + path});
  server.wait_for("serving ");
  RawClient client(path);
  REQUIRE(client.is_connected());
  client.send(get_request("/v1/models"));
  CHECK(status_of(client.read_response()) == 200);
}

TEST_CASE("serve: what is wrong is told before anything is served") {
  ServeProcess first({});
  const std::string port = std::to_string(first.port());
  const auto second = run_vlm("serve --port " + port);
  CHECK(second.code == 1);
  CHECK(second.err ==
        "error: 127.0.0.1:" + port +
            ": can't listen: got Address already in use (--port takes another one)\n");
  const auto run = [](const std::string& options) {
    const auto result = run_vlm("serve --port 0 " + options);
    return std::to_string(result.code) + " " + result.err;
  };
  CHECK(run("--model /nowhere/at/all").find("/nowhere/at/all") != std::string::npos);
  CHECK(run("--lora-modules nothing") ==
        "1 error: --lora-modules: not an adapter: got nothing, wanted NAME=PATH\n");
  CHECK(run("--api-key-file /nowhere").starts_with("1 error: /nowhere"));
  CHECK(run("--max-queue 0").starts_with("2 error: --max-queue"));
  CHECK(run("--label-studio-url http://127.0.0.1:1")
            .starts_with("2 error: --label-studio-url requires --label-studio"));
  CHECK(run("--label-studio --label-studio-url localhost") ==
        "1 error: --label-studio-url: not the address of a Label Studio instance: got localhost, "
        "wanted http://name:port or https://name\n");
  CHECK(run("--training /nowhere").starts_with("2 error: --training"));
  CHECK(run("--sevred-model-name x").find("did you mean '--served-model-name'") !=
        std::string::npos);
}

}  // namespace
