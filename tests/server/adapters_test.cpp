// Adapters that are served: as each merged model alone, loaded when asked for, replaced, evicted,
// broken, and of a training that runs.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <torch/nn/module.h>

#include <future>
#include <nlohmann/json.hpp>

#include "data/media/media.h"
#include "infer/session.h"
#include "tests/server/served.h"
#include "tests/support/logged_lines.h"
#include "tests/support/scratch_folder.h"
#include "vlm/models/registry.h"
#include "vlm/nn/lora/lora.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

const std::string kQuestion = "what shape is in the image?";
const std::string kKey = "Authorization: Bearer secret\r\n";

// An adapter of one part of the model, with values that change its answers.
void write_adapter(const fs::path& folder, const std::string& part, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  const ModelPtr model = load_model(kShapeModel, {.dtype = "float32"});
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  const LoraConfig config{.r = 4,
                          .target_modules = std::vector<std::string>{"q_proj", "v_proj"},
                          .target_parts = {part}};
  attach_lora(model->module(), config, generator);
  for (auto& item : model->module().named_parameters()) {
    if (item.key().find("lora_B") != std::string::npos) item.value().normal_(0, 1, generator);
  }
  save_adapter(model->module(), config, folder, kShapeModel);
}

// What a training leaves of a step; the state comes last.
void write_checkpoint(const fs::path& run, int step, std::uint64_t seed) {
  const fs::path folder = run / concat("checkpoint-", step);
  write_adapter(folder, "text_model", seed);
  save_text(folder / "trainer_state.json", "{}");
}

// Log-probabilities of the answer of the model alone, with the adapter merged into it.
std::vector<double> alone(const std::string& adapter, const std::string& picture = "shape_049") {
  Session session = open_session({.model = kShapeModel, .adapter = adapter},
                                 {.device = "cpu", .dtype = "float32"});
  const std::vector<Image> images = {data::load_image(kShapes / (picture + ".png"))};
  const EncodedConversation prompt = session.processor->encode_prompt(
      make_conversation(kQuestion, std::vector<MediaRef>(1), ""), images);
  GenerationOptions options = session.generation;
  options.max_new_tokens = 4;
  return session.generator->generate({prompt}, options)[0].generations[0].logprobs;
}

Json body_for(const std::string& model, const std::string& picture = "shape_049") {
  Json body =
      shape_body(kQuestion, {picture}, {{"logprobs", true}, {"max_tokens", 4}, {"model", model}});
  if (model.empty()) body.erase("model");
  return body;
}

void check_is(const OrderedJson& reply, const std::vector<double>& wanted) {
  const OrderedJson& entries = reply["choices"][0]["logprobs"]["content"];
  REQUIRE(entries.size() > 0);
  REQUIRE(entries.size() <= wanted.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    CHECK(entries[i]["logprob"].get<double>() == Approx(wanted[i]).margin(1e-4));
  }
}

ServedOptions with_adapters(const fs::path& folder, const std::vector<std::string>& names) {
  ServedOptions options;
  for (const std::string& name : names) {
    options.source.adapters.push_back({name, (folder / name).string()});
  }
  return options;
}

