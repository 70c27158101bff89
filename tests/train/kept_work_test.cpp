// What a training has learned is there whatever happens around it: bad data, numbers that overflow,
// a request to stop, failures behind the last step.
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/support/scratch_folder.h"
#include "tests/support/small_training.h"
#include "tests/support/tensors.h"
#include "train/optimizer/optimizer.h"
#include "train/trainer.h"
#include "vlm/core/log.h"
#include "vlm/core/run/stop_signal.h"
#include "vlm/models/registry.h"
#include "vlm/nn/lora/lora.h"

namespace vlm::train {
namespace {

namespace fs = std::filesystem;

const RuntimeOptions kCpu = {.device = "cpu", .threads = 1};

// Four steps of an epoch and two of the next.
TrainConfig small_config(const ScratchFolder& folder, const std::string& output) {
  if (!fs::exists(folder.path() / "data.jsonl")) write_questions(folder.path() / "data.jsonl", 4);
  TrainConfig config;
  config.model_name_or_path = fixture(kTinyModel).string();
  config.output_dir = folder.at(output);
  config.train_files = {folder.at("data.jsonl")};
  config.per_device_train_batch_size = 1;
  config.per_device_eval_batch_size = 2;
  config.max_steps = 6;
  config.learning_rate = 1e-2;
  config.logging_steps = 1;
  config.save_steps = 0;
  config.feature_cache = "off";
  return config;
}

using Answers = std::vector<std::variant<std::string, Error>>;

// Someone who answers the same to everything, and may do something else at the n-th question.
AnswerFunction answer_with(std::function<void(int)> at_call, int* calls) {
  return [=](const AnswerRequest& request) {
    at_call(++*calls);
    return Answers(request.prompts.size(), "a cat");
  };
}

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

void add_line(const fs::path& file, const std::string& line) {
  std::ofstream(file, std::ios::app) << line << "\n";
}

// Silences warnings while it lives.
struct Quiet {
  Quiet() { set_log_level(LogLevel::kOff); }
  ~Quiet() { set_log_level(LogLevel::kInfo); }
};

TEST_CASE("adapters in a frozen tower survive that the tower is let go") {
  for (const std::string initial : {"true", "pissa"}) {
    for (const std::string bias : {"none", "all"}) {
      INFO(initial << ", bias " << bias);
      const ScratchFolder folder;
      TrainConfig config = small_config(folder, "cached");
      config.target_modules = "all-linear";
      config.freeze = {"vision_model", "connector"};
      config.init_lora_weights = initial;
      config.bias = bias;
      config.feature_cache = folder.at("features");
      Trainer(config, {.runtime = kCpu}).run();
      TrainConfig plain = config;
      plain.output_dir = folder.at("plain");
      plain.feature_cache = "off";
      Trainer(plain, {.runtime = kCpu}).run();
      const SafetensorsFile got(folder.path() / "cached/adapter_model.safetensors"),
          wanted(folder.path() / "plain/adapter_model.safetensors");
      CHECK(got.entries().size() == wanted.entries().size());
      std::int64_t of_vision = 0;
      for (const auto& [key, entry] : wanted.entries()) {
        INFO(key);
        check_close(got.tensor(key), wanted.tensor(key), 1e-3);
        of_vision += key.find("vision_model") != std::string::npos ? 1 : 0;
      }
      CHECK(of_vision > 0);
    }
  }
}

// One run; its result loads and is finite.
void check_run(const TrainConfig& config, const RuntimeOptions& runtime) {
  Trainer(config, {.runtime = runtime}).run();
  const bool is_adapter = config.trains_adapter();
  const std::string file = is_adapter ? "adapter_model.safetensors" : "model.safetensors";
  const SafetensorsFile result(config.output_dir + "/" + file);
  NamedTensors tensors;
  for (const auto& [key, entry] : result.entries()) tensors.emplace_back(key, result.tensor(key));
  CHECK(find_not_finite(tensors).empty());
  const ModelPtr model =
      load_model(is_adapter ? fixture(kTinyModel) : fs::path(config.output_dir), {});
  if (is_adapter) {
    load_adapter(model->module(), config.output_dir);
    return;
  }
  const bool is_narrow = runtime.dtype == "bfloat16";
  CHECK(load_json(config.output_dir + "/config.json")["dtype"] ==
        (is_narrow ? "bfloat16" : "float32"));
  CHECK(result.entries().begin()->second.dtype == (is_narrow ? at::kBFloat16 : at::kFloat));
}

TEST_CASE("every method runs in every dtype, from every start, with every optimizer") {
  const ScratchFolder folder;
  const std::vector<std::string> optimizers = {"adamw", "adamw_8bit", "sgd"};
  std::size_t number = 0;
  for (const std::string dtype : {"auto", "float32", "bfloat16"}) {
    RuntimeOptions runtime = kCpu;
    runtime.dtype = dtype;
    const auto start_run = [&] {
      TrainConfig config = small_config(folder, std::to_string(number));
      config.optim = optimizers[number % 3];
      config.packing = number++ % 2 == 0;
      config.max_steps = 2;
      config.eval_files = config.train_files;
      return config;
    };
    for (const std::string method : {"lora", "dora", "qlora"}) {
      for (const std::string start : {"true", "gaussian", "pissa"}) {
        if (start == "pissa" && method != "lora") continue;
        INFO(method << " " << dtype << " " << start);
        TrainConfig config = start_run();
        config.method = method;
        config.init_lora_weights = start;
        check_run(config, runtime);
      }
    }
    for (const std::string start : {"random", "checkpoint", "random", "checkpoint"}) {
      INFO("full " << dtype << " " << start);
      TrainConfig config = start_run();
      config.method = "full";
      config.init_weights = start;
      check_run(config, runtime);
    }
  }
}

TEST_CASE("a bad sample of the evaluation set is met before the first step") {
  const Quiet quiet;
  const std::string missing =
      R"({"messages": [{"role": "user", "content": [{"type": "image"}]}, )"
      R"({"role": "assistant", "content": [{"type": "text", "text": "a"}]}], )"
      R"("images": ["/nowhere.png"]})";
  const std::string question = R"({"messages": [{"role": "user", "content": "What?"}]})";
  for (const std::string& line :
       {std::string("{\"messages\": 7}"), missing, question, std::string("not JSON")}) {
    INFO(line);
    const ScratchFolder folder;
    TrainConfig config = small_config(folder, "run");
    write_questions(folder.path() / "eval.jsonl", 3);
    add_line(folder.path() / "eval.jsonl", line);
    config.eval_files = {folder.at("eval.jsonl")};
    config.evaluation.eval_metrics = {"rouge_l"};
    int calls = 0;
    const TrainOptions options{.runtime = kCpu, .answer = answer_with([](int) {}, &calls)};
    CHECK_THROWS_WITH(Trainer(config, options), Contains("eval.jsonl:4"));
    CHECK(calls == 0);
    config.max_bad_samples = 1;
    config.output_dir = folder.at("tolerant");
    Trainer(config, options).run();
    CHECK_THAT(load_text(config.output_dir + "/skipped_samples.jsonl"), Contains("eval.jsonl:4"));
    const auto rows = repeatable_metrics(config.output_dir);
    CHECK(rows.back()["eval_rouge_l"].is_number());
  }
}

TEST_CASE("an evaluation set that leaves nothing to evaluate is refused before the first step") {
  const Quiet quiet;
  const ScratchFolder folder;
  TrainConfig config = small_config(folder, "run");
  config.length_policy = "skip";
  config.max_length = 400;
  config.eval_files = {folder.at("eval.jsonl")};
  const std::string question(1000, '?');
  for (int i = 0; i < 3; ++i) {
    add_line(folder.path() / "eval.jsonl",
             R"({"prompt": ")" + question + R"(", "completion": "a cat"})");
  }
  int calls = 0;
  const TrainOptions options{.runtime = kCpu, .answer = answer_with([](int) {}, &calls)};
  CHECK_THROWS_WITH(Trainer(config, options),
                    Contains("eval_files: every sample is skipped") && Contains("max_length"));

  add_line(folder.path() / "eval.jsonl", R"({"prompt": "Where?", "completion": "at home"})");
  config.evaluation.eval_metrics = {"exact_match"};
  config.evaluation.eval_max_samples = 2;  // lines 1 and 3
  CHECK_THROWS_WITH(
      Trainer(config, options),
      Contains("every sample that eval_max_samples chooses") && Contains("got 1 samples"));
  config.evaluation.eval_max_samples = 0;
  Trainer(config, options).run();
  CHECK(repeatable_metrics(config.output_dir).back()["eval_exact_match"].get<double>() == 0);
}

TEST_CASE("a sample that can't be answered is passed over as far as that is allowed") {
  const Quiet quiet;
  const ScratchFolder folder;
  TrainConfig config = small_config(folder, "run");
  config.eval_files = config.train_files;
  config.evaluation.eval_metrics = {"exact_match"};
  const AnswerFunction answer = [&](const AnswerRequest& request) {
    Answers answers(request.prompts.size(), "a cat");
    for (std::size_t i = 0; i < answers.size(); ++i) {
      if (request.prompts[i].where.ends_with(":2")) answers[i] = Error({.what = "no room"});
    }
    return answers;
  };
  CHECK_THROWS_WITH(Trainer(config, {.runtime = kCpu, .answer = answer}).run(),
                    Contains("no room"));
  config.max_bad_samples = 1;
  config.output_dir = folder.at("tolerant");
  Trainer(config, {.runtime = kCpu, .answer = answer}).run();
  const auto rows = repeatable_metrics(config.output_dir);
  CHECK(rows.back()["eval_exact_match"].get<double>() == Approx(1.0 / 3));
  const std::string answers = load_text(config.output_dir + "/eval_answers.jsonl");
  CHECK(std::count(answers.begin(), answers.end(), '\n') == 3);
}

TEST_CASE("a bad sample met late leaves a checkpoint, and a higher bound goes on from it") {
  const Quiet quiet;
  const ScratchFolder folder;
  TrainConfig config = small_config(folder, "run");
  add_line(folder.path() / "data.jsonl", R"({"messages": 7})");
  config.shuffle = false;
  CHECK_THROWS_WITH(Trainer(config, {.runtime = kCpu}).run(), Contains("data.jsonl:5"));
  CHECK(names_in(config.output_dir).count("checkpoint-4") == 1);
  CHECK_THROWS_WITH(Trainer(config, {.runtime = kCpu}).run(), Contains("data.jsonl:5"));
  config.max_bad_samples = 1;
  Trainer(config, {.runtime = kCpu}).run();
  TrainConfig whole = config;
  whole.output_dir = folder.at("whole");
  Trainer(whole, {.runtime = kCpu}).run();
  CHECK(repeatable_metrics(config.output_dir) == repeatable_metrics(whole.output_dir));
  CHECK(load_text(config.output_dir + "/adapter_model.safetensors") ==
        load_text(whole.output_dir + "/adapter_model.safetensors"));
}

TEST_CASE("a stop in an evaluation is looked at, and the evaluation is made when the run goes on") {
  const Quiet quiet;
  const ScratchFolder folder;
  TrainConfig config = small_config(folder, "whole");
  config.eval_files = config.train_files;
  config.eval_steps = 3;
  config.evaluation.eval_metrics = {"rouge_l"};
  config.evaluation.metric_for_best_model = "loss";
  int calls = 0;
  Trainer(config, {.runtime = kCpu, .answer = answer_with([](int) {}, &calls)}).run();
  REQUIRE(calls == 6);  // two batches before, in the middle and at the end
  const auto wanted = repeatable_metrics(config.output_dir);
  for (int at = 1; at <= calls; ++at) {
    for (const std::int64_t save_steps : {0, 1}) {
      INFO("stopped at question " << at << ", save_steps " << save_steps);
      TrainConfig cut = config;
      cut.save_steps = save_steps;
      cut.output_dir = folder.at("cut" + std::to_string(at) + "_" + std::to_string(save_steps));
      int asked = 0;
      const auto stopper =
          answer_with([at](int call) { call == at ? request_stop(SIGHUP) : void(); }, &asked);
      // Behind the last batch of the last evaluation there is nothing left to stop.
      CHECK(Trainer(cut, {.runtime = kCpu, .answer = stopper}).run() ==
            (at < calls ? TrainResult::kInterrupted : TrainResult::kFinished));
      CHECK(asked == at);
      request_stop(0);
      CHECK(Trainer(cut, {.runtime = kCpu, .answer = stopper}).run() == TrainResult::kFinished);
      CHECK(repeatable_metrics(cut.output_dir) == wanted);
      CHECK(load_text(cut.output_dir + "/adapter_model.safetensors") ==
            load_text(config.output_dir + "/adapter_model.safetensors"));
      CHECK(load_text(cut.output_dir + "/eval_answers.jsonl") ==
            load_text(config.output_dir + "/eval_answers.jsonl"));
    }
  }
}

TEST_CASE("an evaluation that fails behind the last step costs neither result nor checkpoint") {
  const Quiet quiet;
  for (const std::string method : {"lora", "full"}) {
    const ScratchFolder folder;
    TrainConfig config = small_config(folder, "run");
    config.method = method;
    config.eval_files = config.train_files;
    config.evaluation.eval_metrics = {"rouge_l"};
    int calls = 0;
    const auto broken = answer_with(
        [](int call) {
          if (call == 3) throw std::runtime_error("out of memory");
        },
        &calls);
    CHECK_THROWS_WITH(Trainer(config, {.runtime = kCpu, .answer = broken}).run(), "out of memory");
    const std::set<std::string> left = names_in(config.output_dir);
    CHECK(left.count(method == "lora" ? "adapter_model.safetensors" : "model.safetensors") == 1);
    CHECK(left.count("checkpoint-6") == 1);
    // Nothing is trained again.
    CHECK(Trainer(config, {.runtime = kCpu, .answer = broken}).run() == TrainResult::kFinished);
    CHECK(calls == 5);
    CHECK(repeatable_metrics(config.output_dir).size() == 8);
  }
}

// The tiny model with an output that stays and gradients that overflow.
void save_steep_model(const fs::path& folder) {
  const c10::NoGradGuard no_grad;
  const ModelPtr model = load_model(fixture(kTinyModel), {});
  auto parameters = model->module().named_parameters();
  parameters["model.text_model.norm.weight"].mul_(1e-20);
  parameters["lm_head.weight"].mul_(1e20);
  save_model(*model, fixture(kTinyModel), folder);
}

TEST_CASE("a finite loss with infinite gradients changes no weight and is told") {
  const ScratchFolder folder;
  save_steep_model(folder.path() / "steep");
  for (const double max_norm : {0.0, 1.0}) {
    TrainConfig config = small_config(folder, "run" + std::to_string(max_norm));
    config.model_name_or_path = folder.at("steep");
    config.method = "full";
    config.save_steps = 1;
    config.max_grad_norm = max_norm;
    CHECK_THROWS_WITH(Trainer(config, {.runtime = kCpu}).run(),
                      "step 1: the norm of the gradients is not finite: got inf (try a lower "
                      "learning_rate with --restart)");
    const std::set<std::string> left = names_in(config.output_dir);
    CHECK(left.count("checkpoint-0") + left.count("checkpoint-1") == 0);
    CHECK(left.count("model.safetensors") == 0);
  }
}

TEST_CASE("numbers that run away leave the last good checkpoint, and the way to go on") {
  const Quiet quiet;
  const ScratchFolder folder;
  TrainConfig config = small_config(folder, "run");
  config.learning_rate = 1000;
  config.max_grad_norm = 0;
  config.max_steps = 50;
  config.lr_scheduler_type = "constant";
  std::string message;
  try {
    Trainer(config, {.runtime = kCpu}).run();
  } catch (const Error& error) {
    message = error.what();
  }
  CHECK_THAT(message, Contains(" is not finite: got ") && Contains("or go on from "));
  std::int64_t checkpoints = 0;
  for (const std::string& name : names_in(config.output_dir)) {
    if (!name.starts_with("checkpoint-")) continue;
    ++checkpoints;
    CHECK_THAT(message, Contains(name + " as adapter of another run"));
    for (const char* file : {"trained.safetensors", "optimizer.safetensors"}) {
      const SafetensorsFile saved(config.output_dir + "/" + name + "/" + file);
      NamedTensors tensors;
      for (const auto& [key, entry] : saved.entries()) {
        tensors.emplace_back(key, saved.tensor(key));
      }
      CHECK(find_not_finite(tensors).empty());
    }
  }
  CHECK(checkpoints == 1);
  CHECK(names_in(config.output_dir).count("adapter_model.safetensors") == 0);
}

TEST_CASE("the first tensor that isn't finite is found, whatever its dtype") {
  const at::Tensor good = at::ones({3});
  CHECK(find_not_finite({}).empty());
  CHECK(
      find_not_finite({{"a", good}, {"codes", at::ones({3}, at::kByte)}, {"none", at::empty({0})}})
          .empty());
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity(),
                             -std::numeric_limits<double>::infinity()}) {
      const at::Tensor tensor = at::ones({1000}, dtype);
      tensor[999] = bad;
      CHECK(find_not_finite({{"a", good}, {"b", tensor}, {"c", tensor}}) == "b");
    }
  }
  CHECK(find_not_finite({{"a", at::full({1000}, 3e38)}}).empty());  // no sum of them is finite
}

}  // namespace
}  // namespace vlm::train
