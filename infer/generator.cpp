#include "infer/generator.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <chrono>

#include "infer/search.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

class Stopwatch {
 public:
  // Seconds since the last call. Work queued on a GPU is waited for by the reads between calls.
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - start_).count();
    start_ = now;
    return seconds;
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Prompts as one batch, padded on the left.
struct PaddedBatch {
  at::Tensor input_ids;       // [B, T]
  at::Tensor attention_mask;  // [B, T] bool, or undefined when nothing is padded
  std::int64_t length = 0;    // T
};

PaddedBatch pad_left(const std::vector<EncodedConversation>& prompts, std::int64_t pad_id) {
  PaddedBatch batch;
  bool is_padded = false;
  for (const auto& prompt : prompts) {
    batch.length = std::max(batch.length, static_cast<std::int64_t>(prompt.ids.size()));
  }
  const std::vector<std::int64_t> size = {static_cast<std::int64_t>(prompts.size()), batch.length};
  batch.input_ids = at::full(size, pad_id, at::kLong);
  at::Tensor mask = at::zeros(size, at::kBool);
  for (std::size_t row = 0; row < prompts.size(); ++row) {
    const auto& ids = prompts[row].ids;
    const auto end = batch.length * static_cast<std::int64_t>(row + 1);
    std::copy(
        ids.begin(), ids.end(),
        batch.input_ids.data_ptr<std::int64_t>() + end - static_cast<std::int64_t>(ids.size()));
    const auto count = static_cast<std::int64_t>(ids.size());
    mask.select(0, static_cast<std::int64_t>(row))
        .narrow(0, batch.length - count, count)
        .fill_(true);
    is_padded = is_padded || count != batch.length;
  }
  if (is_padded) batch.attention_mask = mask;
  return batch;
}

void check_prompts(const std::vector<EncodedConversation>& prompts,
                   const VisionLanguageModel& model) {
  for (const auto& prompt : prompts) {
    const auto length = static_cast<std::int64_t>(prompt.ids.size());
    if (length > 0 && length < model.max_positions()) continue;
    throw Error({.what = length == 0 ? "the prompt is empty" : "the prompt is too long",
                 .got = concat(length, " tokens"),
                 .wanted = concat("fewer than max_position_embeddings = ", model.max_positions())});
  }
}

}  // namespace

double Generation::mean_logprob() const {
  double sum = 0;
  for (const double logprob : logprobs) sum += logprob;
  return logprobs.empty() ? 0 : sum / static_cast<double>(logprobs.size());
}

double GenerationTiming::decode_tokens_per_s() const {
  return decode_s > 0 ? static_cast<double>(decoded_tokens) / decode_s : 0;
}

at::Tensor Generator::encode_all_images(const std::vector<EncodedConversation>& prompts) {
  std::vector<at::Tensor> tiles;
  for (const auto& prompt : prompts) {
    if (prompt.pixel_values.defined()) tiles.push_back(prompt.pixel_values);
  }
  if (tiles.empty()) return {};
  return model_->encode_images(tiles.size() == 1 ? tiles[0] : at::cat(tiles), {});
}

std::vector<Generation> Generator::generate(const std::vector<EncodedConversation>& prompts,
                                            const GenerationOptions& options,
                                            const TokenCallback& on_token) {
  const c10::InferenceMode inference;
  check_prompts(prompts, *model_);
  timing_ = {};
  Stopwatch watch;
  const PaddedBatch batch = pad_left(prompts, options.pad_token_id);
  const at::Device device = model_->device();
  const at::Tensor features = encode_all_images(prompts);
  timing_.vision_s = watch.lap();

  std::vector<Generation> results(prompts.size());
  if (options.max_new_tokens < 1) {
    for (Generation& result : results) result.finish_reason = "length";
    return results;
  }
  // The answer may not leave the positions that the model was made for.
  const std::int64_t budget =
      std::min(options.max_new_tokens, model_->max_positions() - batch.length);
  KvCache cache(model_->cache_shape(), static_cast<std::int64_t>(prompts.size()),
                batch.length + budget, at::TensorOptions().dtype(model_->dtype()).device(device));
  at::Tensor mask = batch.attention_mask.defined() ? batch.attention_mask.to(device) : at::Tensor();
  at::Tensor embeddings = model_->embed(batch.input_ids, features);
  std::vector<std::size_t> rows(prompts.size());  // of the batch → index of the prompt
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = i;

  bool is_interrupted = false;
  for (std::int64_t step = 0; step < budget && !rows.empty(); ++step) {
    const at::Tensor hidden = model_->decode(embeddings, mask, &cache).select(1, -1);  // [B, C]
    const NextTokens next = greedy_search(model_->logits(hidden));
    std::vector<std::int64_t> kept, kept_ids;
    for (std::size_t row = 0; row < rows.size(); ++row) {
      Generation& result = results[rows[row]];
      const std::int64_t id = next.ids[row];
      result.ids.push_back(id);
      result.logprobs.push_back(next.logprobs[row]);
      if (on_token && !on_token(rows[row], id)) is_interrupted = true;
      const auto& ends = options.eos_token_ids;
      const bool is_end = std::find(ends.begin(), ends.end(), id) != ends.end();
      if (is_end || is_interrupted || step + 1 == budget) {
        result.finish_reason = is_end ? "stop" : is_interrupted ? "interrupted" : "length";
      } else {
        kept.push_back(static_cast<std::int64_t>(row));
        kept_ids.push_back(id);
      }
    }
    if (step == 0) timing_.prefill_s = watch.lap();
    if (step > 0) timing_.decoded_tokens += static_cast<std::int64_t>(rows.size());
    if (kept.size() < rows.size()) {
      std::vector<std::size_t> left;
      for (const std::int64_t row : kept) left.push_back(rows[static_cast<std::size_t>(row)]);
      rows = left;
      if (rows.empty()) break;
      const at::Tensor index = at::tensor(kept, at::kLong).to(device);
      cache.select_rows(index);
      if (mask.defined()) mask = mask.index_select(0, index);
    }
    embeddings = model_->embed(at::tensor(kept_ids, at::kLong).unsqueeze(1), {});
    if (mask.defined()) {
      mask = at::cat({mask, at::ones({mask.size(0), 1}, mask.options())}, 1);
    }
  }
  timing_.decode_s = watch.lap();
  for (Generation& result : results) {
    result.text = processor_->tokenizer().decode(result.ids, /*skip_special_tokens=*/true);
  }
  return results;
}

}  // namespace vlm::infer
