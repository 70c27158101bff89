#include "infer/server/answer_job.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <nlohmann/json.hpp>

#include "infer/search/choices.h"
#include "infer/server/api/body_reader.h"
#include "infer/server/api/chat_request.h"
#include "infer/server/api/response_reply.h"
#include "infer/server/generation.h"
#include "infer/server/http/http_head.h"
#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"
#include "vlm/core/log.h"
#include "vlm/core/run/stopwatch.h"
#include "vlm/io/error_text.h"

namespace vlm::infer {
namespace {

// A name of a client's, as it may stand in a header.
std::string plain_name(std::string name) {
  for (char& c : name) {
    if (!is_letter(c) && !is_digit(c) && c != '_' && c != '-' && c != '.') c = '?';
  }
  return name;
}

// Once a name, and not for ever.
void log_ignored(const std::vector<std::string>& names) {
  constexpr int kMostLines = 50;
  static std::atomic<int> lines{0};
  for (const std::string& name : names) {
    if (lines >= kMostLines) return;
    ++lines;
    log_warning_once(concat("requests have a field that means nothing here: ",
                            plain_name(shown(name)), " (--strict-fields refuses it)"));
  }
}

}  // namespace

std::int64_t ServiceParts::retry_after_s() const {
  const auto waiting = static_cast<double>(models->stats().engines.waiting);
  return std::clamp<std::int64_t>(std::llround(std::ceil(waiting / metrics.recent_rate())), 1, 60);
}

CountHold hold_one(std::atomic<std::int64_t>& count) {
  ++count;
  return {&count, [](std::atomic<std::int64_t>* held) { --*held; }};
}

AnswerJob::AnswerJob(ServiceParts& parts, Kind kind, std::shared_ptr<Exchange> exchange,
                     Asker asker)
    : parts_(parts),
      kind_(kind),
      exchange_(std::move(exchange)),
      owner_(asker.key),
      key_place_(std::move(asker.place)) {}

double AnswerJob::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

void AnswerJob::start(WebRequest request, std::vector<HttpHeader> headers) {
  exchange_->facts = facts_;
  facts_->model = parts_.models->base().id();  // until the request says which
  request_id_ = request.id;
  headers_ = std::move(headers);
  exchange_->on_gone([weak = weak_from_this(), &writer = parts_.writer] {
    if (const auto self = weak.lock()) writer.post([self] { self->cancel(); });
  });
  preparing_ = hold_one(parts_.preparing);
  const auto shared = std::make_shared<WebRequest>(std::move(request));
  // Waiting for another host must not keep those waiting whose media are here.
  const bool may_fetch = parts_.limits.fetcher && shared->body.find("\"http") != std::string::npos;
  (may_fetch ? parts_.fetching : parts_.media).post([self = shared_from_this(), shared] {
    self->prepare(std::move(*shared));
  });
}

void AnswerJob::prepare(WebRequest request) {
  in_pool([&] {
    read(request.body);
    request = {};
    model_ = parts_.models->open(asked_.model, [self = shared_from_this()](OpenedModel opened) {
      self->go_on(std::move(opened));
    });
    if (model_) prepare_prompt();
  });
}

// In the shelf's thread.
void AnswerJob::go_on(OpenedModel opened) {
  parts_.media.post([self = shared_from_this(), opened = std::move(opened)] {
    self->in_pool([&] {
      if (!opened.model) throw ApiError(*opened.error);
      self->model_ = opened.model;
      self->prepare_prompt();
    });
  });
}

void AnswerJob::in_pool(const std::function<void()>& work) {
  try {
    if (!exchange_->is_gone()) work();
  } catch (const ApiError& error) {
    refuse(error);
  } catch (const std::exception& error) {
    log_warning(concat(request_id_, ": ", error_text(error)));
    refuse(internal_error(request_id_));
  }
}

// The body, its JSON and the base64 in it are gone afterwards; bytes of media stay.
void AnswerJob::read(const std::string& body) {
  const OrderedJson json = parse_body(body);
  ApiLimits limits = parts_.limits;
  limits.media_owner = owner_;
  if (kind_ == Kind::kCompletion) {
    completion_ = read_completion_request(json, limits);
    asked_ = completion_->asked;
  } else if (kind_ == Kind::kResponse) {
    chat_ = read_response_request(json, limits);
    echo_ = read_response_echo(json);
    asked_ = chat_->asked;
  } else {
    chat_ = read_chat_request(json, limits);
    asked_ = chat_->asked;
  }
  if (asked_.ignored.empty()) return;
  std::string names;
  for (const std::string& name : asked_.ignored) {
    parts_.metrics.add("ignored_fields_total", {{"field", shown(name)}});
    names += concat(names.empty() ? "" : ", ", plain_name(name));
  }
  headers_.push_back({"x-vlm-ignored", shown(names)});
  log_ignored(asked_.ignored);
}

void AnswerJob::prepare_prompt() {
  const auto is_unwanted = [this] { return exchange_->is_gone(); };
  prepared_ =
      chat_ ? model_->maker().prepare(*chat_, is_unwanted) : model_->maker().prepare(*completion_);
  const std::int64_t tokens = std::ssize(prepared_.prompt.ids);
  generation_ =
      make_generation_options(model_->generation(), asked_, model_->processor().tokenizer(),
                              {.prompt_tokens = tokens,
                               .context = model_->context(),
                               .max_tokens = parts_.limits.max_tokens});
  if (asked_.constraint.needs_grammar()) {
    double compile_s = 0;
    {
      const Stopwatch watch(compile_s);
      generation_.grammar = model_->compile(asked_.constraint);
    }
    parts_.metrics.observe("grammar_compile_seconds", compile_s);
    model_->maker().force_begin(prepared_, generation_);
  }
  if (chat_) chat_->media.clear();
  make_reply();
  if (exchange_->is_gone()) return;
  parts_.writer.post([self = shared_from_this()] { self->submit(); });
}

void AnswerJob::make_reply() {
  const char* prefix = kind_ == Kind::kCompletion ? "cmpl-"
                       : kind_ == Kind::kResponse ? "resp_"
                                                  : "chatcmpl-";
  ReplyHead head{.id = prefix + random_hex(32),
                 .created = std::time(nullptr),
                 .model = asked_.model.empty() ? model_->id() : asked_.model,
                 .fingerprint = model_->fingerprint(),
                 .is_chat = kind_ != Kind::kCompletion};
  if (kind_ == Kind::kResponse) {
    reply_ = std::make_unique<ResponseWriter>(std::move(head), asked_, std::move(echo_));
  } else {
    reply_ = std::make_unique<ChatWriter>(std::move(head), asked_);
  }
}

EngineRequest AnswerJob::make_request() {
  Request request{.options = generation_};
  if (asked_.constraint.kind == Constraint::Kind::kChoice) {
    std::vector<std::string> texts;
    for (const std::string& text : asked_.constraint.choices) {
      texts.push_back(model_->maker().as_plain(text));
    }
    request.choices = encode_choices(model_->processor(), texts);
    choice_ids_ = request.choices;
  }
  return EngineRequest::of(std::move(prepared_.prompt), std::move(request));
}

void AnswerJob::submit() {
  preparing_.reset();
  if (exchange_->is_gone()) return;
  facts_->model = model_->id();
  facts_->was_submitted = true;
  facts_->pictures = prepared_.pictures;
  facts_->clips = prepared_.clips;
  facts_->media_s = prepared_.seconds;
  if (kind_ == Kind::kCountTokens) {
    key_place_.reset();
    const OrderedJson body = {{"input_tokens", prepared_.prompt.ids.size()}};
    return exchange_->reply({.body = body.dump(), .headers = headers_});
  }
  if (!model_->parent().empty()) {
    parts_.metrics.add("lora_requests_total", {{"adapter", model_->id()}});
  }
  parts_.metrics.add("pictures_total", {}, static_cast<double>(prepared_.pictures));
  parts_.metrics.add("video_frames_total", {}, static_cast<double>(prepared_.frames));
  parts_.metrics.observe("request_tiles", static_cast<double>(prepared_.prompt.pixels.units()));
  choices_.resize(static_cast<std::size_t>(asked_.sampling.n));
  has_begun_.resize(choices_.size());
  // Events come on the model's thread, which only passes them on.
  const auto self = shared_from_this();
  auto& writer = parts_.writer;
  EngineEvents events;
  events.on_piece = [self, &writer](AnswerPiece piece) {
    writer.post([self, piece = std::move(piece)]() mutable { self->on_piece(std::move(piece)); });
  };
  events.on_done = [self, &writer](RequestAnswer answer) {
    writer.post([self, answer = std::move(answer)] { self->on_done(answer); });
  };
  try {
    number_ = model_->engine().submit(make_request(), std::move(events));
  } catch (const EngineFull&) {
    return fail(queue_full(parts_.retry_after_s()));
  } catch (const EngineStopped&) {
    return fail(shutting_down());
  } catch (const std::exception& error) {
    log_warning(concat(request_id_, ": ", error_text(error)));
    return fail(internal_error(request_id_));
  }
  if (asked_.is_streamed) begin_stream();
}

void AnswerJob::cancel() {
  if (number_) model_->engine().cancel(*number_);
}

void AnswerJob::begin_stream() {
  is_streaming_ = true;
  WebReply head{.content_type = "text/event-stream", .headers = headers_};
  head.headers.push_back({"Cache-Control", "no-cache"});
  head.headers.push_back({"X-Accel-Buffering", "no"});  // nginx passes events on at once
  exchange_->begin_stream(std::move(head), kBeatEvent);
  exchange_->send(reply_->begin());
}

void AnswerJob::on_piece(AnswerPiece piece) {
  const auto index = static_cast<std::size_t>(piece.sequence);
  if (index >= choices_.size() || exchange_->is_gone()) return;
  ReplyChoice& choice = choices_[index];
  const bool is_first = !has_begun_[index];
  has_begun_[index] = true;
  if (is_first) {
    const bool goes_on = chat_ && chat_->continues_answer;
    if (goes_on && !generation_.has_begun()) keep_leading_space(piece);
    if (!goes_on) drop_leading_spaces(piece);
  }
  if (facts_->first_piece_s == 0) facts_->first_piece_s = seconds();
  if (!is_first && asked_.is_streamed && asked_.sampling.n == 1) {
    parts_.metrics.observe("inter_token_latency_seconds", seconds() - last_piece_s_);
  }
  last_piece_s_ = seconds();
  if (!asked_.has_logprobs) piece.tokens.clear();
  if (is_streaming_) {
    const ReplyChoice more{.text = std::move(piece.text), .tokens = std::move(piece.tokens)};
    return exchange_->send(reply_->piece(piece.sequence, more));
  }
  choice.text += piece.text;
  std::move(piece.tokens.begin(), piece.tokens.end(), std::back_inserter(choice.tokens));
}

// What else might have begun the answer would have lost its space, too.
void AnswerJob::drop_leading_spaces(AnswerPiece& piece) {
  if (piece.tokens.empty()) return;
  for (TokenText& other : piece.tokens[0].top) {
    other.bytes.erase(0, std::min(other.bytes.find_first_not_of(' '), other.bytes.size()));
  }
}

// An answer that goes on goes on behind a space, where its first word has one.
void AnswerJob::keep_leading_space(AnswerPiece& piece) const {
  if (piece.tokens.empty() || piece.text.starts_with(' ')) return;
  const auto token = model_->processor().tokenizer().id_to_token(piece.tokens[0].id);
  constexpr std::string_view kByteLevelSpace = "\xC4\xA0", kSentencepieceSpace = "\xE2\x96\x81";
  const bool has_space =
      token && (token->starts_with(kByteLevelSpace) || token->starts_with(kSentencepieceSpace));
  if (!has_space) return;
  piece.text.insert(0, " ");
  if (!piece.tokens[0].bytes.starts_with(' ')) piece.tokens[0].bytes.insert(0, " ");
}

ApiError AnswerJob::failure_of(const RequestAnswer& answer) const {
  switch (answer.outcome) {
    case Outcome::kStopped:
      return shutting_down();
    case Outcome::kTimedOut: {
      ApiError error({.status = 503, .code = "queue_timeout"},
                     {.what = "the request waited too long for its turn"});
      error.retry_after_s = parts_.retry_after_s();
      return error;
    }
    case Outcome::kRefused:
      return ApiError({.param = chat_ ? "messages" : "prompt"}, {.what = answer.error});
    default:
      log_warning(concat(request_id_, ": ", answer.error));
      return internal_error(request_id_);
  }
}

void AnswerJob::on_done(const RequestAnswer& answer) {
  if (answer.outcome == Outcome::kCancelled || exchange_->is_gone()) return;
  if (answer.outcome != Outcome::kAnswered) return fail(failure_of(answer));
  finish(answer);
}

// The likeliest choice is the answer.
void AnswerJob::choose(const RequestAnswer& answer, ReplyParts& parts) {
  const auto probabilities = choice_probabilities(answer.choices, /*by_mean=*/false);
  const auto best = static_cast<std::size_t>(
      std::max_element(probabilities.begin(), probabilities.end()) - probabilities.begin());
  const auto& texts = asked_.constraint.choices;
  choices_[0].text = texts[best];
  choices_[0].finish_reason = "stop";
  if (asked_.has_logprobs) {
    const ChoiceScore& score = answer.choices[best];
    AnswerPieces pieces(model_->processor().tokenizer(), generation_);
    AnswerPiece piece =
        pieces.finish({.ids = choice_ids_[best], .logprobs = score.logprobs, .top = score.top});
    drop_leading_spaces(piece);
    choices_[0].tokens = std::move(piece.tokens);
  }
  parts.own["probabilities"] = OrderedJson::object();
  for (std::size_t i = 0; i < texts.size(); ++i) {
    parts.own["probabilities"][texts[i]] = probabilities[i];
  }
  parts.usage["completion_tokens"] = answer.choices[best].tokens;
  parts.usage["total_tokens"] = answer.prompt_tokens + answer.choices[best].tokens;
  if (is_streaming_) exchange_->send(reply_->piece(0, choices_[0]));
}

void AnswerJob::finish(const RequestAnswer& answer) {
  ReplyParts parts{.usage = usage_of(answer)};
  if (!answer.choices.empty()) choose(answer, parts);
  if (generation_.grammar) parts_.metrics.observe("grammar_mask_seconds", answer.mask_s);
  for (std::size_t i = 0; i < std::min(answer.generations.size(), choices_.size()); ++i) {
    choices_[i].finish_reason = answer.generations[i].finish_reason;
  }
  if (asked_.has_confidence && answer.choices.empty()) parts.own = confidence_of(answer);
  if (asked_.has_timings) parts.timings = timings_of(answer);
  keep_facts(answer, parts.usage);
  key_place_.reset();  // before the client may see the end
  parts.choices = std::move(choices_);
  if (!is_streaming_) {
    return exchange_->reply({.body = reply_->whole(parts), .headers = headers_});
  }
  exchange_->send(reply_->end(parts));
  exchange_->end_stream();
}

void AnswerJob::keep_facts(const RequestAnswer& answer, const OrderedJson& usage) {
  facts_->prompt_tokens = answer.prompt_tokens;
  facts_->image_tokens = answer.media_tokens;
  facts_->cached_tokens = answer.cached_tokens;
  facts_->completion_tokens = usage["completion_tokens"];
  facts_->queue_s = answer.queue_s;
  facts_->vision_s = answer.vision_s;
  facts_->prefill_s = answer.prefill_s;
  facts_->decode_s = answer.decode_s;
  facts_->finish = choices_[0].finish_reason == "stop" ? "stop" : "length";
  Metrics& metrics = parts_.metrics;
  const Metrics::Labels model = {{"model", model_->id()}};
  const auto add = [&](const char* name, std::int64_t count) {
    metrics.add(name, model, static_cast<double>(count));
  };
  add("prompt_tokens_total", facts_->prompt_tokens);
  add("image_tokens_total", facts_->image_tokens);
  add("cached_tokens_total", facts_->cached_tokens);
  add("generation_tokens_total", facts_->completion_tokens);
  metrics.observe("request_prompt_tokens", static_cast<double>(facts_->prompt_tokens));
  metrics.observe("request_generation_tokens", static_cast<double>(facts_->completion_tokens));
}

// From any thread but the writer.
void AnswerJob::refuse(const ApiError& error) {
  parts_.writer.post([self = shared_from_this(), error] { self->fail(error); });
}

void AnswerJob::fail(const ApiError& error) {
  preparing_.reset();
  key_place_.reset();
  if (facts_->was_submitted) facts_->finish = "error";
  const std::string& code = error.code();
  const char* reason =
      code == "queue_full"                ? "queue_full"
      : code == "context_length_exceeded" ? "context"
      : code == "unsupported_schema"      ? "schema"
      : code == "invalid_image" || code == "invalid_video" || code.starts_with("media_") ? "media"
      : error.status() < 500                                                             ? "body"
                                                                                         : nullptr;
  if (reason != nullptr) parts_.metrics.add("requests_rejected_total", {{"reason", reason}});
  if (!is_streaming_) {
    WebReply reply = to_reply(error);
    reply.headers.insert(reply.headers.end(), headers_.begin(), headers_.end());
    return exchange_->reply(std::move(reply));
  }
  exchange_->send(reply_->fail(error));
  exchange_->end_stream();
}

}  // namespace vlm::infer
