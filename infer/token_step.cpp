#include "infer/token_step.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/max.h>

#include <exception>
#include <string>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/io/error_text.h"

namespace vlm::infer {
namespace {

using Ids = std::vector<std::int64_t>;

constexpr int kRunsBefore = 2;  // a shape that passes at once isn't worth it; kernels warm up
constexpr std::size_t kMostRecordings = 16;

std::vector<ChosenToken> to_tokens(const at::Tensor& answer) {
  const std::int64_t rows = answer.size(0) / 2;
  const std::int64_t* ids = answer.const_data_ptr<std::int64_t>();
  const auto* logprobs = reinterpret_cast<const float*>(ids + rows);
  std::vector<ChosenToken> tokens;
  for (std::int64_t row = 0; row < rows; ++row) {
    tokens.push_back({.id = ids[row], .logprob = logprobs[row]});
  }
  return tokens;
}

}  // namespace

void TokenStep::record() {
  std::string reason = why_no_graphs(model_->device());
  if (reason.empty() && model_->switch_length() > 0) {
    reason = "a model whose sequences turn otherwise when they grow (LongRoPE)";
  }
  if (!reason.empty()) {
    throw Error({.what = "decoding can't be recorded",
                 .where = "--cuda-graph",
                 .got = reason,
                 .wanted = "a GPU, and a model whose steps are all alike",
                 .hint = "answers are the same without it"});
  }
  is_recording_ = true;
}

// What the device is asked for. On a GPU nothing here may wait or copy.
at::Tensor TokenStep::ask(KvCache& cache, const at::Tensor& ids, Wanted wanted) {
  const at::Tensor hidden = model_->decode(model_->embed_tokens(ids), {}, &cache).select(1, 0);
  const at::Tensor logits = model_->logits(hidden);
  if (wanted == Wanted::kLogits) return logits;
  const at::Tensor logprobs = logits.log_softmax(-1, at::kFloat);
  // Both numbers of a row go into one tensor, in a step that of the cache: the ids lie where the
  // next step reads them.
  const std::int64_t rows = logprobs.size(0);
  const StepState* step = cache.step();
  const at::Tensor answer =
      step ? step->answer() : at::empty({2 * rows}, logprobs.options().dtype(at::kLong));
  at::Tensor found_ids = answer.narrow(0, 0, rows).unsqueeze(1);
  at::Tensor found = answer.narrow(0, rows, rows).view(at::kFloat).narrow(0, 0, rows).unsqueeze(1);
  at::max_out(found, found_ids, logprobs, -1, /*keepdim=*/true);
  return answer;
}

TokenStep::Recording& TokenStep::recording_of(const Pass& pass) {
  // Those of other buffers are never asked for again.
  std::erase_if(recordings_,
                [&](const auto& one) { return one.first.shape.buffers != pass.shape.buffers; });
  if (recordings_.size() >= kMostRecordings && recordings_.count(pass) == 0) recordings_.clear();
  return recordings_[pass];
}

bool TokenStep::try_to_record(Recording& recording, KvCache& cache, const at::Tensor& ids,
                              Wanted wanted) {
  try {
    auto graph = std::make_unique<DeviceGraph>(model_->device());
    graph->capture([&] { recording.result = ask(cache, ids, wanted); });
    recording.graph = std::move(graph);
    return true;
  } catch (const std::exception& error) {
    log_warning(concat("decode steps can't be recorded and are run one operator at a time: ",
                       error_text(error)));
    is_recording_ = false;
    return false;
  }
}

at::Tensor TokenStep::run(KvCache& cache, const Ids& rows, const Ids& next, Wanted wanted) {
  const at::Tensor ids = cache.begin_step(rows, next);
  if (!is_recording_ || cache.step() == nullptr) return ask(cache, ids, wanted);
  Recording& recording = recording_of({cache.step_shape(), wanted});
  if (!recording.graph && recording.runs++ < kRunsBefore) return ask(cache, ids, wanted);
  if (!recording.graph && !try_to_record(recording, cache, ids, wanted)) {
    recordings_.clear();
    return ask(cache, cache.begin_step(rows, next), wanted);
  }
  recording.graph->replay();
  ++replays_;
  return recording.result;
}

at::Tensor TokenStep::find_logits(KvCache& cache, const Ids& rows, const Ids& ids) {
  const at::Tensor logits = run(cache, rows, ids, Wanted::kLogits).to(at::kCPU, at::kFloat);
  if (cache.step() != nullptr) cache.end_step();
  return logits;
}

std::vector<ChosenToken> TokenStep::find_likeliest(KvCache& cache, const Ids& rows,
                                                   const Ids& ids) {
  const std::vector<ChosenToken> tokens =
      to_tokens(run(cache, rows, ids, Wanted::kLikeliest).cpu());
  if (StepState* step = cache.step()) {
    cache.end_step();
    Ids found;
    for (const ChosenToken& token : tokens) found.push_back(token.id);
    step->expect_ids(std::move(found));
  }
  return tokens;
}

}  // namespace vlm::infer
