#include "infer/vlm.h"

#include <algorithm>
#include <mutex>
#include <utility>
#include <variant>

#include "data/media/media.h"
#include "infer/answer_text.h"
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

std::optional<infer::AnswerRule> to_rule(const AskOptions& options) {
  using Kind = infer::AnswerRule::Kind;
  if (options.json_schema.empty() && options.regex.empty()) return std::nullopt;
  if (options.json_schema.empty()) return infer::AnswerRule{Kind::kRegex, options.regex};
  if (!options.regex.empty()) {
    throw Error({.what = "both json_schema and regex", .where = "AskOptions", .wanted = "one"});
  }
  return infer::AnswerRule{Kind::kJsonSchema, options.json_schema};
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

// Pieces of text out of ids, for a callback.
class TextStream {
 public:
  TextStream(const Tokenizer& tokenizer, const infer::GenerationOptions& options,
             const std::function<bool(std::string_view)>& on_text)
      : decoder_(tokenizer, options), on_text_(on_text) {}

  bool add(std::int64_t id) { return pass_on(decoder_.add(id)); }
  void finish() { pass_on(decoder_.finish()); }

 private:
  bool pass_on(const std::string& piece) {
    if (goes_on_ && !piece.empty()) goes_on_ = on_text_(piece);
    return goes_on_;
  }

  infer::AnswerStream decoder_;
  const std::function<bool(std::string_view)>& on_text_;
  bool goes_on_ = true;
};

}  // namespace

struct Model::Loaded {
  infer::Session session;
  std::mutex mutex;  // of the generator

  const Processor& processor() const { return session.generator->processor(); }
  // Answers the request, whose prompt is the conversation; tells what was seen of videos.
  infer::RequestAnswer answer(const Conversation& conversation, infer::Request request,
                              std::vector<SeenVideo>* videos = nullptr);
};

infer::RequestAnswer Model::Loaded::answer(const Conversation& conversation, infer::Request request,
                                           std::vector<SeenVideo>* videos) {
  infer::Generator& generator = *session.generator;
  std::vector<Message> messages;
  infer::ShownMedia media(processor(), generator.encoder());  // decoded before the model is free
  for (const Conversation::Turn& turn : conversation.turns()) {
    Message message{.role = turn.role};
    for (const Picture& picture : turn.pictures.list()) {
      message.content.push_back({.type = picture.source_->part_type()});
      picture.source_->show(media);
    }
    message.content.push_back({.type = "text", .text = turn.text});
    messages.push_back(std::move(message));
  }
  const auto set_prompt = [&] {
    EncodedConversation prompt = processor().encode_prompt(messages, media.processed());
    request.prompt = std::move(prompt.ids);
    request.layout = std::move(prompt.layout);
  };
  if (!media.has_videos()) set_prompt();
  const std::lock_guard lock(mutex);
  try {
    if (media.has_videos()) {
      if (!generator.read(media)) throw Error({.what = "stopped while a video was read"});
      set_prompt();
    }
    infer::RequestGroup group{.pictures = media.features()};
    group.requests.push_back(std::move(request));
    infer::RequestAnswer answer = generator.answer(std::move(group));
    for (const infer::WatchedVideo& seen : media.seen()) {
      if (videos)
        videos->push_back(
            {seen.duration_s, seen.times_s, seen.dropped_duplicates, seen.damaged_frames});
    }
    return answer;
  } catch (...) {
    generator.abandon();  // or the next caller would get this one's answer
    throw;
  }
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
  auto loaded = std::make_shared<Loaded>();
  loaded->session = infer::open_session(
      {.model = model, .adapter = options.adapter, .records_steps = options.cuda_graph}, runtime);
  if (!options.feature_cache.empty()) {
    loaded->session.generator->set_feature_cache(std::make_shared<FeatureCache>(
        options.feature_cache, static_cast<std::uint64_t>(options.feature_cache_gb * 1e9),
        FeatureCacheOptions{.keep_used = false}));
  }
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
  infer::Request request{.options = merge(loaded_->session.generation, options)};
  if (const auto rule = to_rule(options)) {
    request.options.grammar = loaded_->session.rules->compile(*rule, "AskOptions");
  }
  const infer::GenerationOptions generation = request.options;
  TextStream stream(loaded_->processor().tokenizer(), generation, options.on_text);
  const bool is_streamed = options.on_text && request.options.rows() == 1;
  if (is_streamed) request.on_token = [&](std::int64_t id) { return stream.add(id); };
  std::vector<SeenVideo> videos;
  infer::RequestAnswer answer = loaded_->answer(conversation, std::move(request), &videos);
  if (is_streamed) stream.finish();
  std::vector<Answer> answers;
  for (infer::Generation& generation : answer.generations) {
    answers.push_back(to_answer(std::move(generation)));
    answers.back().videos = videos;
  }
  return answers;
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
  const infer::RequestAnswer answer = loaded_->answer(conversation, std::move(request));
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
