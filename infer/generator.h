// The one loop that calls a model to generate: prompts in, answers with log-probabilities out.
//
//   RequestGroup ─► submit ─► (pictures encoded, prompt prefilled, tokens decoded beside those of
//   other groups) ─► step … ─► Answers, as they get ready
//
// A group is requests about the same pictures. What their prompts begin with, pictures included, is
// prefilled once; every question, beam, sample and choice goes on from it (KvCache). Groups enter
// and leave while others go on (continuous batching), at most batch_size of them at a time. An
// answer doesn't depend on what else is decoded (up to rounding).
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
#include "vlm/models/model.h"
#include "vlm/models/processor.h"
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

class Generator {
 public:
  Generator(ModelPtr model, std::shared_ptr<const Processor> processor);
  ~Generator();
  Generator(Generator&&) noexcept;

  // Groups that are decoded together; 1 until set.
  void set_batch_size(std::int64_t groups) { batch_size_ = groups; }
  // Keeps picture features across runs; null: not.
  void set_feature_cache(std::shared_ptr<FeatureCache> cache) {
    encoder_->set_cache(std::move(cache));
  }
  PictureEncoder& encoder() { return *encoder_; }

  // Reads the next takes of media with videos. False: a stop request came. Throws Error naming the
  // file that can't be read, or that takes longer than the limit (0: none).
  bool read(ShownMedia& media, double time_limit_s = 0);

  void submit(RequestGroup group);
  // Does a bounded piece of work; returns the answers that it finished. A request that can't be
  // answered (too long a prompt) comes back with an error.
  std::vector<RequestAnswer> step();
  bool is_idle() const { return waiting_.empty() && active_.empty() && rejected_.empty(); }
  // Lets go of everything submitted. To be called after step has thrown.
  void abandon();
  // Groups submitted whose prefill has not begun.
  std::int64_t waiting() const { return static_cast<std::int64_t>(waiting_.size()); }

  // The answer to one request. Throws Error when there can be none.
  RequestAnswer answer(Request request, const at::Tensor& pixel_values);
  RequestAnswer answer(RequestGroup of_one);
  // One answer a prompt, all about their own pictures, decoded together. Throws Error for a prompt
  // that can't be answered. Whatever these throw (what a callback throws, too), nothing of the call
  // stays with the generator.
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
  std::vector<std::unique_ptr<ActiveGroup>> take_newcomers();
  void encode_pictures(const std::vector<std::unique_ptr<ActiveGroup>>& newcomers);
  void prefill(const std::vector<ActiveGroup*>& groups);
  void start_pending();
  void extend_suffixes(const std::vector<ActiveRequest*>& requests);
  void score_choices(const std::vector<ActiveRequest*>& requests);
  void decode_rows();

  void advance(ActiveRequest& one, const Logits& logits);
  void finish(ActiveRequest& one);
  void end_late_ones();
  void remove_finished();
  std::unique_ptr<Search> start_search(const Request& request) const;
  Logits head(const at::Tensor& hidden);
  at::Tensor extend(const std::vector<std::int64_t>& rows,
                    const std::vector<std::vector<std::int64_t>>& ids);

  ModelPtr model_;
  std::shared_ptr<const Processor> processor_;
  std::unique_ptr<PictureEncoder> encoder_;
  std::int64_t batch_size_ = 1;
  std::optional<KvCache> cache_;
  std::deque<std::unique_ptr<ActiveGroup>> waiting_;
  std::vector<std::unique_ptr<ActiveGroup>> active_;  // at their group of the cache
  std::vector<RequestAnswer> rejected_, finished_;
  GenerationTiming timing_;
};

}  // namespace vlm::infer
