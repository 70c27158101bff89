// `vlm mcp` as an agent's program starts it: messages in, messages out, and nothing else on stdout.
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/run_program.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

const std::string kProgram = std::string("'") + VLM_BINARY +
                             "' mcp --device cpu --threads 1 --allowed-local-media-path examples";

std::vector<Json> messages_of(const std::string& text) {
  std::vector<Json> messages;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    messages.push_back(Json::parse(text.substr(at, end - at)));
    at = end + 1;
  }
  return messages;
}

std::string call(int id, const std::string& image) {
  return Json({{"jsonrpc", "2.0"},
               {"id", id},
               {"method", "tools/call"},
               {"params",
                {{"name", "choose"},
                 {"arguments",
                  {{"images", {image}},
                   {"question", "what shape is in the image?"},
                   {"choices", {"circle", "triangle"}}}}}}})
      .dump();
}

TEST_CASE("what was asked before the end of the input is answered, and the log is elsewhere") {
  const ScratchFolder scratch;
  const std::string input =
      scratch.write("input", "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"ping\"}\nnothing\n" +
                                 call(1, "pictures/shape_074.png") + "\n" + call(2, "/etc/passwd") +
                                 "\n{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"ping\"}");
  const ProgramResult done = run_shell(kProgram + " <'" + input + "'", VLM_SOURCE_DIR);
  INFO(done.out << done.err);
  CHECK(done.code == 0);
  const std::vector<Json> messages = messages_of(done.out);
  REQUIRE(messages.size() == 4);  // a last line without its end is none
  CHECK(messages[0]["result"] == Json::object());
  CHECK(messages[1]["error"]["code"] == -32700);
  for (const Json& message : {messages[2], messages[3]}) {
    const Json& result = message["result"];
    if (message["id"] == 1) CHECK(result["structuredContent"]["choice"] == "triangle");
    if (message["id"] == 2) CHECK(result["isError"] == true);
  }
  CHECK_THAT(done.err, Contains("answering MCP on standard input and output"));
}

TEST_CASE("agents that end the program, or read no more") {
  const ScratchFolder scratch;
  const ProgramResult ended = run_shell(
      "mkfifo '" + scratch.at("input") + "'; sleep 60 >'" + scratch.at("input") +
          "' & waiting=$!\n" + kProgram + " <'" + scratch.at("input") +
          "' & program=$!\nsleep 2; kill -TERM $program; code=0; wait $program || code=$?; kill "
          "$waiting; exit $code",
      VLM_SOURCE_DIR);
  CHECK(ended.code == 0);
  const std::string input = scratch.write("asks", call(1, "pictures/shape_074.png") + "\n");
  const ProgramResult closed =
      run_shell("set -o pipefail; " + kProgram + " <'" + input + "' | true", VLM_SOURCE_DIR);
  CHECK(closed.code == 141);  // as for every command
  const ProgramResult wrong =
      run_shell(kProgram + " --model /no/such/model </dev/null", VLM_SOURCE_DIR);
  CHECK(wrong.code == 1);
  CHECK(wrong.out.empty());
}

}  // namespace
}  // namespace vlm
