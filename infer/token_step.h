// One pass of a model that adds a token to each of some rows of a cache, and what comes out of it.
//
//   rows, ids ─► embed ─► decode ⇄ KvCache ─► logits [B, V], or the likeliest token of each row
//
// On a GPU such passes can be recorded: from the third of a shape on the host asks for the whole
// pass at once (vlm/nn/gpu/device_graph.h). A pass that can't be recorded is run as before, with
// one warning.
#pragma once

#include <ATen/core/Tensor.h>

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "infer/search/search.h"
#include "vlm/models/interface/model.h"
#include "vlm/nn/gpu/device_graph.h"
#include "vlm/nn/kv_cache.h"

namespace vlm::infer {

class TokenStep {
 public:
  explicit TokenStep(ModelPtr model) : model_(std::move(model)) {}

  // Records passes from now on. Throws Error where that can't be: no GPU, or a model whose passes
  // depend on how long the sequences are.
  void record();

  // `rows` ascend; ids[i] goes behind rows[i]. → [B, V] float32 on the CPU
  at::Tensor find_logits(KvCache& cache, const std::vector<std::int64_t>& rows,
                         const std::vector<std::int64_t>& ids);
  // The likeliest token of each row, found where the model is, so that two numbers a row come to
  // the host in place of a vocabulary.
  std::vector<ChosenToken> find_likeliest(KvCache& cache, const std::vector<std::int64_t>& rows,
                                          const std::vector<std::int64_t>& ids);

  // Passes that were replayed, so far.
  std::int64_t replays() const { return replays_; }

 private:
  enum class Wanted { kLogits, kLikeliest };
  struct Pass {
    StepShape shape;
    Wanted wanted = Wanted::kLogits;
    auto operator<=>(const Pass&) const = default;
  };
  struct Recording {
    int runs = 0;
    std::unique_ptr<DeviceGraph> graph;
    at::Tensor result;  // where each replay leaves it
  };

  at::Tensor run(KvCache& cache, const std::vector<std::int64_t>& rows,
                 const std::vector<std::int64_t>& next, Wanted wanted);
  at::Tensor ask(KvCache& cache, const at::Tensor& ids, Wanted wanted);
  bool try_to_record(Recording& recording, KvCache& cache, const at::Tensor& ids, Wanted wanted);
  Recording& recording_of(const Pass& pass);

  ModelPtr model_;
  bool is_recording_ = false;
  std::map<Pass, Recording> recordings_;
  std::int64_t replays_ = 0;
};

}  // namespace vlm::infer
