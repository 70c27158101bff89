#include "infer/library/loaded_model.h"

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "infer/library/cancellation.h"
#include "infer/library/picture_source.h"

namespace vlm {
namespace {

template <typename Value>
void set(Value& field, const std::optional<Value>& value) {
  if (value) field = *value;
}

Answer to_answer(infer::Generation generation) {
  const double mean = generation.mean_logprob();
  return {.text = std::move(generation.text),
          .finish_reason = std::move(generation.finish_reason),
          .token_ids = std::move(generation.ids),
          .token_logprobs = std::move(generation.logprobs),
          .mean_logprob = mean,
          .score = generation.score};
}

// What a request has got so far: filled on the model's thread, taken by the one that asks.
class Inbox {
 public:
  void put(infer::AnswerPiece piece) {
    const std::lock_guard lock(mutex_);
    pieces_.push_back(std::move(piece));
    changed_.notify_all();
  }
  void end(infer::RequestAnswer answer) {
    const std::lock_guard lock(mutex_);
    answer_ = std::move(answer);
    changed_.notify_all();
  }
  // The next piece; nothing when the answer is there.
  std::optional<infer::AnswerPiece> next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !pieces_.empty() || answer_; });
    if (pieces_.empty()) return std::nullopt;
    infer::AnswerPiece piece = std::move(pieces_.front());
    pieces_.pop_front();
    return piece;
  }
  infer::RequestAnswer wait() {
    while (next()) {
    }
    return std::move(*answer_);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<infer::AnswerPiece> pieces_;
  std::optional<infer::RequestAnswer> answer_;
};

// What there is of an answer, or an exception in its place.
std::vector<Answer> to_answers(infer::RequestAnswer answer, const std::vector<SeenVideo>& videos) {
  const bool is_cancelled = answer.outcome == infer::Outcome::kCancelled;
  if (answer.outcome == infer::Outcome::kFailed) throw std::runtime_error(answer.error);
  if (!answer.error.empty() && !is_cancelled) throw Error({.what = answer.error});
  if (answer.generations.empty()) answer.generations.emplace_back();
  std::vector<Answer> answers;
  for (infer::Generation& generation : answer.generations) {
    if (is_cancelled) generation.finish_reason = "interrupted";
    answers.push_back(to_answer(std::move(generation)));
    answers.back().videos = videos;
    answers.back().prompt_tokens = answer.prompt_tokens;
    answers.back().cached_tokens = answer.cached_tokens;
  }
  return answers;
}

// An answer that its reader ended: what the reader was given, and no more.
Answer cut_answer(Answer answer, const std::vector<infer::AnswerPiece>& given) {
  answer.text.clear();
  answer.token_ids.clear();
  answer.token_logprobs.clear();
  answer.finish_reason = "interrupted";
  double sum = 0;
  for (const infer::AnswerPiece& piece : given) {
    answer.text += piece.text;
    for (const infer::PieceToken& token : piece.tokens) {
      answer.token_ids.push_back(token.id);
      answer.token_logprobs.push_back(token.logprob);
      sum += token.logprob;
    }
  }
  const auto count = static_cast<double>(answer.token_ids.size());
  answer.mean_logprob = count > 0 ? sum / count : 0;
  return answer;
}

std::optional<infer::AnswerRule> to_rule(const AskOptions& options) {
  using Kind = infer::AnswerRule::Kind;
  if (options.json_schema.empty() && options.regex.empty()) return std::nullopt;
  if (options.json_schema.empty()) return infer::AnswerRule{Kind::kRegex, options.regex};
  if (!options.regex.empty()) {
    throw Error({.what = "both json_schema and regex", .where = "AskOptions", .wanted = "one"});
  }
  return infer::AnswerRule{Kind::kJsonSchema, options.json_schema};
}

}  // namespace

infer::GenerationOptions Model::Loaded::generation_for(const AskOptions& options) const {
  infer::GenerationOptions generation = session.generation;
  generation.max_new_tokens = options.max_new_tokens;
  set(generation.min_new_tokens, options.min_new_tokens);
  if (!options.stop_strings.empty()) generation.stop_strings = options.stop_strings;
  generation.hides_stop_strings = options.hides_stop_strings;
  set(generation.do_sample, options.do_sample);
  set(generation.temperature, options.temperature);
  set(generation.top_k, options.top_k);
  set(generation.top_p, options.top_p);
  if (options.min_p) generation.min_p = options.min_p;
  set(generation.typical_p, options.typical_p);
  generation.seed = options.seed;
  generation.keep_special_tokens = options.keep_special_tokens;
  set(generation.repetition_penalty, options.repetition_penalty);
  set(generation.no_repeat_ngram_size, options.no_repeat_ngram_size);
  set(generation.num_beams, options.num_beams);
  set(generation.length_penalty, options.length_penalty);
  set(generation.early_stopping, options.early_stopping);
  set(generation.num_return_sequences, options.num_return_sequences);
  set(generation.prompt_lookup_num_tokens, options.prompt_lookup_num_tokens);
  generation.validate("AskOptions");
  if (options.prompt_lookup_num_tokens.value_or(0) > 0 && generation.rows() > 1) {
    throw Error({.what = "has no effect on beams and several answers",
                 .where = "AskOptions::prompt_lookup_num_tokens",
                 .hint = "it guesses the tokens of one answer"});
  }
  if (const auto rule = to_rule(options)) {
    generation.grammar = session.rules->compile(*rule, "AskOptions");
  }
  return generation;
}

