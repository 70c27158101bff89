// The Model Context Protocol: messages of both kinds of clients, tools, cancelling.
#include <condition_variable>
#include <deque>
#include <fstream>
#include <mutex>

#include "infer/server/doors/inner_ask.h"
#include "infer/server/doors/mcp_session.h"
#include "infer/server/doors/mcp_tools.h"
#include "tests/server/served.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

// A session whose chats are answered by the test.
class Talk {
 public:
  OrderedJson say(const std::string& line) {
    session.take(line);
    if (lines.empty()) return nullptr;
    const std::string answer = lines.front();
    lines.pop_front();
    CHECK(answer.ends_with("\n"));
    CHECK(answer.find('\n') == answer.size() - 1);
    return OrderedJson::parse(answer);
  }
  OrderedJson ask(const std::string& method, const OrderedJson& params = OrderedJson::object(),
                  const OrderedJson& id = 1) {
    const OrderedJson message = {
        {"jsonrpc", "2.0"}, {"id", id}, {"method", method}, {"params", params}};
    return say(message.dump());
  }
  std::string fault(const std::string& line) {
    const OrderedJson answer = say(line);
    return concat(answer["error"]["code"].get<int>(), " ", answer["id"].dump(), " ",
                  answer["error"]["message"].get<std::string>());
  }

  struct Chat {
    OrderedJson body;
    McpSession::Done done;
  };
  std::deque<std::string> lines;
  std::vector<Chat> chats;
  int cancelled = 0;
  McpSession session{[this](const OrderedJson& body, McpSession::Done done) -> McpSession::Cancel {
                       chats.push_back({body, std::move(done)});
                       return [this] { ++cancelled; };
                     },
                     [this](const std::string& line) { lines.push_back(line); }};
};

const OrderedJson kMeta = {
    {"io.modelcontextprotocol/protocolVersion", "2026-07-28"},
    {"io.modelcontextprotocol/clientInfo", {{"name", "t"}, {"version", "1"}}},
    {"io.modelcontextprotocol/clientCapabilities", OrderedJson::object()}};

WebReply chat_reply(const std::string& text, const OrderedJson& own = nullptr) {
  const OrderedJson choice = {{"message", {{"content", text}}}, {"finish_reason", "stop"}};
  OrderedJson body = {{"choices", OrderedJson::array({choice})}};
  if (!own.is_null()) body["vlm"] = own;
  return {.body = body.dump()};
}

TEST_CASE("clients that begin with a handshake") {
  Talk talk;
  const OrderedJson first = talk.ask("initialize", {{"protocolVersion", "2025-06-18"}}, "a");
  CHECK(first["jsonrpc"] == "2.0");
  CHECK(first["id"] == "a");
  CHECK(first["result"]["protocolVersion"] == "2025-06-18");
  CHECK(first["result"]["capabilities"] == OrderedJson::parse(R"({"tools":{}})"));
  CHECK(first["result"]["serverInfo"]["name"] == "vlm");
  CHECK(!first["result"].contains("resultType"));
  for (const char* version : {"2026-07-28", "1", ""}) {
    CHECK(talk.ask("initialize", {{"protocolVersion", version}})["result"]["protocolVersion"] ==
          "2025-11-25");
  }
  CHECK(talk.say(R"({"jsonrpc":"2.0","method":"notifications/initialized"})").is_null());
  CHECK(talk.ask("ping")["result"] == OrderedJson::object());
  const OrderedJson tools = talk.ask("tools/list")["result"];
  REQUIRE(tools["tools"].size() == 3);
  CHECK(tools["tools"][0]["name"] == "look");
  CHECK(tools["tools"][1]["name"] == "choose");
  CHECK(tools["tools"][2]["name"] == "watch");
  CHECK(!tools.contains("ttlMs"));
}

