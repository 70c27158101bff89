#include "infer/engine/engine_work.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <utility>

#include "infer/items/item_failure.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

using namespace std::chrono_literals;

constexpr const char* kCancelled = "cancelled";

bool is_over(double limit_s, EngineJob::Clock::time_point begin) {
  const std::chrono::duration<double> passed = EngineJob::Clock::now() - begin;
  return limit_s > 0 && passed.count() > limit_s;
}

}  // namespace

EngineWork::EngineWork(Generator& generator, const EngineOptions& options)
    : generator_(generator), options_(options) {
  generator_.set_pace(options.pace);
  generator_.set_batch_size(options.max_running);
  generator_.set_cache_bound(options.cache_bytes);
  generator_.encoder().kept().set_bound(options.kept_media_bytes);
  generator_.kept_prefixes().set_bound(options.kept_prefix_bytes);
  thread_ = std::thread([this] { run(); });
}

EngineWork::~EngineWork() {
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
    changed_.notify_all();
  }
  thread_.join();
  if (options_.turns) options_.turns->leave(this);
  generator_.set_pace(GenerationPace::kBatch);
  generator_.set_cache_bound(0);
  generator_.encoder().kept().set_bound(0);
  generator_.kept_prefixes().set_bound(0);
}

void EngineWork::check_room(std::int64_t bytes) const {
  if (is_draining_) throw EngineStopped({.what = "no more requests are taken"});
  // Those for which there is a place are only on their way.
  const std::int64_t places = std::max<std::int64_t>(options_.max_running - stats_.running, 0);
  const std::int64_t waiting = std::max<std::int64_t>(stats_.waiting - places, 0);
  if (stats_.waiting > 0 && stats_.waiting - places >= options_.max_waiting) {
    throw EngineFull({.what = "too many requests wait",
                      .got = concat(waiting, " that wait"),
                      .wanted = concat("at most ", options_.max_waiting),
                      .hint = "try again later"});
  }
  // One alone is always taken.
  if (options_.media_bytes > 0 && stats_.media_bytes > 0 &&
      stats_.media_bytes + bytes > options_.media_bytes) {
    throw EngineFull({.what = "the pictures of the requests that wait take too much memory",
                      .got = concat(stats_.media_bytes, " bytes, and ", bytes, " more"),
                      .wanted = concat("at most ", options_.media_bytes),
                      .hint = "try again later"});
  }
}

std::uint64_t EngineWork::submit(EngineRequest request, EngineEvents events) {
  TORCH_CHECK(!request.requests.empty() && events.on_done, "nothing asked, or nobody to tell");
  // Digests of pictures, and their features on disk, cost the caller's time.
  if (request.pictures && options_.pace == GenerationPace::kServing) {
    generator_.encoder().prepare(*request.pictures);
  }
  const std::lock_guard lock(mutex_);
  const std::int64_t bytes = request.pictures ? request.pictures->bytes() : 0;
  check_room(bytes);
  const std::uint64_t number = ++last_number_;
  stats_.waiting += std::ssize(request.requests);
  stats_.media_bytes += bytes;
  ++open_jobs_;
  inbox_.push_back(std::make_unique<EngineJob>(number, std::move(request), std::move(events)));
  changed_.notify_all();
  return number;
}

void EngineWork::cancel(std::uint64_t number) {
  const std::lock_guard lock(mutex_);
  cancelled_.push_back(number);
  changed_.notify_all();
}

void EngineWork::drain(double most_s) {
  std::unique_lock lock(mutex_);
  is_draining_ = true;
  drained_by_ = EngineJob::Clock::now() + std::chrono::duration_cast<EngineJob::Clock::duration>(
                                              std::chrono::duration<double>(most_s));
  changed_.notify_all();
  changed_.wait(lock, [this] { return open_jobs_ == 0; });
}

EngineStats EngineWork::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void EngineWork::run() {
  at::init_num_threads();  // this thread's operators run on as many as the process was told
  for (bool goes_on = true; goes_on;) {
    try {
      goes_on = take_in();
      const auto turn = options_.turns ? options_.turns->take() : EngineTurns::Turn();
      end_waiting();
      read_media();
      step();
      publish();
    } catch (const std::exception& error) {  // of the engine itself: nobody may wait for ever
      fail_all(error);
    }
  }
}

