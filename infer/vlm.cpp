#include "infer/vlm.h"

#include <algorithm>
#include <exception>
#include <limits>
#include <utility>

#include "infer/doctags/answer_format.h"
#include "infer/items/item_failure.h"
#include "infer/library/loaded_model.h"
#include "infer/library/picture_source.h"
#include "infer/search/choices.h"
#include "vlm/core/concat.h"
#include "vlm/io/feature_cache.h"

namespace vlm {

constexpr double kMostCacheGb = 1e6;

namespace {

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

}  // namespace

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

std::string doctags_to_markdown(const std::string& answer_text) {
  return infer::convert_answer(answer_text, infer::AnswerFormat::kMarkdown);
}

std::string doctags_to_html(const std::string& answer_text) {
  return infer::convert_answer(answer_text, infer::AnswerFormat::kHtml);
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
  infer::ModelChoice choice{.model = model,
                            .mmproj = options.mmproj,
                            .adapter = options.adapter,
                            .kv_dtype = options.kv_dtype,
                            .records_steps = options.cuda_graph};
  choice.chat.day = options.template_day;
  for (const auto& [name, value] : options.template_arguments) {
    choice.chat.add_argument(concat(name, "=", value));
  }
  loaded->session = infer::open_session(choice, runtime);
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
  loaded_->generation_for(options);  // checks them, once for all
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
