#include "train/config/train_config.h"

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/nn/lora/target_rules.h"

namespace vlm::train {
namespace {

// Loads a config of the smallest valid keys with `more` added.
TrainConfig load(const std::string& more, const std::vector<std::string>& overrides = {}) {
  const ScratchFolder folder;
  const auto path = folder.path() / "c.json";
  save_text(path, R"({"model_name_or_path": "m", "output_dir": "o", "train_files": ["d.jsonl"])" +
                      more + "}");
  return load_train_config(path, overrides);
}

TEST_CASE("every config of the project loads") {
  std::int64_t loaded = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(VLM_SOURCE_DIR) + "/configs")) {
    INFO(entry.path());
    CHECK_NOTHROW(load_train_config(entry.path(), {}));
    ++loaded;
  }
  CHECK(loaded >= 2);
}

TEST_CASE("keys are strict, and overrides win") {
  CHECK(load(R"(, "r": 4)", {"r=16", "augmentation.shift=0.1"}).r == 16);
  CHECK_THROWS_WITH(load(R"(, "learning_rat": 1)"),
                    Contains("c.json: unknown key 'learning_rat' (did you mean 'learning_rate'?)"));
  CHECK_THROWS_WITH(load(R"(, "augmentation": {"shift": 2})"),
                    Contains("augmentation.shift: value out of range: got 2, wanted 0 to below 1"));
  CHECK_THROWS_WITH(load(R"(, "method": "vera")"),
                    Contains("method: unknown value: got 'vera', wanted lora, qlora, dora, full"));
}

TEST_CASE("what the command line gives is named as such where it can't be used") {
  CHECK_THROWS_WITH(load("", {"learning_rat=1"}),
                    "command line: unknown key 'learning_rat' (did you mean 'learning_rate'?)");
  CHECK_THROWS_WITH(load("", {"lora_rank=8"}),
                    "command line: unknown key 'lora_rank' (LLaMA-Factory's; here it is r)");
  CHECK_THROWS_WITH(load("", {"much"}),
                    "command line: not an assignment: got 'much', wanted key=value");
  CHECK_THROWS_WITH(load("", {"r=many"}), Contains("command line: r: wrong type"));
  CHECK_THROWS_WITH(load(R"(, "max_length": 5)", {"max_length=-1"}),
                    "command line: max_length: value out of range: got -1, wanted at least 0");
  CHECK_THROWS_WITH(load("", {"augmentation.shift=2"}),
                    "command line: augmentation.shift: value out of range: got 2, wanted 0 to "
                    "below 1");
  // The file's own are placed in the file as ever.
  CHECK_THROWS_WITH(load(R"(, "max_length": -1)", {"r=4"}), Contains("c.json: max_length: value"));
}

TEST_CASE("values that can't work are refused by key") {
  CHECK_THROWS_WITH(
      load(R"(, "per_device_train_batch_size": 0)"),
      Contains(
          "c.json: per_device_train_batch_size: value out of range: got 0, wanted at least 1"));
  CHECK_THROWS_WITH(load(R"(, "adam_beta2": 1)"), Contains("adam_beta2: value out of range"));
  CHECK_THROWS_WITH(load(R"(, "num_train_epochs": 0)"),
                    Contains("num_train_epochs: value out of range"));
  CHECK_THROWS_WITH(load(R"(, "eval_steps": 5)"),
                    Contains("eval_steps: eval_steps without eval_files"));
  CHECK_THROWS_WITH(load(R"(, "freeze": ["tower"])"),
                    Contains("freeze: unknown part: got 'tower', wanted vision_model"));
  CHECK_THROWS_WITH(load(R"(, "output_dir": "")"), Contains("key given twice"));
  CHECK_THROWS_WITH(load("", {"output_dir="}), Contains("output_dir: required key is missing"));
  CHECK_THROWS_WITH(load(R"(, "adapter": "a", "method": "full")"),
                    Contains("adapter: adapter needs method lora"));
  CHECK_THROWS_WITH(load(R"(, "init_weights": "random")"),
                    Contains("random weights need method full"));
  CHECK_THROWS_WITH(load(R"(, "stages": [{"train_files": ["a"], "steps": 1}])"),
                    Contains("both train_files and stages are given"));
  CHECK_THROWS_WITH(load("", {"train_files=[]"}), Contains("train_files: no training data"));
  CHECK_THROWS_WITH(load("", {"train_files=[]", R"(stages=[{"train_files": ["a"]}])"}),
                    Contains("stages[0]: a stage needs train_files and steps"));
}

