// Text models against transformers on tiny random checkpoints: graph, gradients, cache, adapters.
#include "vlm/models/text/text_model.h"

#include "tests/support/tensors.h"
#include "vlm/models/registry.h"
#include "vlm/nn/lora/lora.h"

namespace vlm {
namespace {

const char* const kTextModels[] = {"llama_tiny", "qwen2_tiny", "qwen3_tiny", "phi3_tiny"};

struct Oracle {
  Golden golden;
  ModelPtr model;

  explicit Oracle(const std::string& name)
      : golden(name + "/golden.safetensors"), model(load_model(fixture(name), {})) {}

  at::Tensor ids(int row) const { return golden[concat_name("ids", row)]; }
  static std::string concat_name(const std::string& name, int row) {
    return name + "." + std::to_string(row);
  }
  at::Tensor of(const std::string& name, int row) const { return golden[concat_name(name, row)]; }
};

TEST_CASE("text models: hidden states and logits equal transformers', alone and padded together") {
  const at::NoGradGuard no_grad;
  for (const std::string name : kTextModels) {
    INFO(name);
    const Oracle oracle(name);
    VisionLanguageModel& model = *oracle.model;
    for (const int row : {0, 1}) {
      const at::Tensor hidden = model.decode(model.embed(oracle.ids(row), {}), {}, nullptr);
      check_close(hidden, oracle.of("hidden", row));
      check_close(model.logits(hidden.narrow(1, hidden.size(1) - 3, 3)), oracle.of("logits", row));
    }
    // The longer row is beyond the switch of LongRoPE, the shorter isn't.
    const at::Tensor longer = oracle.ids(0), shorter = oracle.ids(1);
    const std::int64_t padding = longer.size(1) - shorter.size(1);
    const at::Tensor ids = at::cat({longer, at::constant_pad_nd(shorter, {padding, 0})});
    const at::Tensor mask =
        at::stack({at::ones(longer.size(1)), at::arange(longer.size(1)).ge(padding)}).to(at::kBool);
    const at::Tensor hidden = model.decode(model.embed(ids, {}), mask, nullptr);
    check_close(hidden.narrow(0, 0, 1), oracle.of("hidden", 0));
    check_close(hidden[1].narrow(0, padding, shorter.size(1)), oracle.of("hidden", 1)[0]);
  }
}

// The sum over all predicted tokens of both rows, divided by their number.
at::Tensor loss_of(const Oracle& oracle, bool is_packed) {
  VisionLanguageModel& model = *oracle.model;
  const std::int64_t first = oracle.ids(0).size(1), second = oracle.ids(1).size(1);
  at::Tensor hidden[2];
  if (is_packed) {
    const at::Tensor row =
        model.decode_packed(model.embed(at::cat({oracle.ids(0), oracle.ids(1)}, 1), {}),
                            {{.begin = 0, .length = first}, {.begin = first, .length = second}});
    hidden[0] = row.narrow(1, 0, first);
    hidden[1] = row.narrow(1, first, second);
  } else {
    for (const int row : {0, 1}) {
      hidden[row] = model.decode(model.embed(oracle.ids(row), {}), {}, nullptr);
    }
  }
  at::Tensor total = at::zeros({});
  for (const int row : {0, 1}) {
    const std::int64_t labels = oracle.ids(row).size(1) - 1;
    total = total + at::cross_entropy_loss(model.logits(hidden[row].narrow(1, 0, labels))[0],
                                           oracle.ids(row)[0].narrow(0, 1, labels), {},
                                           at::Reduction::Sum);
  }
  return total / (first + second - 2);
}

TEST_CASE("text models: loss and gradients equal transformers', packed and checkpointed too") {
  for (const std::string name : kTextModels) {
    for (const int kind : {0, 1, 2}) {
      INFO(name << " " << kind);
      const Oracle oracle(name);
      oracle.model->module().train();
      oracle.model->gradient_checkpointing = kind == 2;
      const at::Tensor loss = loss_of(oracle, /*is_packed=*/kind == 1);
      check_close(loss.view({1}), oracle.golden["loss"]);
      loss.backward();
      std::size_t compared = 0;
      for (const auto& item : oracle.model->module().named_parameters()) {
        if (!oracle.golden.has("grad." + item.key())) continue;
        INFO(item.key());
        check_close(item.value().grad(), oracle.golden["grad." + item.key()], 3e-5);
        ++compared;
      }
      CHECK(compared == oracle.model->weights().size());
    }
  }
}

// Feeds the answers of both rows token by token; row 1 of the second group copies row 0's.
void check_decoding(const Oracle& oracle, std::int64_t rows_per_group, double tolerance) {
  const at::NoGradGuard no_grad;
  VisionLanguageModel& model = *oracle.model;
  KvCache cache(model.cache_shape(), rows_per_group, at::kFloat);
  const std::int64_t longest = oracle.ids(0).size(1), length = oracle.ids(1).size(1);
  const at::Tensor prompts =
      at::cat({oracle.ids(0), at::constant_pad_nd(oracle.ids(1), {0, longest - length})});
  cache.begin_prefill({0, 1}, {longest, length});
  const at::Tensor hidden = model.decode(model.embed(prompts, {}), {}, &cache);
  std::vector<at::Tensor> last = {hidden[0][longest - 1], hidden[1][length - 1]};
  std::vector<std::int64_t> rows;
  for (std::int64_t row = 0; row < 2 * rows_per_group; ++row) rows.push_back(row);
  const std::vector<std::int64_t> ones(rows.size(), 1);
  const std::int64_t steps = oracle.of("greedy_ids", 0).size(1);
  for (std::int64_t step = 0; step < steps; ++step) {
    std::vector<at::Tensor> next;
    for (std::size_t i = 0; i < last.size(); ++i) {
      const int group = static_cast<int>(i * 2 / last.size());
      const at::Tensor id = oracle.of("greedy_ids", group).narrow(1, step, 1);
      const at::Tensor scores = model.logits(last[i]).log_softmax(-1);
      INFO("step " << step << ", row " << i);
      CHECK(scores.argmax().item<std::int64_t>() == id.item<std::int64_t>());
      check_close(scores[id.item<std::int64_t>()].view({1}),
                  oracle.of("greedy_logprobs", group)[0].narrow(0, step, 1), tolerance);
      const auto copies = last.size() == 2 ? rows_per_group : 1;
      for (std::int64_t copy = 0; copy < copies; ++copy) next.push_back(id);
    }
    if (step + 1 == steps) break;
    if (rows_per_group == 2 && step > 2) cache.copy_tails({3, 2}, {2, 3});
    cache.begin_extend(rows, ones);
    const at::Tensor found = model.decode(model.embed(at::cat(next), {}), {}, &cache);
    last.clear();
    for (std::int64_t row = 0; row < found.size(0); ++row) last.push_back(found[row][0]);
  }
}

TEST_CASE("text models: greedy decoding with the cache equals transformers', across the switch") {
  for (const std::string name : kTextModels) {
    INFO(name);
    const Oracle oracle(name);
    check_decoding(oracle, 1, 2e-5);
    check_decoding(oracle, 2, 2e-5);
  }
}

TEST_CASE("a sequence whose suffix crosses the switch is computed again, beside one that doesn't") {
  const at::NoGradGuard no_grad;
  const Oracle oracle("phi3_tiny");  // the switch is at 16
  VisionLanguageModel& model = *oracle.model;
  const at::Tensor ids = oracle.ids(0);  // 44 tokens
  const auto alone = [&](std::int64_t count) {
    return model.decode(model.embed(ids.narrow(1, 0, count), {}), {}, nullptr)[0][count - 1];
  };
  KvCache cache(model.cache_shape(), 2, at::kFloat);
  cache.begin_prefill({0}, {12});
  model.decode(model.embed(ids.narrow(1, 0, 12), {}), {}, &cache);
  const auto extend = [&](std::vector<std::int64_t> rows, std::vector<std::int64_t> begins,
                          std::vector<std::int64_t> counts) {
    std::vector<at::Tensor> given;
    const std::int64_t most = *std::max_element(counts.begin(), counts.end());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      given.push_back(
          at::constant_pad_nd(ids.narrow(1, begins[i], counts[i]), {0, most - counts[i]}));
    }
    cache.begin_extend(rows, counts);
    return model.decode(model.embed(at::cat(given), {}), {}, &cache);
  };
  // Row 0 ends below the switch, row 1 goes far beyond it in one pass.
  const at::Tensor first = extend({0, 1}, {12, 12}, {3, 20});
  check_close(first[0][2], alone(15));
  check_close(first[1][19], alone(32));
  // Then row 0 crosses, and row 1 goes on.
  const at::Tensor second = extend({0, 1}, {15, 32}, {2, 1});
  check_close(second[0][1], alone(17));
  check_close(second[1][0], alone(33));
  const at::Tensor third = extend({0, 1}, {17, 33}, {1, 1});
  check_close(third[0][0], alone(18));
  check_close(third[1][0], alone(34));
  // A row that begins anew sees the prefix again, as it was.
  cache.clear_tail(0);
  check_close(extend({0, 1}, {12, 34}, {1, 1})[0][0], alone(13));
}

TEST_CASE("text models: a PEFT adapter on all linear layers, attached and merged") {
  const at::NoGradGuard no_grad;
  for (const std::string name : kTextModels) {
    INFO(name);
    const Oracle oracle(name);
    VisionLanguageModel& model = *oracle.model;
    load_adapter(model.module(), fixture(name) / "adapter");
    const auto logits = [&] {
      const at::Tensor hidden = model.decode(model.embed(oracle.ids(1), {}), {}, nullptr);
      return model.logits(hidden.narrow(1, hidden.size(1) - 3, 3));
    };
    check_close(logits(), oracle.golden["adapter_logits"]);
    merge_lora(model.module());
    check_close(logits(), oracle.golden["adapter_logits"]);
  }
}

TEST_CASE("text models: low precisions stay near float32, fused and plain projections alike") {
  const at::NoGradGuard no_grad;
  for (const std::string name : kTextModels) {
    for (const std::string dtype : {"bfloat16", "int8"}) {
      INFO(name << " " << dtype);
      const Oracle oracle(name);
      const ModelPtr model = load_model(fixture(name), {.dtype = dtype, .mixed_precision = true});
      const at::Tensor hidden = model->decode(model->embed(oracle.ids(0), {}), {}, nullptr);
      check_close(hidden, oracle.of("hidden", 0), 0.2);
      CHECK_FALSE(hidden.equal(oracle.of("hidden", 0)));
    }
  }
}

TEST_CASE("a text model has no pictures") {
  const Oracle oracle("llama_tiny");
  CHECK(oracle.model->media_token_ids().empty());
  CHECK(oracle.model->filler_id() == 0);
  CHECK(oracle.model->picture_weights().empty());
  CHECK(oracle.model->parts() ==
        std::map<std::string, std::string>{{"text_model", "model"}, {"lm_head", "lm_head"}});
  CHECK_THROWS_WITH(oracle.model->encode({.values = at::zeros({1, 3, 8, 8}), .tokens = 1}),
                    "a model of text alone takes no pictures");
}

TEST_CASE("a head of its own beside equal embeddings is tied, beside others kept") {
  const Oracle oracle("llama_tiny");
  CHECK(oracle.model->tied_weights().size() == 1);
  CHECK(oracle.model->weights().size() == oracle.model->module().named_parameters().size() - 1);
  const Oracle untied("qwen2_tiny");
  CHECK(untied.model->tied_weights().empty());
}

}  // namespace
}  // namespace vlm
