#include "infer/vlm.h"

#include <mutex>
#include <utility>
#include <variant>

#include "data/media.h"
#include "infer/session.h"
#include "vlm/core/concat.h"

namespace vlm {

// The file's name, its bytes, or its pixels.
struct Picture::Source {
  struct File {
    std::string path;
  };
  struct Bytes {
    std::string bytes;
  };
  std::variant<File, Bytes, Image> value;

  Image open() const {
    if (const auto* file = std::get_if<File>(&value)) return data::load_image(file->path);
    if (const auto* encoded = std::get_if<Bytes>(&value)) {
      return data::decode_image(encoded->bytes, "picture in memory");
    }
    return std::get<Image>(value);
  }
};

struct Model::Loaded {
  infer::Session session;
  std::mutex mutex;  // of the generator

  EncodedConversation encode(const Conversation& conversation) const {
    std::vector<Message> messages;
    std::vector<Image> images;
    for (const Conversation::Turn& turn : conversation.turns()) {
      Message message{.role = turn.role};
      for (const Picture& picture : turn.pictures.list()) {
        message.content.push_back({.type = "image"});
        images.push_back(picture.source_->open());
      }
      message.content.push_back({.type = "text", .text = turn.text});
      messages.push_back(std::move(message));
    }
    return session.generator->processor().encode_prompt(messages, images);
  }
};

Picture::Picture(const char* file) : Picture(std::string(file)) {}
Picture::Picture(std::string file)
    : source_(std::make_shared<Source>(Source{Source::File{std::move(file)}})) {}

Picture Picture::from_bytes(std::string bytes) {
  return Picture(std::make_shared<Source>(Source{Source::Bytes{std::move(bytes)}}));
}

Picture Picture::from_rgb(std::int64_t height, std::int64_t width,
                          std::vector<std::uint8_t> pixels) {
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

Conversation& Conversation::system(std::string text) {
  turns_.push_back({"system", std::move(text)});
  return *this;
}

Conversation& Conversation::user(std::string text, Pictures pictures) {
  turns_.push_back({"user", std::move(text), std::move(pictures)});
  return *this;
}

Conversation& Conversation::assistant(std::string text) {
  turns_.push_back({"assistant", std::move(text)});
  return *this;
}

Model Model::load(const std::string& model, const ModelOptions& options) {
  const RuntimeOptions runtime{
      .device = options.device, .dtype = options.dtype, .threads = options.threads};
  auto loaded = std::make_shared<Loaded>();
  loaded->session = infer::open_session({.model = model, .adapter = options.adapter}, runtime);
  return Model(std::move(loaded));
}

Answer Model::ask(const Pictures& pictures, const std::string& question,
                  const AskOptions& options) const {
  return ask(Conversation().user(question, pictures), options);
}

Answer Model::ask(const Conversation& conversation, const AskOptions& options) const {
  if (options.max_new_tokens < 0) {
    throw Error({.what = "value out of range",
                 .where = "max_new_tokens",
                 .got = concat(options.max_new_tokens),
                 .wanted = "0 or more"});
  }
  const EncodedConversation prompt = loaded_->encode(conversation);
  infer::Generator& generator = *loaded_->session.generator;
  infer::GenerationOptions generation = loaded_->session.generation;
  generation.max_new_tokens = options.max_new_tokens;

  StreamDecoder stream(generator.processor().tokenizer(), /*skip_special_tokens=*/true);
  bool goes_on = true;
  const auto tell = [&](const std::string& piece) {
    if (!piece.empty()) goes_on = options.on_text(piece);
    return goes_on;
  };
  const auto on_token = [&](std::size_t, std::int64_t id) { return tell(stream.add(id)); };
  const std::lock_guard lock(loaded_->mutex);
  infer::Generation generated = std::move(generator.generate(
      {prompt}, generation, options.on_text ? on_token : infer::TokenCallback())[0]);
  if (options.on_text && goes_on) tell(stream.finish());
  return {.text = std::move(generated.text),
          .finish_reason = std::move(generated.finish_reason),
          .token_ids = generated.ids,
          .token_logprobs = generated.logprobs,
          .mean_logprob = generated.mean_logprob()};
}

}  // namespace vlm
