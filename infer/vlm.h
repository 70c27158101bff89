// vlm as a library: load a model, ask it about pictures and videos. Installed as <vlm/vlm.h>.
//
//   vlm::Model model = vlm::Model::load("org/name or a folder");
//   vlm::Answer answer = model.ask(vlm::Picture("a.png"), "what shape is in the image?");
//   std::cout << answer.text;
//
// A thin layer on infer/session and Engine; it needs no other header of the tree and none of
// LibTorch. Fine-tuning and runs over folders are the program's (vlm finetune, vlm caption).
// docs/library.md has an example of each call.
//
// Calls keep nothing that belongs to the caller: arguments are copied, and callbacks are called
// only before the call returns, or before the future of ask_async is ready. Arguments that could be
// swapped by mistake have different types: a picture and a question, a height and a width. Moving a
// Picture or a Model copies it (both are pointers), so none is ever empty.
//
// Errors: vlm::Error for whatever a caller, a file or a model can cause; what LibTorch throws
// (out of memory, say) comes through as std::exception. Threads: everything here may be called
// from any thread. A model answers several requests at the same time, in one thread of its own; an
// answer is the same whatever is asked beside it (up to rounding). Messages for people go to
// stderr, or where vlm/core/log.h sends them.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vlm/core/error.h"

namespace vlm {

// Set the fields of this and of all options below by name.
struct ModelOptions {
  std::string adapter;            // PEFT adapter folder, merged into the weights; empty: none
  std::string mmproj;             // of a GGUF model: its vision file; empty: that beside it
  std::string device = "auto";    // auto, cpu, cuda, cuda:N
  std::string dtype = "auto";     // auto, float32, bfloat16, int8, int4 (vlm --help)
  std::string kv_dtype = "auto";  // auto, float32, bfloat16, int8 (vlm generate --help)
  int threads = 0;                // of the whole process; 0: as many as the machine has
  std::string feature_cache;      // folder that keeps features of media across runs; empty: none
  double feature_cache_gb = 10;   // its bound
  bool cuda_graph = false;        // on a GPU: decode steps are recorded and replayed
  int batch_size = 8;             // requests that are answered together; others wait
  // Variables of the chat template by name, each as JSON or as a bare text ({"enable_thinking",
  // "false"}), and the day that it takes for today ("2026-07-26"; none: today).
  std::map<std::string, std::string> template_arguments;
  std::optional<std::string> template_day;
  // Memory for what earlier requests left, in MB: features of pictures that are shown again, and
  // keys and values of prompts that begin alike, as the turns of a conversation do. No answer
  // depends on it.
  int kept_pictures_mb = 128;
  int kept_prompts_mb = 256;
};

class Video;

// Sides of a picture in pixels.
struct Height {
  explicit Height(std::int64_t count) : pixels(count) {}
  std::int64_t pixels;
};
struct Width {
  explicit Width(std::int64_t count) : pixels(count) {}
  std::int64_t pixels;
};

// A picture: PNG, JPEG, WebP, BMP, TIFF, GIF (first frame), HEIC, AVIF, JPEG 2000, PNM, Radiance or
// Sun raster, told apart by content.
// Its file is opened by the call that asks about it, which throws Error when it can't be read.
// Cheap to copy.
class Picture {
 public:
  explicit Picture(std::string file);
  // A video takes a picture's place in every call. Throws Error for options that don't fit
  // together.
  Picture(const Video& video);

  Picture(const Picture&) = default;
  Picture& operator=(const Picture&) = default;

  // The bytes of a whole file, from a network, say.
  static Picture from_bytes(std::string bytes);
  // `pixels`: bytes of red, green and blue, [height, width, 3], row by row from the top left.
  // Throws Error when their number doesn't fit.
  static Picture from_rgb(Height height, Width width, std::vector<std::uint8_t> pixels);

 private:
  friend class Model;
  struct Source;
  explicit Picture(std::shared_ptr<const Source> source) : source_(std::move(source)) {}
  std::shared_ptr<const Source> source_;
};

// Which frames of a video are shown. What is not set is as the checkpoint's preprocessor config
// says.
struct VideoOptions {
  std::optional<double> fps;               // frames a second
  std::optional<std::int64_t> max_frames;  // at most
  std::optional<double> start_s, end_s;    // only this part
  std::int64_t frame_size = 0;     // long edge that larger frames are scaled to; 0: as they are
  std::string sampling = "model";  // model, uniform, scene (the largest changes) or times
  std::vector<double> times_s;     // of sampling times
  bool drop_duplicates = false;    // leave out frames that look like the one before
};

// A video file, of any kind that FFmpeg's libraries read. It is opened when it is asked about; its
// frames are decoded while earlier ones are being encoded. Cheap to copy.
class Video {
 public:
  explicit Video(std::string file, VideoOptions options = {});