TEST_CASE("two adapters and the base in parallel answer as each merged model alone") {
  const ScratchFolder scratch;
  write_adapter(scratch.path() / "words", "text_model", 1);
  write_adapter(scratch.path() / "sight", "vision_model", 2);
  const std::vector<std::string> models = {"words", "sight", ""};
  const std::vector<std::string> pictures = {"shape_049", "shape_038", "shape_059", "shape_074"};
  ServedOptions options = with_adapters(scratch.path(), {"words", "sight"});
  options.engine.max_running = 5;
  const Served served(options);
  CHECK(served.metric("vlm_lora_loaded") == 0);  // until somebody asks
  std::map<std::string, std::vector<double>> wanted;
  std::vector<std::pair<std::string, std::future<OrderedJson>>> answers;
  for (const std::string& picture : pictures) {
    for (const std::string& model : models) {
      const std::string adapter = model.empty() ? "" : (scratch.path() / model).string();
      wanted[model + picture] = alone(adapter, picture);
    }
  }
  for (int round = 0; round < 3; ++round) {
    for (const std::string& picture : pictures) {
      for (const std::string& model : models) {
        answers.emplace_back(model + picture, std::async(std::launch::async, [&, picture, model] {
                               return served.ask(body_for(model, picture));
                             }));
      }
    }
  }
  for (auto& [key, answer] : answers) {
    INFO(key);
    check_is(answer.get(), wanted[key]);
  }
  // Of the vision tower, too, it takes effect: that is no rounding.
  CHECK(std::abs(wanted["sightshape_049"][0] - wanted["shape_049"][0]) > 1e-3);
  CHECK(std::abs(wanted["wordsshape_049"][0] - wanted["shape_049"][0]) > 1e-3);
  CHECK(served.metric("vlm_lora_loaded") == 2);
  CHECK(served.metric("vlm_lora_loads_total") == 2);
  CHECK(served.metric("vlm_lora_requests_total{adapter=\"sight\"}") == 12);
  CHECK(served.metric("vlm_request_finished_total{model=\"words\",reason=\"length\"}") +
            served.metric("vlm_request_finished_total{model=\"words\",reason=\"stop\"}") ==
        12);
  const OrderedJson list = OrderedJson::parse(body_of(served.get("/v1/models")));
  REQUIRE(list["data"].size() == 3);
  CHECK(list["data"][1]["id"] == "sight");
  CHECK(list["data"][1]["parent"] == "easy-vqa-emoji");
  CHECK(list["data"][1]["root"] == "sight");
  CHECK(status_of(served.get("/v1/models/words")) == 200);
  CHECK(served.refusal(body_for("other")) == "404 invalid_request_error model_not_found model");
}

TEST_CASE("the adapter that was used longest ago leaves for another, and comes back") {
  const ScratchFolder scratch;
  for (const auto& [name, seed] : {std::pair("one", 1), std::pair("two", 2), std::pair("six", 3)}) {
    write_adapter(scratch.path() / name, "text_model", seed);
  }
  ServedOptions options = with_adapters(scratch.path(), {"one", "two", "six"});
  options.source.max_adapters = 2;
  const Served served(options);
  int loads = 0;
  for (const auto& [name, is_loaded] :
       {std::pair("one", true), std::pair("two", true), std::pair("one", false),
        std::pair("six", true), std::pair("one", false), std::pair("two", true)}) {
    INFO(name << " " << loads);
    check_is(served.ask(body_for(name)), alone((scratch.path() / name).string()));
    loads += is_loaded ? 1 : 0;
    CHECK(served.metric("vlm_lora_loads_total") == loads);
    CHECK(served.metric("vlm_lora_loaded") == std::min(loads, 2));
  }
}

TEST_CASE("an adapter in use stays until it isn't; those who wait for its place get it in order") {
  const ScratchFolder scratch;
  write_adapter(scratch.path() / "one", "text_model", 1);
  write_adapter(scratch.path() / "two", "text_model", 2);
  ServedOptions options = with_adapters(scratch.path(), {"one", "two"});
  options.source.max_adapters = 1;
  const Served served(options);
  RawClient running(served.port());
  running.send(post_request("/v1/chat/completions",
                            endless_body({{"model", "one"}, {"stream", true}}).dump()));
  running.read_until("data: ");
  auto two = std::async(std::launch::async, [&] { return served.ask(body_for("two")); });
  REQUIRE(comes_true([&] { return served.metric("vlm_lora_waiting") == 1; }));
  auto again = std::async(std::launch::async, [&] { return served.ask(body_for("one")); });
  REQUIRE(comes_true([&] { return served.metric("vlm_lora_waiting") == 2; }));
  CHECK(two.wait_for(std::chrono::milliseconds(200)) == std::future_status::timeout);
  check_is(served.ask(body_for("")), alone(""));  // the base doesn't wait
  running.close();
  check_is(two.get(), alone((scratch.path() / "two").string()));
  check_is(again.get(), alone((scratch.path() / "one").string()));
  CHECK(served.metric("vlm_lora_loads_total") == 3);
  CHECK(served.metric("vlm_lora_loaded") == 1);
}