// Waits for something to do. False: the engine is to end, and nobody waits for an answer any more.
bool EngineWork::take_in() {
  std::deque<Job> inbox;
  std::vector<std::uint64_t> cancelled;
  bool is_ending = false;
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] {
      return !inbox_.empty() || !cancelled_.empty() || !jobs_.empty() || is_ending_;
    });
    inbox.swap(inbox_);
    cancelled.swap(cancelled_);
    is_ending = is_ending_;
  }
  for (Job& job : inbox) take_job(std::move(job));
  for (const std::uint64_t number : cancelled) {
    const auto found = jobs_.find(number);
    if (found != jobs_.end()) cancel_job(*found->second);
  }
  if (!is_ending) return true;
  while (!jobs_.empty()) end(*jobs_.begin()->second, Outcome::kStopped, "the engine was ended");
  publish();
  return false;
}

// What the generator works at comes back from it with what there is of the answers.
void EngineWork::cancel_job(EngineJob& job) {
  if (job.media()) return end(job, Outcome::kCancelled, kCancelled);
  for (const std::uint64_t request : job.asked()) generator_.cancel(request);
}

void EngineWork::take_job(Job job) {
  EngineJob& taken = *jobs_.emplace(job->number(), std::move(job)).first->second;
  if (taken.media()) {
    reading_.push_back(&taken);
  } else {
    ask(taken);
  }
}

void EngineWork::ask(EngineJob& job) {
  const std::uint64_t number = job.number();
  EngineJob::Asking asking =
      job.ask([this] { return ++last_request_; }, generator_.processor().tokenizer(),
              [this, number] {
                const auto found = jobs_.find(number);
                if (found != jobs_.end()) start(*found->second);
              });
  for (RequestAnswer& answer : asking.refused) conclude(job, std::move(answer));
  for (const Request& request : asking.group.requests) by_request_[request.id] = &job;
  if (!asking.group.requests.empty()) {
    try {
      generator_.submit(std::move(asking.group));
    } catch (const std::exception& error) {
      return end(job, Outcome::kFailed, failure_text(error));
    }
  }
  if (job.is_done()) forget(job);
}

// The oldest job's videos. In serving a piece, and prompts and videos take turns, so that no token
// waits for both. In a batch whole takes, while few groups wait: the features of those behind are
// better not made before there is room.
void EngineWork::read_media() {
  if (options_.pace == GenerationPace::kServing) {
    const bool is_turn_of_prompts = std::exchange(has_read_, false) && generator_.has_prompts();
    if (!reading_.empty() && !is_turn_of_prompts) has_read_ = read_piece(*reading_.front());
    return;
  }
  while (!reading_.empty() && generator_.waiting() < options_.max_running && !has_news()) {
    read_piece(*reading_.front());
  }
}

// True when something was encoded.
bool EngineWork::read_piece(EngineJob& job) {
  const bool is_serving = options_.pace == GenerationPace::kServing;
  const auto patience = is_serving && !generator_.is_idle() ? 0ms : 20ms;
  try {
    const ReadState state = generator_.read_piece(
        *job.media(), {.time_limit_s = job.media_time_limit_s(), .in_short_pieces = is_serving},
        patience);
    if (state == ReadState::kWhole) {
      if (!job.media()->has_more()) reading_.pop_front();
      ask(job);
    }
    return state == ReadState::kMore;
  } catch (const std::exception& error) {
    end(job, is_out_of_memory(error) ? Outcome::kFailedBesideOthers : Outcome::kRefused,
        failure_text(error));
    return false;
  }
}

// Those that waited too long, and all that is there when the engine is drained.
void EngineWork::end_waiting() {
  bool is_draining = false, is_late = false;
  {
    const std::lock_guard lock(mutex_);
    is_draining = is_draining_;
    is_late = is_draining_ && EngineJob::Clock::now() >= drained_by_;
  }
  std::vector<EngineJob*> late, stopped;
  for (const auto& [number, job] : jobs_) {
    if (is_late || (is_draining && !job->has_started())) {
      stopped.push_back(job.get());
    } else if (!job->has_started() && is_over(options_.queue_timeout_s, job->submitted())) {
      late.push_back(job.get());
    }
  }
  for (EngineJob* job : stopped) end(*job, Outcome::kStopped, "the engine takes no more requests");
  for (EngineJob* job : late) {
    end(*job, Outcome::kTimedOut,
        Error({.what = "the request waited too long",
               .wanted = concat("at most ", options_.queue_timeout_s, " s")})
            .what());
  }
}

// Since when the oldest request waits for a place.
std::optional<EngineJob::Clock::time_point> EngineWork::waiting_since() const {
  std::optional<EngineJob::Clock::time_point> oldest;
  for (const auto& [number, job] : jobs_) {
    if (job->has_started() || job->media()) continue;  // that is read first
    oldest = std::min(oldest.value_or(job->submitted()), job->submitted());
  }
  return oldest;
}