 private:
  friend class Picture;
  std::string file_;
  VideoOptions options_;
};

// What calls take: {} for none, a Picture, a Video, or several as {picture, video, …}; the prompt
// shows them in this order.
class Pictures {
 public:
  Pictures() = default;
  Pictures(Picture picture) : list_{std::move(picture)} {}
  Pictures(const Video& video) : list_{Picture(video)} {}
  Pictures(std::initializer_list<Picture> list) : list_(list) {}
  Pictures(std::vector<Picture> list) : list_(std::move(list)) {}

  const std::vector<Picture>& list() const& { return list_; }
  std::vector<Picture> list() && { return std::move(list_); }

 private:
  std::vector<Picture> list_;
};

// A piece of a turn: some text, a picture or a video.
class Part {
 public:
  Part(std::string text) : text_(std::move(text)) {}
  Part(const char* text) : text_(text) {}
  Part(Picture picture) : media_{std::move(picture)} {}
  Part(const Video& video) : media_{Picture(video)} {}

  bool is_text() const { return media_.empty(); }
  const std::string& text() const { return text_; }
  const std::vector<Picture>& media() const { return media_; }  // one, or none of a text

 private:
  std::string text_;
  std::vector<Picture> media_;
};

// Turns in order; a turn's pictures and videos stand before its text, or, of user_parts, where they
// stand among the parts. Calls can be chained; on a
// temporary they give the conversation itself, never a reference to it.
//
//   auto talk = vlm::Conversation().system("Be brief.").user("What is this?", picture);
//   talk.assistant(model.ask(talk).text).user("And its colour?");
class Conversation {
 public:
  struct Turn {
    std::string role;  // "system", "user" or "assistant"
    std::string text;
    Pictures pictures = {};
    std::vector<Part> parts = {};  // if not empty, in the place of text and pictures
  };

  Conversation& system(std::string text) &;
  Conversation& user(std::string text, Pictures pictures = {}) &;
  Conversation& user_parts(std::vector<Part> parts) &;  // text and media as they alternate
  Conversation& assistant(std::string text) &;
  Conversation system(std::string text) &&;
  Conversation user(std::string text, Pictures pictures = {}) &&;
  Conversation user_parts(std::vector<Part> parts) &&;
  Conversation assistant(std::string text) &&;

  const std::vector<Turn>& turns() const& { return turns_; }
  std::vector<Turn> turns() && { return std::move(turns_); }

 private:
  std::vector<Turn> turns_;
};

// Ends calls from outside: every call whose options hold it. Copies are one and the same; cheap to
// copy. Any thread.
class Cancellation {
 public:
  Cancellation();
  // Answers end where they are, with finish_reason "interrupted"; later calls end at once.
  void request() const;
  bool is_requested() const;

 private:
  friend class Model;
  struct State;
  class Watch;
  std::shared_ptr<State> state_;
};

// Names and meanings are those of transformers' GenerationConfig (5.23). What is not set is as the
// checkpoint's generation_config.json says, or else as transformers has it: greedy.
struct AskOptions {
  std::int64_t max_new_tokens = 128;
  std::optional<std::int64_t> min_new_tokens;
  std::vector<std::string> stop_strings;  // the answer ends with the token that completes one
  bool hides_stop_strings = false;        // its text then ends in front of the string
  bool keep_special_tokens = false;       // in the text (DocTags are such), all but the end token

  std::optional<bool> do_sample;
  std::optional<double> temperature, top_p, min_p, typical_p;
  std::optional<std::int64_t> top_k;  // 0: all
  std::uint64_t seed = 0;             // the same seed draws the same answer

  std::optional<double> repetition_penalty;
  std::optional<std::int64_t> no_repeat_ngram_size;

  std::optional<std::int64_t> num_beams;
  std::optional<double> length_penalty;
  std::optional<std::string> early_stopping;         // "true", "false" or "never"
  std::optional<std::int64_t> num_return_sequences;  // for Model::ask_many

  // The most next tokens that are guessed from the prompt and checked in one pass; 0: none. The
  // answer is the same, sooner where it repeats what was there.
  std::optional<std::int64_t> prompt_lookup_num_tokens;

  // What the answer must look like, one of: JSON that satisfies this schema (the JSON of one); text
  // that matches this pattern as a whole. Throws Error, naming the part, for a schema or pattern
  // that can't be kept exactly. finish_reason "length" then means an answer that isn't whole.
  std::string json_schema, regex;

