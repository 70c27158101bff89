// Runs of adapters on embeddings and tied heads against PEFT's; what of them is trained, how fast.
#include <nlohmann/json.hpp>

#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "tests/train/golden_batch.h"
#include "train/model/loss.h"
#include "train/model/trained_model.h"
#include "vlm/core/json.h"
#include "vlm/models/registry.h"
#include "vlm/nn/lora/lora.h"

namespace vlm::train {
namespace {

const std::string kTiedModel = "smolvlm_odd";
const Json kSettings = {{"adam_beta1", 0.9},
                        {"adam_beta2", 0.999},
                        {"adam_epsilon", 1e-8},
                        {"weight_decay", 0.01},
                        {"max_grad_norm", 1.0}};

TrainConfig run_config(const std::string& kind) {
  TrainConfig config;
  config.method = kind.find("dora") == std::string::npos ? "lora" : "dora";
  config.weight_decay = kSettings["weight_decay"];
  return config;
}

struct SteppedRun {
  std::vector<double> losses, norms;
  ModelPtr model;
  LoraConfig lora;
};

// Six steps on the golden batches from PEFT's adapter.
SteppedRun run_steps(const std::string& kind, TrainConfig config, const Golden& golden) {
  SteppedRun run;
  run.model = load_model(fixture(kTiedModel), {});
  run.lora = load_adapter(run.model->module(), fixture(kTiedModel + "/adapters/" + kind));
  run.model->module().train();
  const TrainedParameters chosen = choose_parameters(*run.model, config, run.lora);
  const auto optimizer = make_optimizer(chosen.parameters, config.optimizer(), chosen.rate_factors);
  for (std::int64_t step = 0; step < 6; ++step) {
    const data::Batch batch = golden_batch(golden, static_cast<int>(step % 3));
    const at::Tensor loss = loss_sum(*run.model, batch) / static_cast<double>(batch.label_count);
    loss.backward();
    run.losses.push_back(loss.item<double>());
    run.norms.push_back(clip_grad_norm(optimizer->parameters(), kSettings["max_grad_norm"]));
    optimizer->step(golden[kind + ".learning_rates"][step].item<double>());
    optimizer->zero_grad();
  }
  return run;
}

TEST_CASE("six steps on embeddings, tied heads and tokens: PEFT's numbers") {
  const Golden golden(kTiedModel + "/adapters/runs.safetensors");
  for (const std::string kind :
       {"head", "embeddings", "both", "both_dora", "both_tied", "tokens", "tokens_head",
        "tokens_apart", "saved_head", "saved_embeddings", "saved_both", "saved_tied"}) {
    INFO(kind);
    const SteppedRun run = run_steps(kind, run_config(kind), golden);
    check_close(at::tensor(run.losses, at::kDouble), golden[kind + ".losses"], 2e-5);
    check_close(at::tensor(run.norms, at::kDouble), golden[kind + ".grad_norms"], 1e-4);
  }
}

TEST_CASE("8-bit AdamW steps on a tied branch as on one with memory of its own") {
  const Golden golden(kTiedModel + "/adapters/runs.safetensors");
  TrainConfig config = run_config("both_tied");
  config.optim = "adamw_8bit";
  const SteppedRun small = run_steps("both_tied", config, golden);
  check_close(at::tensor(small.losses, at::kDouble), golden["both_tied.losses"], 2e-5);
  // Large enough for codes: the branch of rank 2 has 806 values.
  const ScratchFolder folder;
  LoraConfig lora{.r = 16, .target_modules = std::vector<std::string>{"embed_tokens"}};
  lora.ensure_weight_tying = true;
  const ModelPtr model = load_model(fixture(kTiedModel), {});
  attach_lora(model->module(), lora, at::detail::createCPUGenerator(2));
  const TrainedParameters chosen = choose_parameters(*model, config, lora);
  const auto optimizer = make_optimizer(chosen.parameters, config.optimizer(), {});
  const data::Batch batch = golden_batch(golden, 0);
  std::vector<double> losses;
  for (int step = 0; step < 12; ++step) {
    const at::Tensor loss = loss_sum(*model, batch) / static_cast<double>(batch.label_count);
    loss.backward();
    losses.push_back(loss.item<double>());
    optimizer->step(5e-3);
    optimizer->zero_grad();
  }
  CHECK(losses.back() < losses.front() - 0.5);
  const auto parameters = model->module().named_parameters();
  CHECK(parameters["lm_head.lora_B.weight"].equal(
      parameters["model.text_model.embed_tokens.lora_embedding_A"].t()));
}

TEST_CASE("what is trained of a tied model has one turn; embeddings have LoRA+'s own rate") {
  const auto choose = [](LoraConfig lora, TrainConfig config) {
    const ModelPtr model = load_model(fixture(kTiedModel), {});
    attach_lora(model->module(), lora, at::detail::createCPUGenerator(2));
    const TrainedParameters chosen = choose_parameters(*model, config, lora);
    std::map<std::string, double> factors;
    for (std::size_t i = 0; i < chosen.parameters.size(); ++i) {
      factors[chosen.parameters[i].first] = chosen.rate_factors[i];
      CHECK(chosen.parameters[i].second.requires_grad());
    }
    return factors;
  };
  TrainConfig config;
  config.learning_rate = 1e-3;
  config.loraplus_lr_ratio = 4;
  const std::string embeddings = "model.text_model.embed_tokens.";
  auto factors =
      choose({.r = 2, .target_modules = std::vector<std::string>{"embed_tokens"}}, config);
  CHECK(factors.size() == 2);
  CHECK(factors[embeddings + "lora_embedding_A"] == Approx(1e-3));
  CHECK(factors[embeddings + "lora_embedding_B"] == Approx(1e-3));
  LoraConfig tokens{.r = 2, .target_modules = std::string(".*layers\\.0.*q_proj")};
  tokens.trainable_token_indices = {{"embed_tokens", {3, 4}}};
  factors = choose(tokens, config);
  CHECK(factors.count(embeddings + "token_adapter.trainable_tokens_delta") == 1);
  CHECK(factors.count("lm_head.token_adapter.trainable_tokens_delta") == 0);
  LoraConfig saved{.r = 2, .target_modules = std::string(".*layers\\.0.*q_proj")};
  saved.modules_to_save = {"embed_tokens"};
  CHECK(choose(saved, config).count("lm_head.weight") == 0);
  saved.modules_to_save = {"lm_head"};
  CHECK(choose(saved, config).count(embeddings + "weight") == 0);
}

TEST_CASE("random weights of a tied model are one weight") {
  TrainConfig config;
  config.model_name_or_path = fixture(kTiedModel).string();
  config.method = "full";
  config.init_weights = "random";
  const TrainedModel trained = load_trained_model(config, {}, at::kCPU);
  CHECK(trained.model->tied_weights().size() == 1);
  const auto parameters = trained.model->module().named_parameters();
  CHECK(parameters["lm_head.weight"].is_same(parameters["model.text_model.embed_tokens.weight"]));
}

}  // namespace
}  // namespace vlm::train
