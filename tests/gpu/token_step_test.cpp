// Decode steps on the GPU: the same operators on the same addresses from token to token, recorded
// and replayed, with the CPU's answers.
#include "infer/token_step.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "tests/gpu/program.h"
#include "tests/support/logged_lines.h"
#include "tests/support/simulated_cuda/device.h"
#include "tests/support/watched_model.h"
#include "vlm/core/error.h"
#include "vlm/models/registry.h"

namespace vlm {
namespace {

using infer::ChosenToken;
using infer::TokenStep;
using Ids = std::vector<std::int64_t>;

const std::vector<std::string> kModels = {"smolvlm_tiny", "qwen3_tiny", "qwen2_5_vl_tiny"};

ModelPtr load_on(const std::string& model, at::Device device) {
  return load_model(fixture(model), {.dtype = "float32", .device = device});
}

// A model, a cache of it, and the step that is tested.
struct Decoder {
  ModelPtr model;
  KvCache cache;
  TokenStep step;

  Decoder(const std::string& name, at::Device device, std::int64_t rows_per_group)
      : model(load_on(name, device)),
        cache(model->cache_shape(), rows_per_group, at::TensorOptions(at::kFloat).device(device)),
        step(model) {}

  void prefill(const Ids& groups, const std::vector<Ids>& prompts) {
    Ids lengths;
    std::int64_t longest = 0;
    for (const Ids& one : prompts) longest = std::max(longest, std::ssize(one));
    at::Tensor ids = at::zeros({std::ssize(prompts), longest}, at::kLong);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      lengths.push_back(std::ssize(prompts[i]));
      ids[static_cast<std::int64_t>(i)].narrow(0, 0, lengths.back()).copy_(at::tensor(prompts[i]));
    }
    const at::Tensor embedded = model->embed(ids, {});
    cache.begin_prefill(groups, lengths);
    model->decode(embedded, {}, &cache);
  }
};

Ids ids_of(const std::vector<ChosenToken>& tokens) {
  Ids ids;
  for (const ChosenToken& token : tokens) ids.push_back(token.id);
  return ids;
}

// Both decoders go on by greedy search from `ids` for some tokens.
Ids decode_alike(Decoder& found, Decoder& wanted, const Ids& rows, Ids ids, int tokens) {
  for (int i = 0; i < tokens; ++i) {
    INFO("token " << i);
    const auto a = found.step.find_likeliest(found.cache, rows, ids);
    const auto b = wanted.step.find_likeliest(wanted.cache, rows, ids);
    REQUIRE(ids_of(a) == ids_of(b));
    for (std::size_t row = 0; row < rows.size(); ++row) {
      CHECK(a[row].logprob == Approx(b[row].logprob).margin(2e-4).epsilon(2e-4));
    }
    ids = ids_of(a);
  }
  return ids;
}

// Rows of three groups come and go, one group moves, tails are copied; lengths cross those that the
// step rounds up to.
void check_search(const std::string& model, bool is_recorded) {
  Decoder gpu(model, kGpu, 2), cpu(model, at::kCPU, 2);
  const c10::InferenceMode inference;
  if (is_recorded) gpu.step.record();
  for (Decoder* one : {&gpu, &cpu}) one->prefill({0, 1}, {{5, 6, 7, 8}, {9, 10}});
  Ids next = decode_alike(gpu, cpu, {0, 2}, {11, 12}, 40);
  next = decode_alike(gpu, cpu, {2}, {next[1]}, 7);
  for (Decoder* one : {&gpu, &cpu}) one->cache.copy_tails({2, 2}, {2, 3});
  next = decode_alike(gpu, cpu, {2, 3}, {13, 14}, 6);
  for (Decoder* one : {&gpu, &cpu}) one->prefill({2}, {Ids(150, 15)});
  next = decode_alike(gpu, cpu, {2, 3, 4}, {16, 17, 18}, 6);
  for (Decoder* one : {&gpu, &cpu}) one->cache.move_group(2, 0);
  next = decode_alike(gpu, cpu, {0}, {next[2]}, 6);
  const at::Tensor a = gpu.step.find_logits(gpu.cache, {0}, next),
                   b = cpu.step.find_logits(cpu.cache, {0}, next);
  check_close(a, b, 1e-3);
  for (int i = 0; i < 5; ++i) {
    const Ids other = {20 + i};
    check_close(gpu.step.find_logits(gpu.cache, {0}, other),
                cpu.step.find_logits(cpu.cache, {0}, other), 1e-3);
  }
  CHECK((gpu.step.replays() > 40) == is_recorded);
  CHECK(cpu.step.replays() == 0);
}

TEST_CASE("rows that come and go decode on the GPU as on the CPU") {
  for (const std::string& model : kModels) {
    INFO(model);
    check_search(model, /*is_recorded=*/false);
  }
}

TEST_CASE("recorded steps decode as the CPU does, rows coming and going") {
  for (const std::string& model : kModels) {
    INFO(model);
    check_search(model, /*is_recorded=*/true);
  }
}

TEST_CASE("a step is the same from token to token: operators, no upload, one wait") {
  Decoder gpu("smolvlm_tiny", kGpu, 1);
  const c10::InferenceMode inference;
  gpu.prefill({0}, {{5, 6, 7}});
  Ids ids = {8};
  const auto step = [&] {
    return counts_of([&] { ids = ids_of(gpu.step.find_likeliest(gpu.cache, {0}, ids)); });
  };
  step();
  const auto first = step();
  CHECK(first.uploads == 0);
  CHECK(first.waits == 1);
  CHECK(first.bytes_down == 16);
  for (int i = 0; i < 25; ++i) CHECK(step().by_name == first.by_name);
}

TEST_CASE("a recorded step is one launch") {
  Decoder gpu("smolvlm_tiny", kGpu, 1);
  const c10::InferenceMode inference;
  gpu.step.record();
  gpu.prefill({0}, {{5, 6, 7}});
  Ids ids = {8};
  const auto step = [&] {
    return counts_of([&] { ids = ids_of(gpu.step.find_likeliest(gpu.cache, {0}, ids)); });
  };
  for (int i = 0; i < 3; ++i) step();
  for (int i = 0; i < 20; ++i) {
    const auto cost = step();
    CHECK(cost.operators == 1);
    CHECK(cost.uploads == 0);
    CHECK(cost.waits == 1);
  }
}

TEST_CASE("what can't be recorded is run, and said once") {
  Decoder gpu("smolvlm_tiny", kGpu, 1), cpu("smolvlm_tiny", at::kCPU, 1);
  // Each time the host reads the ids, for which it waits.
  gpu.step = TokenStep(std::make_shared<WatchedModel>(
      gpu.model, [](const at::Tensor& ids) { ids.sum().item<std::int64_t>(); }));
  gpu.step.record();
  const c10::InferenceMode inference;
  const LoggedLines lines(LogLevel::kWarning);
  for (Decoder* one : {&gpu, &cpu}) one->prefill({0}, {{5, 6, 7}});
  decode_alike(gpu, cpu, {0}, {8}, 40);
  CHECK(gpu.step.replays() == 0);
  CHECK_THAT(lines.text, Contains("decode steps can't be recorded and are run one operator at a "
                                  "time: CUDA error: operation not permitted"));
  CHECK(std::count(lines.text.begin(), lines.text.end(), '\n') == 1);
}

TEST_CASE("recording is refused for a CPU, and for models whose sequences turn otherwise") {
  CHECK_THROWS_WITH(TokenStep(load_on("smolvlm_tiny", at::kCPU)).record(),
                    Contains("--cuda-graph: decoding can't be recorded: got device cpu"));
  CHECK_THROWS_WITH(TokenStep(load_on("phi3_tiny", kGpu)).record(),
                    Contains("(LongRoPE)") && Contains("answers are the same without it"));
  const ProgramResult host = run_here({"generate", "--model", fixture("smolvlm_tiny").string(),
                                       "--device", "cpu", "--prompt", "What?", "--cuda-graph"});
  CHECK(host.code == 1);
  CHECK_THAT(host.err, Contains("--cuda-graph: decoding can't be recorded: got device cpu"));
}

}  // namespace
}  // namespace vlm