// The overrides that `load` takes although they are absurd.
std::vector<std::string> taken(const Fields& fields, const std::string& prefix) {
  std::vector<std::string> names;
  const auto try_out = [&](const std::string& name, const std::vector<const char*>& values) {
    for (const char* value : values) {
      try {
        load(R"(, "eval_files": ["e"], "eval_steps": 1, "optim": "sgd")", {name + "=" + value});
        names.push_back(name + "=" + value);
      } catch (const vlm::Error& error) {
        CHECK_THAT(error.what(), Contains(name.substr(name.rfind('.') + 1)));
      }
    }
  };
  for (const Field& field : fields) {
    const std::string name = prefix + field.name;
    const auto is = [&](auto* type) {
      return std::holds_alternative<decltype(type)>(field.target);
    };
    if (is(static_cast<std::int64_t*>(nullptr)) ||
        is(static_cast<std::optional<std::int64_t>*>(nullptr))) {
      try_out(name, {"-5", "9223372036854775807"});
    } else if (is(static_cast<double*>(nullptr)) ||
               is(static_cast<std::optional<double>*>(nullptr))) {
      try_out(name, {"-5", "1e300"});
    } else if (const auto* nested = std::get_if<Fields*>(&field.target)) {
      for (const std::string& inner : taken(**nested, name + ".")) names.push_back(inner);
    }
  }
  return names;
}

TEST_CASE("every number has bounds on both sides, but the seed") {
  TrainConfig config;
  CHECK(taken(config.fields(), "") ==
        std::vector<std::string>{"seed=-5", "seed=9223372036854775807"});
  CHECK_THROWS_WITH(load("", {"max_steps=-5"}),
                    Contains("max_steps: value out of range: got -5, wanted 1 to 1000000000000, or "
                             "-1 for num_train_epochs"));
  CHECK_THROWS_WITH(load("", {"max_steps=0"}), Contains("max_steps: value out of range: got 0"));
  CHECK(load("", {"max_steps=-1"}).max_steps == -1);
  CHECK_THROWS_WITH(load("", {"train_files=[]",
                              R"(stages=[{"train_files": ["a"], "steps": 9000000000000000000}])"}),
                    Contains("stages.steps: value out of range"));
}

TEST_CASE("what has nothing to act on is refused where the config tells") {
  const std::string files = R"(, "eval_files": ["e.jsonl"])";
  CHECK_THROWS_WITH(load(files + R"(, "load_best_model_at_end": true)"),
                    Contains("load_best_model_at_end: there is nothing to choose from"));
  CHECK_THROWS_WITH(load(files + R"(, "early_stopping_patience": 1)"),
                    Contains("early_stopping_patience: the run ends before it could be stopped"));
  CHECK_NOTHROW(load(files + R"(, "early_stopping_patience": 1, "eval_steps": 5)"));
}

TEST_CASE("options that would have no effect, or can't have one, are refused by key") {
  CHECK_THROWS_WITH(load(R"(, "init_lora_weights": "olora")"),
                    Contains("init_lora_weights: value not allowed: got olora, wanted true"));
  CHECK_THROWS_WITH(load(R"(, "init_lora_weights": "pissa", "method": "qlora")"),
                    Contains("init_lora_weights: pissa needs method lora: got qlora"));
  CHECK_THROWS_WITH(load(R"(, "method": "full", "modules_to_save": ["lm_head"])"),
                    Contains("modules_to_save: a full training trains every module"));
  CHECK_THROWS_WITH(load(R"(, "method": "full", "bias": "all")"),
                    Contains("bias: a full training trains every bias"));
  CHECK_THROWS_WITH(load(R"(, "method": "full", "loraplus_lr_ratio": 4)"),
                    Contains("loraplus_lr_ratio: LoRA+ needs adapters"));
  CHECK_THROWS_WITH(load(R"(, "loraplus_lr_ratio": 0.5)"),
                    Contains("loraplus_lr_ratio: value out of range"));
  CHECK_THROWS_WITH(load(R"(, "vision_lr": 1e-5, "learning_rate": 0)"),
                    Contains("vision_lr: a part's rate needs a learning_rate"));
  CHECK_THROWS_WITH(load(R"(, "sgd_momentum": 0.9)"), Contains("sgd_momentum: only sgd has it"));
  CHECK_THROWS_WITH(load("", {"lr_scheduler_kwargs.num_cycles=2"}),
                    Contains("lr_scheduler_kwargs.num_cycles: the schedule has no such option: "
                             "got linear"));
  CHECK_THROWS_WITH(load("", {"lr_scheduler_type=warmup_stable_decay"}),
                    Contains("num_decay_steps: warmup_stable_decay needs the length of its decay"));
  CHECK_THROWS_WITH(
      load("", {"lr_scheduler_type=warmup_stable_decay", "lr_scheduler_kwargs.num_decay_steps=9"})
          .schedule(5),
      Contains("warm-up and decay are longer than the run: got 0 + 9"));
}

