#include "infer/vlm.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <limits>
#include <map>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <variant>

#include "data/media/media.h"
#include "infer/engine/call_threads.h"
#include "infer/engine/engine.h"
#include "infer/items/item_failure.h"
#include "infer/media/shown_media.h"
#include "infer/search/choices.h"
#include "infer/session.h"
#include "vlm/core/concat.h"
#include "vlm/io/feature_cache.h"

namespace vlm {

constexpr double kMostCacheGb = 1e6;

// The file's name, its bytes, its pixels, or a video.
struct Picture::Source {
  struct File {
    std::string path;
  };
  struct Bytes {
    std::string bytes;
  };
  std::variant<File, Bytes, Image, infer::VideoRequest> value;

  const char* part_type() const {
    return std::holds_alternative<infer::VideoRequest>(value) ? "video" : "image";
  }

  void show(infer::ShownMedia& media) const {
    if (const auto* file = std::get_if<File>(&value)) {
      media.add(data::load_image(file->path));
    } else if (const auto* encoded = std::get_if<Bytes>(&value)) {
      media.add(data::decode_image(encoded->bytes, "picture in memory"));
    } else if (const auto* video = std::get_if<infer::VideoRequest>(&value)) {
      media.add(*video);
    } else {
      media.add(std::get<Image>(value));
    }
  }
};

namespace {

template <typename Value>
void set(Value& field, const std::optional<Value>& value) {
  if (value) field = *value;
}

infer::GenerationOptions merge(infer::GenerationOptions generation, const AskOptions& options) {
  generation.max_new_tokens = options.max_new_tokens;
  set(generation.min_new_tokens, options.min_new_tokens);
  if (!options.stop_strings.empty()) generation.stop_strings = options.stop_strings;
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
  generation.validate("AskOptions");
  return generation;
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

data::VideoSampling to_sampling(const VideoOptions& options) {
  data::VideoSampling sampling{.strategy = options.sampling,
                               .fps = options.fps,
                               .max_frames = options.max_frames,
                               .start_s = options.start_s,
                               .end_s = options.end_s,
                               .times_s = options.times_s,
                               .frame_size = options.frame_size,
                               .drop_duplicates = options.drop_duplicates};
  sampling.check("VideoOptions::");
  return sampling;
}

infer::EngineOptions engine_options(const ModelOptions& options) {
  constexpr std::int64_t kMegabyte = 1 << 20;
  for (const auto& [name, value] : {std::pair{"batch_size", options.batch_size - 1},
                                    {"kept_pictures_mb", options.kept_pictures_mb},
                                    {"kept_prompts_mb", options.kept_prompts_mb}}) {
    if (value >= 0) continue;
    throw Error({.what = "value out of range",
                 .where = name,
                 .wanted = name == std::string("batch_size") ? "1 or more" : "0 or more"});
  }
  return {.max_running = options.batch_size,
          .max_waiting = std::numeric_limits<std::int64_t>::max(),
          .kept_media_bytes = options.kept_pictures_mb * kMegabyte,
          .kept_prefix_bytes = options.kept_prompts_mb * kMegabyte};
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

}  // namespace

// Calls to make when it is requested, by a number.
struct Cancellation::State {
  std::mutex mutex;
  bool is_requested = false;
  std::uint64_t last = 0;
  std::map<std::uint64_t, std::function<void()>> calls;

  // `call` is made at once when it was requested before. → what to forget it by
  std::uint64_t add(std::function<void()> call) {
    const std::lock_guard lock(mutex);
    if (is_requested) call();
    calls.emplace(++last, std::move(call));
    return last;
  }
  void forget(std::uint64_t number) {
    const std::lock_guard lock(mutex);
    calls.erase(number);
  }
};

// While it lives, a cancellation makes the call.
class Cancellation::Watch {
 public:
  Watch(const std::optional<Cancellation>& cancellation, std::function<void()> call) {
    if (!cancellation) return;
    state_ = cancellation->state_;
    number_ = state_->add(std::move(call));
  }
  ~Watch() {
    if (state_) state_->forget(number_);
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  std::shared_ptr<State> state_;
  std::uint64_t number_ = 0;
};

Cancellation::Cancellation() : state_(std::make_shared<State>()) {}

void Cancellation::request() const {
  const std::lock_guard lock(state_->mutex);
  state_->is_requested = true;
  for (const auto& [number, call] : state_->calls) call();
}

bool Cancellation::is_requested() const {
  const std::lock_guard lock(state_->mutex);
  return state_->is_requested;
}

// A prompt with its media, ready for the engine.
struct Model::Prepared {
  infer::EngineRequest request;
  std::shared_ptr<infer::ShownMedia> media;

  std::vector<SeenVideo> seen() const {
    std::vector<SeenVideo> videos;
    for (const infer::WatchedVideo& one : media->seen()) {
      videos.push_back({one.duration_s, one.times_s, one.dropped_duplicates, one.damaged_frames});
    }
    return videos;
  }
};

struct Model::Loaded {
  infer::Session session;
  std::optional<infer::Engine> engine;
  std::optional<infer::CallThreads> threads;  // that prepare what ask_async asks

  const Processor& processor() const { return session.generator->processor(); }
  Prepared prepare(const Conversation& conversation, infer::Request request);
  std::vector<Answer> ask(const Conversation& conversation, const AskOptions& options);
  void begin(const Conversation& conversation, const AskOptions& options,
             const std::shared_ptr<std::promise<Answer>>& promise, infer::CallThreads::Place place);
  infer::RequestAnswer choose(const Conversation& conversation, infer::Request request);
};

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

namespace {

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

}  // namespace

// Waits for the answer, and hands its pieces on meanwhile.
std::vector<Answer> Model::Loaded::ask(const Conversation& conversation,
                                       const AskOptions& options) {
  infer::Request request{.options = merge(session.generation, options)};
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
  infer::Request request{.options = merge(session.generation, options)};
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

Picture::Picture(std::string file)
    : source_(std::make_shared<Source>(Source{Source::File{std::move(file)}})) {}

Picture Picture::from_bytes(std::string bytes) {
  return Picture(std::make_shared<Source>(Source{Source::Bytes{std::move(bytes)}}));
}

Picture Picture::from_rgb(Height picture_height, Width picture_width,
                          std::vector<std::uint8_t> pixels) {
  const std::int64_t height = picture_height.pixels, width = picture_width.pixels;
  const auto bytes = static_cast<std::int64_t>(pixels.size());
  const std::int64_t points = bytes / 3;
  // Divided, not multiplied: the sides are the caller's and may be anything.
  const bool fits =
      bytes % 3 == 0 && height > 0 && width > 0 && points % height == 0 && points / height == width;
  if (!fits) {
    throw Error({.what = "pixels don't fit the picture's size",
                 .got = concat(bytes, " bytes"),
                 .wanted = concat(height, " x ", width, " x 3")});
  }
  return Picture(std::make_shared<Source>(Source{Image{height, width, std::move(pixels)}}));
}

Video::Video(std::string file, VideoOptions options)
    : file_(std::move(file)), options_(std::move(options)) {}

Picture::Picture(const Video& video)
    : source_(std::make_shared<Source>(
          Source{infer::VideoRequest{video.file_, {to_sampling(video.options_)}}})) {}

Conversation& Conversation::system(std::string text) & {
  turns_.push_back({"system", std::move(text)});
  return *this;
}

Conversation& Conversation::user(std::string text, Pictures pictures) & {
  turns_.push_back({"user", std::move(text), std::move(pictures)});
  return *this;
}

Conversation& Conversation::user_parts(std::vector<Part> parts) & {
  turns_.push_back({"user", "", {}, std::move(parts)});
  return *this;
}

Conversation& Conversation::assistant(std::string text) & {
  turns_.push_back({"assistant", std::move(text)});
  return *this;
}

Conversation Conversation::system(std::string text) && {
  return std::move(system(std::move(text)));
}

Conversation Conversation::user(std::string text, Pictures pictures) && {
  return std::move(user(std::move(text), std::move(pictures)));
}

Conversation Conversation::user_parts(std::vector<Part> parts) && {
  return std::move(user_parts(std::move(parts)));
}

Conversation Conversation::assistant(std::string text) && {
  return std::move(assistant(std::move(text)));
}

Model Model::load(const std::string& model, const ModelOptions& options) {
  const RuntimeOptions runtime{
      .device = options.device, .dtype = options.dtype, .threads = options.threads};
  if (!(options.feature_cache_gb >= 0 && options.feature_cache_gb <= kMostCacheGb)) {
    throw Error({.what = "value out of range",
                 .where = "feature_cache_gb",
                 .got = concat(options.feature_cache_gb),
                 .wanted = concat("0 to ", kMostCacheGb)});
  }
  const infer::EngineOptions engine = engine_options(options);
  auto loaded = std::make_shared<Loaded>();
  loaded->session = infer::open_session({.model = model,
                                         .adapter = options.adapter,
                                         .kv_dtype = options.kv_dtype,
                                         .records_steps = options.cuda_graph},
                                        runtime);
  if (!options.feature_cache.empty()) {
    loaded->session.generator->set_feature_cache(std::make_shared<FeatureCache>(
        options.feature_cache, static_cast<std::uint64_t>(options.feature_cache_gb * 1e9),
        FeatureCacheOptions{.keep_used = false}));
  }
  loaded->engine.emplace(*loaded->session.generator, engine);
  loaded->threads.emplace(2 * engine.max_running);
  return Model(std::move(loaded));
}

Answer Model::ask(const Pictures& pictures, const std::string& question,
                  const AskOptions& options) const {
  return ask(Conversation().user(question, pictures), options);
}

Answer Model::ask(const std::string& question, const AskOptions& options) const {
  return ask(Conversation().user(question), options);
}

Answer Model::ask(const Conversation& conversation, const AskOptions& options) const {
  return ask_many(conversation, options).front();
}

std::vector<Answer> Model::ask_many(const Conversation& conversation,
                                    const AskOptions& options) const {
  return loaded_->ask(conversation, options);
}

std::future<Answer> Model::ask_async(const Conversation& conversation,
                                     const AskOptions& options) const {
  const auto promise = std::make_shared<std::promise<Answer>>();
  std::future<Answer> answer = promise->get_future();
  // A pointer, as the model's own threads must not be the last to hold it.
  loaded_->threads->post(
      [loaded = loaded_.get(), conversation, options, promise](infer::CallThreads::Place place) {
        try {
          if (!place) throw Error({.what = "the model went away before it was asked"});
          loaded->begin(conversation, options, promise, std::move(place));
        } catch (...) {
          promise->set_exception(std::current_exception());
        }
      });
  return answer;
}

std::vector<Reply> Model::ask_all(const std::vector<Conversation>& conversations,
                                  const AskOptions& options) const {
  if (options.on_text) {
    throw Error({.what = "pieces of several conversations can't be told apart",
                 .where = "AskOptions::on_text",
                 .hint = "ask_async takes one conversation, and pieces"});
  }
  merge(loaded_->session.generation, options);  // checks them, once for all
  std::vector<std::future<Answer>> answers;
  for (const Conversation& one : conversations) answers.push_back(ask_async(one, options));
  std::vector<Reply> replies(answers.size());
  for (std::size_t i = 0; i < answers.size(); ++i) {
    try {
      replies[i].answer = answers[i].get();
    } catch (const std::exception& error) {
      replies[i].error = infer::failure_text(error);
    }
  }
  return replies;
}

std::vector<Choice> Model::choose(const Pictures& pictures, const std::string& question,
                                  const std::vector<std::string>& choices,
                                  const ChooseOptions& options) const {
  return choose(Conversation().user(question, pictures), choices, options);
}

std::vector<Choice> Model::choose(const std::string& question,
                                  const std::vector<std::string>& choices,
                                  const ChooseOptions& options) const {
  return choose(Conversation().user(question), choices, options);
}

std::vector<Choice> Model::choose(const Conversation& conversation,
                                  const std::vector<std::string>& choices,
                                  const ChooseOptions& options) const {
  infer::check_choices(choices);
  infer::Request request{.options = loaded_->session.generation};
  request.choices = infer::encode_choices(loaded_->processor(), choices);
  const infer::RequestAnswer answer = loaded_->choose(conversation, std::move(request));
  const auto probabilities = infer::choice_probabilities(answer.choices, options.by_mean);
  std::vector<Choice> scored;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    scored.push_back({choices[i], probabilities[i], answer.choices[i].logprob});
  }
  std::stable_sort(scored.begin(), scored.end(),
                   [](const Choice& a, const Choice& b) { return a.probability > b.probability; });
  return scored;
}

}  // namespace vlm
