// The loop that calls a model to generate: prompts in, answers with log-probabilities out.
//
//   RequestGroup ─► submit ─► (pictures encoded, prompt prefilled, tokens decoded beside those of
//   other groups) ─► step … ─► Answers, as they get ready
//
// A group holds requests about the same pictures. The common beginning of their prompts, with the
// pictures, is prefilled once; every question, beam, sample and choice continues from it (KvCache).
// Groups enter and leave while others are being decoded (continuous batching), at most batch_size
// of them at a time. An answer doesn't depend on what else is decoded (up to rounding); in serving
// the numbers of its prompt are the same, to the bit, whatever runs beside on a CPU.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "infer/active_group.h"
#include "infer/kept/kept_prefixes.h"
#include "infer/media/picture_features.h"
#include "infer/media/shown_media.h"
#include "infer/request.h"
#include "infer/search/prompt_lookup.h"
#include "infer/token_step.h"
#include "vlm/models/interface/model.h"
#include "vlm/models/interface/processor.h"
#include "vlm/nn/kv_cache.h"

namespace vlm::infer {

struct GenerationTiming {
  double vision_s = 0;
  double prefill_s = 0;
  double decode_s = 0;
  std::int64_t decoded_tokens = 0;                     // after each row's first
  std::int64_t guessed_tokens = 0, right_guesses = 0;  // of decoding by prompt lookup
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
  // Batches until set. Call it while the generator is idle.
  void set_pace(GenerationPace pace);
  // In serving, the most bytes of keys and values: groups wait for room, and one that has none even
  // alone is refused. 0: no bound.
  void set_cache_bound(std::int64_t bytes) { most_cache_bytes_ = bytes; }
  // Sets the cache that keeps picture features across runs; null: none.
  void set_feature_cache(std::shared_ptr<FeatureCache> cache) {
    encoder_->set_cache(std::move(cache));
  }
  PictureEncoder& encoder() { return *encoder_; }
  // How keys and values are held; choose_kv_storage("auto", …) until set. Call it before submit.
  void set_kv_storage(KvStorage storage) { kv_storage_ = storage; }
  // Keys and values of recent prompts' beginnings, for serving.
  KeptPrefixes& kept_prefixes() { return kept_prefixes_; }
  // Decode steps are recorded on the GPU and replayed. Throws Error where they can't be.
  void record_steps() { step_.record(); }
  // Steps that were replayed, so far.
  std::int64_t replayed_steps() const { return step_.replays(); }

  // As those of the media (shown_media.h), and the time counts as that of the vision encoder.
  bool read(ShownMedia& media, const ReadLimits& limits = {});
  ReadState read_piece(ShownMedia& media, const ReadLimits& limits,
                       std::chrono::milliseconds patience);

  void submit(RequestGroup group);
  // Does a bounded piece of work; returns the answers that it finished. A request that can't be
  // answered (too long a prompt) comes back with an error. In serving nothing else is thrown than
  // what leaves the generator unusable: a failure is that of the requests it belongs to.
  std::vector<RequestAnswer> step();
  bool is_idle() const {
    return waiting_.empty() && entering_.empty() && active_.empty() && rejected_.empty() &&
           finished_.empty();
  }
  // Ends a request, whatever has been done for it; the next step gives its answer, as far as it
  // goes, and has its place for others. Unknown ids are ignored.
  void cancel(std::uint64_t id);
  // Drops everything submitted. Call it after step has thrown.
  void abandon();
  // Number of submitted groups whose prefill has not begun, and of those behind that.
  std::int64_t waiting() const { return static_cast<std::int64_t>(waiting_.size()); }
  std::int64_t running() const { return std::ssize(entering_) + std::ssize(active_); }
  std::int64_t cache_bytes() const { return cache_ ? cache_->bytes() : 0; }

  // The answer to one request, or to a group of one request. Throws Error when it can't be
  // answered.
  RequestAnswer answer(Request request, const Pixels& pixels);
  RequestAnswer answer(RequestGroup group);
  // One answer for each prompt, with the prompt's own pictures; decoded together. `on_token` is
  // called with each new id, or, where a prompt has several rows, once a step with -1. Throws Error
  // for a prompt that can't be answered. If these functions throw, also an exception of a callback,
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
  using Groups = std::vector<std::unique_ptr<ActiveGroup>>;
  using Requests = std::vector<ActiveRequest*>;

  bool reject_if_impossible(const Request& request);
  bool is_serving() const { return pace_ == GenerationPace::kServing; }

  // Batches (generator.cpp).
  void admit();
  Groups pop_waiting_groups();
  void encode_pictures(const Groups& newcomers);
  void prefill(const std::vector<ActiveGroup*>& groups);

  // Serving (generator_serving.cpp).
  void enter_waiting();
  bool has_room(const ActiveGroup& group);
  std::int64_t bytes_with(const ActiveGroup& group, bool is_alone) const;
  void refuse_large(ActiveGroup& group);
  void work_on_entering();
  bool take_further(ActiveGroup& group);
  void begin_prompt(ActiveGroup& group);
  void prefill_piece(ActiveGroup& group);
  void keep_prefix(ActiveGroup& group);
  std::int64_t piece_tokens() const;
  PrefixSource source_of(const ActiveGroup& group) const;
  void fail(ActiveGroup& group, const std::exception& error);
  void fail(ActiveRequest& one, const std::exception& error);
  void run_apart(const Requests& requests, const std::function<void(const Requests&)>& pass);

  void make_cache(std::int64_t rows_per_group);
  void give_places(ActiveGroup& group);
  void free_places(ActiveGroup& group);
  std::int64_t row_of(const ActiveRequest& one, std::int64_t i = 0) const;
  ActiveRequest& start_first(ActiveGroup& group);
  void start_pending();
  void extend_suffixes(const Requests& requests);
  void score_choices(const Requests& requests);
  void decode_rows();
  void decode_rows_of(const Requests& requests);
  std::vector<std::vector<std::int64_t>> guess_next(const Requests& requests) const;
  void check_guesses(const Requests& requests, const std::vector<std::vector<std::int64_t>>& fed);

  void advance(ActiveRequest& request, const Logits& logits);
  void feed(ActiveRequest& request, SearchStep step);
  void finish(ActiveRequest& request);
  void end(ActiveRequest& request, Outcome outcome, std::string error);
  RequestAnswer begin_answer(const ActiveRequest& request) const;
  void end_late_requests();
  void remove_finished();
  void wait_for_device() const;
  std::unique_ptr<Search> start_search(const Request& request) const;
  Logits head(const at::Tensor& hidden);
  at::Tensor extend(const std::vector<std::int64_t>& rows,
                    const std::vector<std::vector<std::int64_t>>& ids);

  ModelPtr model_;
  std::shared_ptr<const Processor> processor_;
  std::unique_ptr<PictureEncoder> encoder_;
  KeptPrefixes kept_prefixes_;
  TokenStep step_;
  PromptLookup lookup_;
  KvStorage kv_storage_;
  GenerationPace pace_ = GenerationPace::kBatch;
  std::int64_t batch_size_ = 1, most_cache_bytes_ = 0;
  std::int64_t most_tail_ = 0;  // in serving, that a row at work may need
  std::optional<KvCache> cache_;
  std::vector<ActiveGroup*> places_;  // who has each group of the cache
  std::deque<std::unique_ptr<ActiveGroup>> waiting_, entering_;
  Groups active_;  // their prefix is in the cache
  std::vector<RequestAnswer> rejected_, finished_;
  GenerationTiming timing_;
};

}  // namespace vlm::infer
