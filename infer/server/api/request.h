// What a client asks, checked: the same for chat completions and for plain ones.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/media/media_ref.h"
#include "infer/server/fetch/known_media.h"
#include "infer/server/fetch/media_fetcher.h"
#include "vlm/core/json.h"
#include "vlm/text/chat_template.h"

namespace vlm::infer {

// What one request may hold, and how much work it may make.
struct ApiLimits {
  std::int64_t max_n = 8;
  std::int64_t max_tokens = 1 << 20;  // of one answer
  std::int64_t max_pictures = 32, max_clips = 4;
  std::int64_t max_pixels = 50'000'000;  // of one picture
  std::int64_t max_clip_bytes = 64 << 20;
  std::int64_t max_frames = 64;           // that are shown of one clip
  std::int64_t max_text_bytes = 4 << 20;  // of all texts
  std::int64_t max_messages = 2000;
  std::int64_t max_choices = 256;
  std::string media_folder;                   // file:// URLs are below it; empty: there are none
  std::int64_t max_fetched_bytes = 32 << 20;  // of all media of a request
  std::shared_ptr<const MediaFetcher> fetcher = {};  // of http(s) URLs; null: there are none
  // Media by their uuid, and whose names these are; null: none are kept.
  std::shared_ptr<KnownMedia> known_media = {};
  std::size_t media_owner = 0;
  bool refuses_unknown = false;  // fields that nobody knows
};

struct Sampling {
  std::optional<double> temperature, top_p, min_p, typical_p, repetition_penalty, length_penalty;
  std::optional<std::int64_t> top_k, no_repeat_ngram_size, min_tokens, num_beams, seed;
  std::optional<std::int64_t> max_tokens;  // none: what is left of the context
  std::vector<std::string> stop, bad_words;
  std::int64_t n = 1;
};

// What an answer must be. A schema is checked when it is compiled.
struct Constraint {
  enum class Kind { kNone, kJsonObject, kJsonSchema, kRegex, kGrammar, kChoice };
  Kind kind = Kind::kNone;
  std::string param;                 // the field that asks for it
  std::string text;                  // the schema as JSON, the pattern or the grammar
  std::vector<std::string> choices;  // of kChoice

  bool needs_grammar() const { return kind != Kind::kNone && kind != Kind::kChoice; }
};

// What is shown of a clip: moments, or a part; neither: all of it.
struct ClipPart {
  std::vector<double> times_s;
  std::optional<double> start_s, end_s;
};

struct MediaInput {
  data::MediaRef medium;  // bytes, or a file that was found below the allowed folder
  std::string param;      // "messages[0].content[1].image_url.url"
  ClipPart part = {};
};

struct AskedAnswer {
  std::string model;  // as asked; empty: the base model
  Sampling sampling;
  Constraint constraint;
  bool has_logprobs = false;
  std::int64_t top_logprobs = 0;
  bool is_streamed = false, has_usage_chunk = false;
  bool has_confidence = false, has_timings = false;  // our own, asked for by name
  std::vector<std::string> ignored;                  // fields that nobody knows
};

struct ChatRequest {
  AskedAnswer asked;
  std::vector<Message> messages;
  std::vector<MediaInput> media;  // of the parts that are no text, in their order
  bool continues_answer = false;  // the last message is an answer that goes on
};

struct CompletionRequest {
  AskedAnswer asked;
  std::string prompt;
};

}  // namespace vlm::infer