// Decodes the pictures, and makes the prompt, if no video has to be read for it.
Model::Prepared Model::Loaded::prepare(const Conversation& conversation, infer::Request request) {
  auto messages = std::make_shared<std::vector<Message>>();
  Prepared prepared{.media = std::make_shared<infer::ShownMedia>(processor(), engine->encoder())};
  for (const Conversation::Turn& turn : conversation.turns()) {
    Message message{.role = turn.role};
    const auto show = [&](const Picture& picture) {
      message.content.push_back({.type = picture.source_->part_type()});
      picture.source_->show(*prepared.media);
    };
    for (const Part& part : turn.parts) {
      for (const Picture& picture : part.media()) show(picture);
      if (part.is_text()) message.content.push_back({.type = "text", .text = part.text()});
    }
    if (turn.parts.empty()) {
      for (const Picture& picture : turn.pictures.list()) show(picture);
      message.content.push_back({.type = "text", .text = turn.text});
    }
    messages->push_back(std::move(message));
  }
  const auto set_prompt = [this, messages](infer::ShownMedia& media, infer::Request& one) {
    EncodedConversation prompt = processor().encode_prompt(*messages, media.processed());
    one.prompt = std::move(prompt.ids);
    one.layout = std::move(prompt.layout);
  };
  if (prepared.media->has_videos()) {
    prepared.request.media = prepared.media;
    prepared.request.show = set_prompt;
  } else {
    set_prompt(*prepared.media, request);
    prepared.request.pictures = prepared.media->features();
  }
  prepared.request.requests.push_back(std::move(request));
  return prepared;
}

// Waits for the answer, and hands its pieces on meanwhile.
std::vector<Answer> Model::Loaded::ask(const Conversation& conversation,
                                       const AskOptions& options) {
  infer::Request request{.options = generation_for(options)};
  const bool is_streamed = options.on_text && request.options.rows() == 1;
  Prepared prepared = prepare(conversation, std::move(request));
  const auto inbox = std::make_shared<Inbox>();
  infer::EngineEvents events{
      .on_done = [inbox](infer::RequestAnswer answer) { inbox->end(std::move(answer)); }};
  if (is_streamed) {
    events.on_piece = [inbox](infer::AnswerPiece piece) { inbox->put(std::move(piece)); };
  }
  const std::uint64_t number = engine->submit(std::move(prepared.request), std::move(events));
  const Cancellation::Watch guard(options.cancellation, [this, number] { engine->cancel(number); });
  std::vector<infer::AnswerPiece> given;
  bool is_cut = false;
  try {
    while (auto piece = inbox->next()) {
      if (is_cut) continue;
      given.push_back(std::move(*piece));
      is_cut = !given.back().text.empty() && !options.on_text(given.back().text);
      if (is_cut) engine->cancel(number);
    }
  } catch (...) {
    engine->cancel(number);
    inbox->wait();
    throw;
  }
  std::vector<Answer> answers = to_answers(inbox->wait(), prepared.seen());
  if (is_cut) answers.front() = cut_answer(std::move(answers.front()), given);
  return answers;
}

// The same without waiting.
void Model::Loaded::begin(const Conversation& conversation, const AskOptions& options,
                          const std::shared_ptr<std::promise<Answer>>& promise,
                          infer::CallThreads::Place place) {
  infer::Request request{.options = generation_for(options)};
  const bool is_streamed = options.on_text && request.options.rows() == 1;
  Prepared prepared = prepare(conversation, std::move(request));
  infer::EngineRequest asked = std::move(prepared.request);
  const auto guard = std::make_shared<std::optional<Cancellation::Watch>>();
  infer::EngineEvents events{
      .on_done = [promise, guard, prepared, place](infer::RequestAnswer answer) {
        try {
          promise->set_value(to_answers(std::move(answer), prepared.seen()).front());
        } catch (...) {
          promise->set_exception(std::current_exception());
        }
      }};
  if (is_streamed) {
    events.on_piece = [on_text = options.on_text](const infer::AnswerPiece& piece) {
      if (!piece.text.empty() && !on_text(piece.text)) throw Error({.what = "that is enough"});
    };
  }
  const std::uint64_t number = engine->submit(std::move(asked), std::move(events));
  guard->emplace(options.cancellation, [this, number] { engine->cancel(number); });
}

infer::RequestAnswer Model::Loaded::choose(const Conversation& conversation,
                                           infer::Request request) {
  Prepared prepared = prepare(conversation, std::move(request));
  infer::RequestAnswer answer = engine->submit(std::move(prepared.request)).get();
  if (answer.outcome == infer::Outcome::kFailed) throw std::runtime_error(answer.error);
  if (!answer.error.empty()) throw Error({.what = answer.error});
  return answer;
}

}  // namespace vlm
