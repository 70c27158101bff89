#include "infer/engine/engine_job.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "infer/items/item_failure.h"
#include "vlm/core/concat.h"
#include "vlm/core/log.h"

namespace vlm::infer {

// The streams of a request's answers.
struct EngineJob::Sequences {
  const Tokenizer& tokenizer;
  GenerationOptions options;
  std::uint64_t id = 0;  // the caller's
  std::function<void(AnswerPiece)> on_piece;
  std::vector<AnswerPieces> pieces = {};
  bool has_thrown = false;

  void pass_on(std::size_t sequence, AnswerPiece piece) {
    if (piece.text.empty() && piece.tokens.empty()) return;
    piece.request = id;
    piece.sequence = static_cast<std::int64_t>(sequence);
    on_piece(std::move(piece));
  }
  void add(std::span<const Hypothesis> answers, bool are_whole) {
    for (std::size_t i = 0; i < answers.size(); ++i) {
      if (i == pieces.size()) pieces.emplace_back(tokenizer, options);
      pass_on(i, are_whole ? pieces[i].finish(answers[i]) : pieces[i].add(answers[i]));
    }
  }
};

EngineJob::EngineJob(std::uint64_t number, EngineRequest request, EngineEvents events)
    : number_(number), request_(std::move(request)), events_(std::move(events)) {
  open_.resize(request_.requests.size());
  for (const Request& request : request_.requests) ids_.push_back(request.id);
  has_takes_ = request_.media != nullptr;
  if (request_.pictures) media_bytes_ = request_.pictures->bytes();
}

bool EngineJob::is_done() const {
  return open_requests() == 0;
}

std::int64_t EngineJob::open_requests() const {
  return std::ranges::count_if(open_, [](const Open& open) { return !open.is_done; });
}

std::vector<std::uint64_t> EngineJob::asked() const {
  std::vector<std::uint64_t> ids;
  for (const auto& [id, asked] : asked_) ids.push_back(id);
  return ids;
}

// A request is asked again for each take; without takes it is given away.
Request EngineJob::make_request(std::size_t index) {
  Request& request = request_.requests[index];
  if (!request_.media) return std::move(request);
  Request copy = request;
  request_.show(*request_.media, copy);
  return copy;
}

EngineJob::Asking EngineJob::ask(const std::function<std::uint64_t()>& next_id,
                                 const Tokenizer& tokenizer,
                                 const std::function<void()>& on_start) {
  Asking asking;
  asking.group.pictures = request_.media ? request_.media->features() : request_.pictures;
  if (request_.media) has_takes_ = request_.media->has_more();
  for (std::size_t i = 0; i < open_.size(); ++i) {
    if (open_[i].is_done) continue;
    try {
      Request request = make_request(i);
      request.on_start = on_start;
      if (events_.on_piece) stream(open_[i], request, tokenizer);
      request.id = next_id();
      asked_.emplace(request.id,
                     Asked{i, request_.media ? request_.media->segment() : TimeSegment{}});
      ++open_[i].in_flight;
      asking.group.requests.push_back(std::move(request));
    } catch (const std::exception& error) {
      asking.refused.push_back(
          close(i, {.outcome = Outcome::kRefused, .error = failure_text(error)}));
    }
  }
  request_.pictures.reset();
  return asking;
}

void EngineJob::stream(Open& open, Request& request, const Tokenizer& tokenizer) const {
  open.sequences = std::make_shared<Sequences>(
      Sequences{tokenizer, request.options, request.id, events_.on_piece});
  request.on_step = [sequences = open.sequences,
                     own = std::move(request.on_step)](std::span<const Hypothesis> answers) {
    if (own && !own(answers)) return false;
    try {
      sequences->add(answers, /*are_whole=*/false);
    } catch (const std::exception&) {
      sequences->has_thrown = true;  // nobody listens any more
    }
    return !sequences->has_thrown;
  };
}

void EngineJob::start() noexcept {
  if (std::exchange(has_started_, true) || !events_.on_started) return;
  try {
    events_.on_started();
  } catch (const std::exception& error) {
    log_warning(concat("who asked couldn't be told: ", failure_text(error)));
  }
}

// What is left of the pieces.
void EngineJob::finish_stream(Open& open, RequestAnswer& answer) const {
  const std::vector<Hypothesis> answers(answer.generations.begin(), answer.generations.end());
  try {
    if (!open.sequences->has_thrown) open.sequences->add(answers, /*are_whole=*/true);
  } catch (const std::exception&) {
    open.sequences->has_thrown = true;
  }
  if (open.sequences->has_thrown) answer.outcome = Outcome::kCancelled;
}

std::optional<RequestAnswer> EngineJob::record(RequestAnswer answer) {
  const auto found = asked_.extract(answer.id);
  if (found.empty()) return std::nullopt;
  const std::size_t index = found.mapped().request;
  Open& open = open_[index];
  --open.in_flight;
  if (open.is_done) return std::nullopt;
  answer.id = ids_[index];
  if (open.sequences) finish_stream(open, answer);
  if (answer.outcome == Outcome::kAnswered && request_.media) {
    if (events_.on_segment) events_.on_segment(found.mapped().segment, answer);
    if (has_takes_ || open.in_flight > 0) return std::nullopt;
  }
  return close(index, std::move(answer));
}

RequestAnswer EngineJob::close(std::size_t index, RequestAnswer answer) {
  open_[index].is_done = true;
  answer.id = ids_[index];
  return answer;
}

std::vector<RequestAnswer> EngineJob::end(Outcome outcome, const std::string& error) {
  std::vector<RequestAnswer> answers;
  for (std::size_t i = 0; i < open_.size(); ++i) {
    if (!open_[i].is_done) answers.push_back(close(i, {.outcome = outcome, .error = error}));
  }
  has_takes_ = false;
  return answers;
}

void EngineJob::tell(RequestAnswer answer) noexcept {
  try {
    events_.on_done(std::move(answer));
  } catch (const std::exception& error) {
    log_warning(concat("who asked couldn't be told: ", failure_text(error)));
  }
}

}  // namespace vlm::infer