TEST_CASE("clients without a handshake say their revision in each request") {
  Talk talk;
  const OrderedJson found = talk.ask("server/discover", {{"_meta", kMeta}})["result"];
  CHECK(found["supportedVersions"][0] == "2026-07-28");
  CHECK(found["resultType"] == "complete");
  CHECK(found["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "vlm");
  CHECK(found["cacheScope"] == "private");
  CHECK(talk.ask("tools/list", {{"_meta", kMeta}})["result"]["ttlMs"].is_number_integer());
  OrderedJson other = kMeta;
  other["io.modelcontextprotocol/protocolVersion"] = "2030-01-01";
  const OrderedJson refused = talk.ask("tools/list", {{"_meta", other}})["error"];
  CHECK(refused["code"] == -32022);
  CHECK(refused["data"]["requested"] == "2030-01-01");
  CHECK(refused["data"]["supported"][1] == "2025-11-25");
  OrderedJson call = {{"name", "look"}, {"_meta", kMeta}};
  call["arguments"] = {{"images", {"a.png"}}, {"question", "What?"}};
  CHECK(talk.ask("tools/call", call).is_null());
  REQUIRE(talk.chats.size() == 1);
  talk.chats[0].done(chat_reply("a cat"));
  const OrderedJson answer = OrderedJson::parse(talk.lines.front());
  CHECK(answer["result"]["resultType"] == "complete");
  CHECK(answer["result"]["structuredContent"] == OrderedJson::parse(R"({"text":"a cat"})"));
}

TEST_CASE("messages that are none get an error, and nothing ends") {
  Talk talk;
  CHECK(talk.fault("{").starts_with("-32700 null the message: "));
  CHECK(talk.fault("[]") == "-32600 null one JSON-RPC 2.0 message a line; no batches");
  CHECK(talk.fault(R"({"id":1,"method":"ping"})") ==
        "-32600 null one JSON-RPC 2.0 message a line; no batches");
  CHECK(talk.fault(R"({"jsonrpc":"2.0","id":null,"method":"ping"})") ==
        "-32600 null an id is text or a number");
  CHECK(talk.fault(R"({"jsonrpc":"2.0","id":1.5,"method":"ping"})") ==
        "-32600 null an id is text or a number");
  CHECK(talk.fault(R"({"jsonrpc":"2.0","id":1,"method":7})") == "-32600 1 the method is no text");
  CHECK(talk.fault(R"({"jsonrpc":"2.0","id":1,"method":"ping","params":[]})") ==
        "-32602 1 params is no object");
  CHECK(talk.fault(R"({"jsonrpc":"2.0","id":"x","method":"prompts/list"})") ==
        "-32601 \"x\" no method 'prompts/list'");
  CHECK(talk.fault(R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"draw"}})") ==
        "-32602 1 no such tool; there are look, choose and watch");
  CHECK(talk.fault(R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":3}})") ==
        "-32602 1 no such tool; there are look, choose and watch");
  // Answers, and notifications that nobody knows or that are wrong.
  for (const char* line :
       {R"({"jsonrpc":"2.0","id":1,"result":{}})",
        R"({"jsonrpc":"2.0","method":"notifications/x"})",
        R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9}})",
        R"({"jsonrpc":"2.0","method":5})"}) {
    CHECK(talk.say(line).is_null());
  }
  talk.session.refuse_long_line(10);
  CHECK(talk.lines.front().find("a message over 10 bytes") != std::string::npos);
  CHECK(talk.chats.empty());
}