  // Called with each new piece of the answer, whole characters; false ends the answer there. The
  // pieces joined are Answer::text. A piece is valid until the callback returns. Called in the
  // thread that asks, and not after the call has returned; by ask_async in the model's thread,
  // where every other answer waits for it. Not called by beam search, nor for several answers.
  std::function<bool(std::string_view)> on_text;
  std::optional<Cancellation> cancellation;
};

// What the model was shown of a video.
struct SeenVideo {
  double duration_s = 0;                // of the file
  std::vector<double> frame_times_s;    // of the frames that were shown
  std::int64_t dropped_duplicates = 0;  // with VideoOptions::drop_duplicates
  std::int64_t damaged_frames = 0;      // left out, or shown although the decoder reported errors
};

struct Answer {
  std::string text;           // without the space that first words begin with
  std::string finish_reason;  // "stop", "length" (max_new_tokens) or "interrupted" (by the caller)
  std::vector<std::int64_t> token_ids;  // the end token included
  std::vector<double> token_logprobs;   // of each of them, before any filter
  double mean_logprob = 0;              // of these; 0 for an empty answer
  double score = 0;  // of beam search: sum of log-probabilities / length^length_penalty
  std::vector<SeenVideo> videos;  // that the prompt showed, in their order
  std::int64_t prompt_tokens = 0;
  std::int64_t cached_tokens = 0;  // of these, those that an earlier request left
};

// One of several conversations: its answer or, where `error` isn't empty, why there is none.
struct Reply {
  Answer answer;
  std::string error;
};

// A page that a document model (Granite-Docling, SmolDocling) wrote as DocTags, as Markdown or
// HTML, tables included. Its answer must have been asked for with keep_special_tokens. Any text
// will do.
std::string doctags_to_markdown(const std::string& answer_text);
std::string doctags_to_html(const std::string& answer_text);

struct ChooseOptions {
  bool by_mean = false;  // compare log-probabilities a token, so that long choices may win
};

struct Choice {
  std::string text;
  double probability = 0;  // over the choices given
  double logprob = 0;      // of the whole answer, its end included; summed over its tokens
};

// A loaded model. Copies share it, and the last of them frees its memory.
class Model {
 public:
  // `model`: a checkpoint folder, a GGUF file, or org/name[@revision] as in `vlm --model`. Sets the
  // threads of the process. Throws Error for a model that isn't there or doesn't fit.
  static Model load(const std::string& model, const ModelOptions& options = {});

  Model(const Model&) = default;
  Model& operator=(const Model&) = default;

  // One question about pictures and videos. Throws Error for a file that can't be read, for options
  // out of range, and for a prompt that is longer than the model's positions.
  Answer ask(const Pictures& pictures, const std::string& question,
             const AskOptions& options = {}) const;

  // One question without a picture.
  Answer ask(const std::string& question, const AskOptions& options = {}) const;
  // Refuses two texts in braces, which would be read as the begin and end of one string.
  Answer ask(std::initializer_list<const char*>, const AskOptions& options = {}) const = delete;

  // The next turn of the assistant.
  Answer ask(const Conversation& conversation, const AskOptions& options = {}) const;

  // The same without waiting: pictures are decoded by threads of the model. The future throws what
  // ask would. A model that goes away ends its answers first.
  std::future<Answer> ask_async(const Conversation& conversation,
                                const AskOptions& options = {}) const;

  // Many at once, in their order. What one of them can't be answered for is its own error. Throws
  // Error for options out of range, and for on_text.
  std::vector<Reply> ask_all(const std::vector<Conversation>& conversations,
                             const AskOptions& options = {}) const;

  // num_return_sequences answers: of beam search the best ones, the best first; else samples.
  std::vector<Answer> ask_many(const Conversation& conversation, const AskOptions& options) const;

  // Which of the given answers the model holds likely, the likeliest first. Exact: each is scored
  // as a whole, nothing is generated. Throws Error unless there are two or more, all different.
  std::vector<Choice> choose(const Pictures& pictures, const std::string& question,
                             const std::vector<std::string>& choices,
                             const ChooseOptions& options = {}) const;
  std::vector<Choice> choose(const std::string& question, const std::vector<std::string>& choices,
                             const ChooseOptions& options = {}) const;
  std::vector<Choice> choose(const Conversation& conversation,
                             const std::vector<std::string>& choices,
                             const ChooseOptions& options = {}) const;

 private:
  struct Loaded;
  struct Prepared;
  explicit Model(std::shared_ptr<Loaded> loaded) : loaded_(std::move(loaded)) {}
  std::shared_ptr<Loaded> loaded_;
};

}  // namespace vlm