ServedOptions with_runtime(const fs::path& folder) {
  ServedOptions options;
  options.service.access.keys = {"secret"};
  options.service.adapter_folder = folder.string();
  return options;
}

// "200", or the refusal.
std::string change(const Served& served, const std::string& what, const Json& body) {
  const std::string response = served.post(body, "/v1/" + what + "_lora_adapter", kKey);
  return status_of(response) == 200 ? "200" : Served::fault_of(response);
}

OrderedJson ask_with_key(const Served& served, const Json& body) {
  const std::string response = served.post(body, "/v1/chat/completions", kKey);
  INFO(response);
  REQUIRE(status_of(response) == 200);
  return OrderedJson::parse(body_of(response));
}

TEST_CASE(
    "adapters are loaded, replaced for new requests, and unloaded while others are answered") {
  const ScratchFolder scratch;
  write_adapter(scratch.path() / "old", "text_model", 1);
  write_adapter(scratch.path() / "new", "vision_model", 2);
  const Served served(with_runtime(scratch.path()));
  CHECK(change(served, "load", {{"lora_name", "mine"}, {"lora_path", "old"}}) == "200");
  const auto first = ask_with_key(served, body_for("mine"));
  check_is(first, alone((scratch.path() / "old").string()));
  RawClient running(served.port());
  running.send(post_request("/v1/chat/completions",
                            endless_body({{"model", "mine"}, {"stream", true}}).dump(), kKey));
  running.read_until("data: ");
  const std::string whole_path = (scratch.path() / "new").string();
  CHECK(change(served, "load", {{"lora_name", "mine"}, {"lora_path", whole_path}}) == "200");
  const auto second = ask_with_key(served, body_for("mine"));
  check_is(second, alone(whole_path));
  CHECK(first["system_fingerprint"] != second["system_fingerprint"]);
  // Who had the old one still has it.
  const std::string so_far = running.read_until("\"content\"");
  const auto at = so_far.find("\"system_fingerprint\":");
  CHECK(so_far.substr(at, 60).find(first["system_fingerprint"].get<std::string>()) !=
        std::string::npos);
  running.close();
  CHECK(change(served, "unload", {{"lora_name", "mine"}}) == "200");
  CHECK(Served::fault_of(served.post(body_for("mine"), "/v1/chat/completions", kKey)) ==
        "404 invalid_request_error model_not_found model");
  CHECK(change(served, "unload", {{"lora_name", "mine"}}) ==
        "404 invalid_request_error model_not_found model");
  const auto loaded = [&] {
    return served.get("/metrics", kKey).find("\nvlm_lora_loaded 0\n") != std::string::npos;
  };
  CHECK(comes_true(loaded));
}