TEST_CASE("arguments become a chat request") {
  const OrderedJson look = to_mcp_question(
      "look", {{"images", {"a 50%.png", "data:image/png;base64,AAAA", std::string(64, 'A')}},
               {"question", "What?"},
               {"schema", {{"type", "object"}}}});
  const OrderedJson& parts = look["messages"][0]["content"];
  CHECK(parts[0]["image_url"]["url"] == "file://a 50%25.png");
  CHECK(parts[1]["image_url"]["url"] == "data:image/png;base64,AAAA");
  CHECK(parts[2]["image_url"]["url"] == std::string(64, 'A'));
  CHECK(parts[3]["text"] == "What?");
  CHECK(look["structured_outputs"]["json"]["type"] == "object");
  const OrderedJson watch =
      to_mcp_question("watch", {{"clip", "b.mp4"}, {"question", "What?"}, {"times", {1, 2.5}}});
  CHECK(watch["messages"][0]["content"][0]["video_url"] ==
        OrderedJson::parse(R"({"url":"file://b.mp4","times":[1,2.5]})"));
}

TEST_CASE("arguments that can't be used are an error of the call") {
  const std::vector<std::pair<OrderedJson, std::string>> calls = {
      {{{"name", "look"}, {"arguments", {{"question", "?"}}}},
       "images: unusable value: got nothing, wanted a list of pictures"},
      {{{"name", "look"}, {"arguments", {{"images", {1}}, {"question", "?"}}}},
       "images[0]: unusable value: got number 1, wanted a path or base64"},
      {{{"name", "look"}, {"arguments", {{"images", {"a"}}}}},
       "question: unusable value: got nothing, wanted a text"},
      {{{"name", "look"}, {"arguments", {{"images", {"a"}}, {"question", "?"}, {"size", 3}}}},
       "size: unknown argument (tools/list names them)"},
      {{{"name", "choose"}, {"arguments", {{"images", {"a"}}, {"question", "?"}}}},
       "choices: unusable value: got nothing, wanted a list of answers"},
      {{{"name", "watch"}, {"arguments", {{"clip", 5}, {"question", "?"}}}},
       "clip: unusable value: got number 5, wanted a text"}};
  for (const auto& [params, wanted] : calls) {
    Talk talk;
    const OrderedJson result = talk.ask("tools/call", params)["result"];
    CHECK(result["isError"] == true);
    CHECK(result["content"][0]["text"] == wanted);
    CHECK(talk.session.running() == 0);
  }
}

TEST_CASE("calls run side by side, and a cancelled one gets no answer") {
  Talk talk;
  const OrderedJson call = {{"name", "look"},
                            {"arguments", {{"images", {"a"}}, {"question", "?"}}}};
  for (int id = 1; id <= 3; ++id) CHECK(talk.ask("tools/call", call, id).is_null());
  CHECK(talk.session.running() == 3);
  CHECK(talk.ask("tools/call", call, 2)["error"]["message"] ==
        "a request of this id is being answered");
  CHECK(talk.say(R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}})")
            .is_null());
  CHECK(talk.cancelled == 1);
  talk.chats[2].done(chat_reply("third"));
  talk.chats[1].done(chat_reply("second"));  // too late
  talk.chats[0].done({.status = 400, .body = R"({"error":{"message":"no picture"}})"});
  REQUIRE(talk.lines.size() == 2);
  const OrderedJson third = OrderedJson::parse(talk.lines[0]);
  CHECK(third["id"] == 3);
  CHECK(third["result"]["content"][0]["text"] == "third");
  const OrderedJson first = OrderedJson::parse(talk.lines[1]);
  CHECK(first["id"] == 1);
  CHECK(first["result"]["isError"] == true);
  CHECK(first["result"]["content"][0]["text"] == "no picture");
  CHECK(talk.session.running() == 0);
  talk.lines.clear();
  CHECK(talk.ask("tools/call", call, 4).is_null());
  talk.session.cancel_all();
  CHECK(talk.cancelled == 2);
}