TEST_CASE("the adapter's config is what the keys say") {
  const LoraConfig lora = load(R"(, "method": "dora", "init_lora_weights": "gaussian",
      "bias": "lora_only", "modules_to_save": ["lm_head"])")
                              .lora();
  CHECK(lora.use_dora);
  CHECK(lora.init_lora_weights == "gaussian");
  CHECK(lora.bias == "lora_only");
  CHECK(lora.modules_to_save == std::vector<std::string>{"lm_head"});
  CHECK(load("").lora().init_lora_weights == "true");
  CHECK_FALSE(load(R"(, "method": "qlora")").lora().use_dora);
}

TEST_CASE("a list of modules is looked up in the text model only, unless asked otherwise") {
  const std::string text = "model.text_model.layers.3.self_attn.q_proj";
  const std::string vision = "model.vision_model.encoder.layers.3.self_attn.q_proj";
  const auto hits = [](const LoraConfig& lora, const std::string& name) {
    return TargetRules(lora).hits({name, LayerKind::kLinear});
  };
  CHECK(hits(load("").lora(), text));
  CHECK_FALSE(hits(load("").lora(), vision));
  CHECK_FALSE(hits(load("").lora(), "lm_head"));
  const auto both = load(R"(, "target_parts": ["text_model", "vision_model"])").lora();
  CHECK(hits(both, vision));
  CHECK_FALSE(hits(both, "model.text_model.layers.3.self_attn.xq_proj"));
  const auto pattern = load(R"(, "target_modules": ".*vision.*q_proj")").lora();
  CHECK(hits(pattern, vision));
  CHECK_FALSE(hits(pattern, text));
  CHECK(hits(load(R"(, "target_modules": ["q_proj", "lm_head"])").lora(), "lm_head"));
  for (const LoraConfig& lora : {load(R"(, "exclude_modules": ["o.proj"])").lora(), both}) {
    // What is written for PEFT selects the same.
    const LoraConfig written = LoraConfig::parse(lora.to_json("base"), "adapter_config.json");
    CHECK(written.target_parts.empty());
    for (const std::string& name : {text, vision, std::string("lm_head"), text + "s",
                                    std::string("model.text_model.layers.3.self_attn.o_proj"),
                                    std::string("model.text_model.layers.3.mlp.o.proj")}) {
      INFO(name);
      CHECK(hits(written, name) == hits(lora, name));
    }
  }
}

TEST_CASE("keys of adapters that have no effect are refused") {
  CHECK_THROWS_WITH(load(R"(, "target_modules": "all-linear", "target_parts": ["text_model"])"),
                    Contains("target_parts: parts are for a list of target_modules: got text_model "
                             "('all-linear' is looked up in the whole model)"));
  CHECK_THROWS_WITH(load(R"(, "method": "full", "trainable_token_indices": [3])"),
                    Contains("trainable_token_indices: a full training has no adapters: got [3]"));
  CHECK_THROWS_WITH(load(R"(, "method": "full", "ensure_weight_tying": true)"),
                    Contains("ensure_weight_tying: a full training has no adapters"));
  CHECK_THROWS_WITH(load(R"(, "rank_pattern": {"q_proj": 0.5})"),
                    Contains("config: rank_pattern: q_proj: not a rank: got 0.5"));
  CHECK_THROWS_WITH(load(R"(, "target_modules": ".*", "layers_to_transform": [1])"),
                    Contains("layers_to_transform: needs a list in target_modules"));
}

TEST_CASE("the order of patterns is that of the file, of --set and of what is written") {
  const std::string keys = R"({"z_proj": 2, "a_proj": 3, ".*": 4})";
  const PatternList wanted = {{"z_proj", 2}, {"a_proj", 3}, {".*", 4}};
  const auto from_file = load(", \"rank_pattern\": " + keys + ", \"alpha_pattern\": " + keys);
  CHECK(from_file.lora().rank_pattern == wanted);
  CHECK(from_file.lora().alpha_pattern == wanted);
  TrainConfig set = load("", {"rank_pattern=" + keys});
  CHECK(set.lora().rank_pattern == wanted);
  const OrderedJson written = OrderedJson::parse(write_fields(set.fields()).dump());
  CHECK(written["rank_pattern"].dump() == OrderedJson::parse(keys).dump());
  CHECK(set.lora().to_json("base")["rank_pattern"].dump() == OrderedJson::parse(keys).dump());
}

}  // namespace
}  // namespace vlm::train
