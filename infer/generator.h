// The loop that calls a model to generate: prompts in, answers with log-probabilities out.
//
//   RequestGroup ─► submit ─► (pictures encoded, prompt prefilled, tokens decoded beside those of
//   other groups) ─► step … ─► Answers, as they get ready
//
// A group holds requests about the same pictures. The common beginning of their prompts, with the
// pictures, is prefilled once; every question, beam, sample and choice continues from it (KvCache).
// Groups enter and leave while others are being decoded (continuous batching), at most batch_size
// of them at a time. An answer doesn't depend on what else is decoded (up to rounding).
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "infer/active_group.h"
#include "infer/media/picture_features.h"
#include "infer/request.h"
#include "infer/token_step.h"
#include "vlm/models/interface/model.h"
#include "vlm/models/interface/processor.h"
#include "vlm/nn/kv_cache.h"

namespace vlm::infer {

class ShownMedia;

struct GenerationTiming {
  double vision_s = 0;
  double prefill_s = 0;
  double decode_s = 0;
  std::int64_t decoded_tokens = 0;  // after each row's first
  double decode_tokens_per_s() const;
};

// How the work on prompts and the decoding of others take turns.
enum class GenerationPace {
  kBatch,    // prompts go in several at a time, whole, once a quarter of the places is free
  kServing,  // they go in at once, the oldest first, a piece of them between two tokens of others
};

class Generator {
 public:
  Generator(ModelPtr model, std::shared_ptr<const Processor> processor);
  ~Generator();
  Generator(Generator&&) noexcept;

  // Groups that are decoded together; 1 until set.
  void set_batch_size(std::int64_t groups) { batch_size_ = groups; }
  // Sets the cache that keeps picture features across runs; null: none.
  void set_feature_cache(std::shared_ptr<FeatureCache> cache) {
    encoder_->set_cache(std::move(cache));
  }
  PictureEncoder& encoder() { return *encoder_; }
  // Decode steps are recorded on the GPU and replayed. Throws Error where they can't be.
  void record_steps() { step_.record(); }
  // Steps that were replayed, so far.
  std::int64_t replayed_steps() const { return step_.replays(); }

  // Reads and encodes the next take (video_stream.h) of each video. False: a stop request came.
  // Throws Error naming the file that can't be read, or that takes longer than the limit in seconds
  // (0: none).
  bool read(ShownMedia& media, double time_limit_s = 0);

  void submit(RequestGroup group);
  // Does a bounded piece of work; returns the answers that it finished. A request that can't be
  // answered (too long a prompt) comes back with an error.
  std::vector<RequestAnswer> step();
  bool is_idle() const { return waiting_.empty() && active_.empty() && rejected_.empty(); }
  // Drops everything submitted. Call it after step has thrown.
  void abandon();
  // Number of submitted groups whose prefill has not begun.
  std::int64_t waiting() const { return static_cast<std::int64_t>(waiting_.size()); }

  // The answer to one request, or to a group of one request. Throws Error when it can't be
  // answered.
  RequestAnswer answer(Request request, const Pixels& pixels);
  RequestAnswer answer(RequestGroup group);
  // One answer for each prompt, with the prompt's own pictures; decoded together. Throws Error for
  // a prompt that can't be answered. If these functions throw, also an exception of a callback,
  // their requests are dropped.
  std::vector<RequestAnswer> generate(
      const std::vector<EncodedConversation>& prompts, const GenerationOptions& options,
      const std::function<bool(std::size_t, std::int64_t)>& on_token = {});

  const GenerationTiming& timing() const { return timing_; }  // since reset_timing
  void reset_timing() { timing_ = {}; }
  const Processor& processor() const { return *processor_; }
  std::int64_t max_positions() const { return model_->max_positions(); }

 private:
  class OwnRequests;
  using Logits = at::Tensor;  // [rows, V] float32 on the CPU

  bool reject_if_impossible(const Request& request);

  void admit();
  std::vector<std::unique_ptr<ActiveGroup>> pop_waiting_groups();
  void encode_pictures(const std::vector<std::unique_ptr<ActiveGroup>>& newcomers);
  void prefill(const std::vector<ActiveGroup*>& groups);
  void start_pending();
  void extend_suffixes(const std::vector<ActiveRequest*>& requests);
  void score_choices(const std::vector<ActiveRequest*>& requests);
  void decode_rows();

  void advance(ActiveRequest& request, const Logits& logits);
  void feed(ActiveRequest& request, SearchStep step);
  void finish(ActiveRequest& request);
  void end_late_requests();
  void remove_finished();
  std::unique_ptr<Search> start_search(const Request& request) const;
  Logits head(const at::Tensor& hidden);
  at::Tensor extend(const std::vector<std::int64_t>& rows,
                    const std::vector<std::vector<std::int64_t>>& ids);

  ModelPtr model_;
  std::shared_ptr<const Processor> processor_;
  std::unique_ptr<PictureEncoder> encoder_;
  TokenStep step_;
  std::int64_t batch_size_ = 1;
  std::optional<KvCache> cache_;
  std::deque<std::unique_ptr<ActiveGroup>> waiting_;
  std::vector<std::unique_ptr<ActiveGroup>> active_;  // by their group in the cache
  std::vector<RequestAnswer> rejected_, finished_;
  GenerationTiming timing_;
};

}  // namespace vlm::infer