TEST_CASE("results of choices and of schemas") {
  const OrderedJson chosen =
      to_tool_result("choose", OrderedJson::object(),
                     chat_reply("b", {{"probabilities", {{"a", 0.25}, {"b", 0.75}}}}));
  CHECK(chosen["structuredContent"] ==
        OrderedJson::parse(R"({"choice":"b","probabilities":{"a":0.25,"b":0.75}})"));
  const OrderedJson arguments = {{"schema", {{"type", "object"}}}};
  CHECK(to_tool_result("look", arguments, chat_reply(R"({"a": 1})"))["structuredContent"]["json"] ==
        OrderedJson::parse(R"({"a":1})"));
  const OrderedJson cut = to_tool_result("look", arguments, chat_reply(R"({"a": )"));
  CHECK(cut["isError"] == true);
  CHECK(cut["content"][0]["text"] == R"(the answer is no whole JSON (it ended by 'stop'): {"a": )");
}

// The server's own answers, from within.
class Inside {
 public:
  explicit Inside(ServedOptions options = {}) : served(std::move(options)) {}

  WebReply ask(const OrderedJson& body) {
    std::mutex mutex;
    std::condition_variable change;
    std::optional<WebReply> reply;
    const auto kept = InnerAsk::start(served.service().parts(), {.body = body, .id = "inner"},
                                      [&](const WebReply& answer) {
                                        const std::lock_guard lock(mutex);
                                        reply = answer;
                                        change.notify_one();
                                      });
    std::unique_lock lock(mutex);
    change.wait(lock, [&] { return reply.has_value(); });
    return *reply;
  }

  Served served;
};

TEST_CASE("tools answer as the server does") {
  ServedOptions options;
  options.service.limits.media_folder = kShapes.parent_path().string();
  Inside inside(options);
  const std::string question = "what shape is in the image?";
  const auto call = [&](const std::string& tool, const OrderedJson& arguments) {
    return to_tool_result(tool, arguments, inside.ask(to_mcp_question(tool, arguments)));
  };
  const std::string wanted = content_of(inside.served.ask(shape_body(question, {"shape_074"})));
  CHECK(call("look", {{"images", {"pictures/shape_074.png"}},
                      {"question", question}})["structuredContent"]["text"] == wanted);
  const OrderedJson chosen = call("choose", {{"images", {shape_uri("shape_074")}},
                                             {"question", question},
                                             {"choices", {"circle", "triangle"}}});
  CHECK(chosen["structuredContent"]["choice"] == "triangle");
  const OrderedJson seen = call("look", {{"images", {"pictures/shape_049.png"}},
                                         {"question", question},
                                         {"schema", {{"enum", {"circle", "square"}}}}});
  const std::string shape = seen["structuredContent"]["json"];
  CHECK((shape == "circle" || shape == "square"));
  const OrderedJson all = {{"clip", "clips/left.mp4"}, {"question", "what is it?"}};
  CHECK(call("watch", all)["isError"] == false);
  OrderedJson moments = all;
  moments["times"] = {0, 0.2};
  CHECK(call("watch", moments)["isError"] == false);
  for (const char* path : {"../../main.cpp", "/etc/passwd", "pictures/none.png", "pictures"}) {
    const OrderedJson refused = call("look", {{"images", {path}}, {"question", question}});
    CHECK(refused["isError"] == true);
    CHECK(refused["content"][0]["text"].get<std::string>().find("no file that may be read") !=
          std::string::npos);
  }
}

TEST_CASE("a request from within is cancelled, and done isn't called") {
  Inside inside;
  const OrderedJson body = OrderedJson::parse(endless_body().dump());
  bool is_called = false;
  const auto ask = InnerAsk::start(inside.served.service().parts(), {.body = body, .id = "inner"},
                                   [&](const WebReply&) { is_called = true; });
  REQUIRE(comes_true([&] { return inside.served.metric("vlm_num_requests_running") == 1; }));
  ask->cancel();
  CHECK(comes_true([&] { return inside.served.metric("vlm_num_requests_running") == 0; }));
  CHECK(!is_called);
  const WebReply refused = inside.ask({{"messages", 3}});
  CHECK(refused.status == 400);
  CHECK(message_of(refused).starts_with("messages: "));
}

}  // namespace
}  // namespace vlm::infer