// As many requests run as the other engines leave places for.
void EngineWork::take_places() {
  if (!options_.turns) return;
  generator_.set_batch_size(options_.turns->note(
      this, {.running = generator_.running(), .waiting_since = waiting_since()}));
}

void EngineWork::step() {
  std::vector<RequestAnswer> answers;
  take_places();
  try {
    answers = generator_.step(/*takes_prompts=*/!has_read_);
  } catch (const std::exception& error) {
    fail_all(error);
  }
  take_places();
  for (RequestAnswer& answer : answers) record(std::move(answer));
}

void EngineWork::record(RequestAnswer answer) {
  const auto found = by_request_.extract(answer.id);
  if (found.empty()) return;
  EngineJob& job = *found.mapped();
  if (auto ended = job.record(std::move(answer))) conclude(job, std::move(*ended));
  if (job.is_done()) forget(job);
}

// Whose failure it was isn't known, unless there is but one. What is being read begins anew, as far
// as the generator had a part of it.
void EngineWork::fail_all(const std::exception& error) {
  generator_.abandon();
  generator_.encoder().release_memory();
  std::vector<EngineJob*> hit;
  for (const auto& [request, job] : by_request_) {
    if (std::ranges::find(hit, job) == hit.end()) hit.push_back(job);
  }
  const bool is_known = by_request_.size() == 1;
  for (EngineJob* job : hit) {
    end(*job, is_known ? Outcome::kFailed : Outcome::kFailedBesideOthers, failure_text(error));
  }
}

void EngineWork::end(EngineJob& job, Outcome outcome, const std::string& error) {
  std::erase(reading_, &job);
  for (const std::uint64_t request : job.asked()) {
    by_request_.erase(request);
    generator_.cancel(request);
  }
  for (RequestAnswer& answer : job.end(outcome, error)) conclude(job, std::move(answer));
  forget(job);
}

void EngineWork::conclude(EngineJob& job, RequestAnswer answer) {
  {
    const std::lock_guard lock(mutex_);
    --(job.has_started() ? stats_.running : stats_.waiting);
    count(answer);
    if (job.is_done()) stats_.media_bytes -= job.release_media_bytes();
  }
  job.tell(std::move(answer));
}

void EngineWork::forget(EngineJob& job) {
  for (const std::uint64_t request : job.asked()) {
    by_request_.erase(request);
    generator_.cancel(request);
  }
  std::erase(reading_, &job);
  jobs_.erase(job.number());
  const std::lock_guard lock(mutex_);
  --open_jobs_;
  changed_.notify_all();
}

void EngineWork::start(EngineJob& job) {
  if (job.has_started()) return;
  job.start();
  const std::lock_guard lock(mutex_);
  stats_.waiting -= job.open_requests();
  stats_.running += job.open_requests();
}

void EngineWork::count(const RequestAnswer& answer) {
  switch (answer.outcome) {
    case Outcome::kAnswered:
      ++stats_.answered;
      break;
    case Outcome::kRefused:
      ++stats_.refused;
      break;
    case Outcome::kCancelled:
    case Outcome::kStopped:
      ++stats_.cancelled;
      break;
    case Outcome::kTimedOut:
      ++stats_.timed_out;
      break;
    case Outcome::kFailed:
    case Outcome::kFailedBesideOthers:
      ++stats_.failed;
      break;
  }
  stats_.prompt_tokens += answer.prompt_tokens;
  stats_.cached_tokens += answer.cached_tokens;
  stats_.media_tokens += answer.media_tokens;
  for (const Generation& one : answer.generations) stats_.answer_tokens += std::ssize(one.ids);
}

bool EngineWork::has_news() const {
  const std::lock_guard lock(mutex_);
  return !inbox_.empty() || !cancelled_.empty() || is_ending_;
}

// What others may look at between steps.
void EngineWork::publish() {
  const KeptFeatures& media = generator_.encoder().kept();
  const KeptPrefixes& prefixes = generator_.kept_prefixes();
  const std::lock_guard lock(mutex_);
  stats_.cache_bytes = generator_.cache_bytes();
  stats_.kept_media_bytes = media.bytes();
  stats_.kept_prefix_bytes = prefixes.bytes();
  stats_.encoded_units = generator_.encoder().encoded_units();
  stats_.media_hits = media.hits();
  stats_.media_misses = media.misses();
  stats_.prefix_hits = prefixes.hits();
  stats_.prefix_queries = prefixes.queries();
  stats_.timing = generator_.timing();
}

}  // namespace vlm::infer