TEST_CASE("a broken adapter is its own error, and changes nothing") {
  LoggedLines log;
  const ScratchFolder scratch;
  write_adapter(scratch.path() / "good", "text_model", 1);
  write_adapter(scratch.path() / "broken", "text_model", 2);
  const fs::path weights = scratch.path() / "broken/adapter_model.safetensors";
  fs::resize_file(weights, fs::file_size(weights) / 2);
  fs::create_directories(scratch.path() / "empty");
  fs::create_directory_symlink("/", scratch.path() / "out");
  ServedOptions options = with_runtime(scratch.path());
  options.source.adapters = {{"bad", (scratch.path() / "broken").string()}};
  const Served served(options);
  const auto refusal = [&](const std::string& model) {
    return Served::fault_of(served.post(body_for(model), "/v1/chat/completions", kKey));
  };
  CHECK(refusal("bad") == "400 invalid_request_error invalid_adapter model");
  CHECK(log.text.find("broken can't be served as bad: ") != std::string::npos);
  check_is(ask_with_key(served, body_for("")), alone(""));
  const auto load = [&](const std::string& path, const std::string& name = "mine") {
    return change(served, "load", {{"lora_name", name}, {"lora_path", path}});
  };
  CHECK(load("good") == "200");
  CHECK(load("broken") == "400 invalid_request_error invalid_adapter lora_path");
  CHECK(load("empty") == "400 invalid_request_error invalid_adapter lora_path");
  check_is(ask_with_key(served, body_for("mine")), alone((scratch.path() / "good").string()));
  CHECK(load("broken", "new") == "400 invalid_request_error invalid_adapter lora_path");
  CHECK(refusal("new") == "404 invalid_request_error model_not_found model");
  for (const char* path : {"", "..", "../", "/", "out/etc", "nowhere", "/etc"}) {
    INFO(path);
    CHECK(load(path) == "400 invalid_request_error invalid_value lora_path");
  }
  CHECK(load("good", "easy-vqa-emoji") == "400 invalid_request_error invalid_value lora_name");
  CHECK(load("good", "a b") == "400 invalid_request_error invalid_value lora_name");
  const std::string body = R"({"lora_name": "x", "lora_path": "good"})";
  CHECK(Served::fault_of(served.exchange(post_request("/v1/load_lora_adapter", body))) ==
        "401 invalid_request_error invalid_api_key -");
  // What could be loaded takes the place of what never could.
  CHECK(load("good", "bad") == "200");
  check_is(ask_with_key(served, body_for("bad")), alone((scratch.path() / "good").string()));
  const Served without;
  CHECK(Served::fault_of(without.exchange(post_request("/v1/load_lora_adapter", body))) ==
        "404 invalid_request_error not_found -");
  CHECK_THROWS_WITH(Served(with_adapters(scratch.path(), {"empty"})),
                    Contains("empty: neither an adapter nor a model"));
  CHECK_THROWS_WITH(Served(with_adapters(scratch.path(), {"good", "good"})),
                    "--lora-modules: two models of one name: got good");
}

TEST_CASE("the newest whole checkpoint of a training answers, while it trains") {
  LoggedLines log;
  const ScratchFolder scratch;
  const fs::path run = scratch.path() / "run";
  ServedOptions options;
  options.source.adapters = {{.name = "run", .path = run.string(), .is_run = true}};
  const Served served(options);
  const std::string early = served.post(body_for("run"));
  CHECK(Served::fault_of(early) == "503 server_error model_loading -");
  CHECK(early.find("\r\nRetry-After: 10\r\n") != std::string::npos);
  write_checkpoint(run, 9, 1);
  const std::vector<double> ninth = alone((run / "checkpoint-9").string());
  check_is(served.ask(body_for("run")), ninth);
  // Half written: it has another name, or no state yet.
  write_checkpoint(run, 10, 2);
  fs::rename(run / "checkpoint-10", run / ".saving-checkpoint-10");
  check_is(served.ask(body_for("run")), ninth);
  fs::rename(run / ".saving-checkpoint-10", run / "checkpoint-10");
  fs::rename(run / "checkpoint-10/trainer_state.json", run / "state");
  check_is(served.ask(body_for("run")), ninth);
  fs::rename(run / "state", run / "checkpoint-10/trainer_state.json");
  const std::vector<double> tenth = alone((run / "checkpoint-10").string());
  CHECK(std::abs(ninth[0] - tenth[0]) > 1e-3);
  check_is(served.ask(body_for("run")), tenth);
  CHECK(served.metric("vlm_lora_loads_total") == 2);
  // Damaged: the one before goes on, and the log says it once.
  write_checkpoint(run, 11, 3);
  const fs::path weights = run / "checkpoint-11/adapter_model.safetensors";
  fs::resize_file(weights, fs::file_size(weights) / 2);
  for (int i = 0; i < 2; ++i) check_is(served.ask(body_for("run")), tenth);
  const auto at = log.text.find("checkpoint-11 can't be served as run: ");
  REQUIRE(at != std::string::npos);
  CHECK(log.text.find("checkpoint-11 can't be served", at + 1) == std::string::npos);
  // Of a training of all weights it is a whole model.
  fs::copy(kShapeModel, run / "checkpoint-12");
  save_text(run / "checkpoint-12/trainer_state.json", "{}");
  fs::remove_all(run / "checkpoint-9");
  check_is(served.ask(body_for("run")), alone(""));
  CHECK(served.metric("vlm_lora_loads_total") == 3);
}

}  // namespace
}  // namespace vlm::infer
