#include "infer/server/models/prompt_maker.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <c10/core/InferenceMode.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "data/media/media.h"
#include "data/media/video_clip.h"
#include "infer/search/choices.h"
#include "infer/search/forced_begin.h"
#include "infer/server/api/api_error.h"
#include "vlm/core/concat.h"
#include "vlm/io/error_text.h"

namespace vlm::infer {
namespace {

constexpr double kMostClipSeconds = 120;  // of work on one clip

// A clip's bytes under a name that libav's reader can open, in memory alone.
class MemoryFile {
 public:
  explicit MemoryFile(const std::string& bytes) : descriptor_(::memfd_create("clip", MFD_CLOEXEC)) {
    std::size_t done = 0;
    while (descriptor_ >= 0 && done < bytes.size()) {
      const ssize_t count = ::write(descriptor_, bytes.data() + done, bytes.size() - done);
      if (count < 0 && errno != EINTR) break;
      done += count > 0 ? static_cast<std::size_t>(count) : 0;
    }
    if (done == bytes.size()) return;
    close();
    throw Error({.what = "no memory for the clip"});
  }
  ~MemoryFile() { close(); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return concat("/proc/self/fd/", descriptor_); }

 private:
  void close() const {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  int descriptor_;
};

// What a reader of media says, without the names of files that it says it of.
ApiError media_error(const Error& error, const MediaInput& input) {
  ErrorParts parts = error.parts();
  for (std::string* part : {&parts.what, &parts.got, &parts.wanted, &parts.hint}) {
    const bool has_path = part->find(input.medium.name) != std::string::npos ||
                          part->find("/proc/") != std::string::npos;
    if (has_path) part->clear();
  }
  const bool is_clip = input.medium.kind == data::MediaKind::kVideo;
  if (parts.what.empty()) parts.what = is_clip ? "an unreadable clip" : "an unreadable picture";
  return ApiError({.code = is_clip ? "invalid_video" : "invalid_image", .param = input.param},
                  std::move(parts));
}

}  // namespace

PromptMaker::PromptMaker(const Processor& processor, ApiLimits limits,
                         std::vector<std::int64_t> media_ids)
    : processor_(processor),
      limits_(std::move(limits)),
      media_ids_(std::move(media_ids)),
      specials_(processor.tokenizer()) {}

ProcessedMedium PromptMaker::process_clip(const MediaInput& input, PreparedPrompt& prepared) const {
  const data::MediaRef& clip = input.medium;
  std::optional<MemoryFile> file;
  if (clip.bytes) file.emplace(*clip.bytes);
  data::VideoSampling sampling;
  sampling.start_s = input.part.start_s;
  sampling.end_s = input.part.end_s;
  sampling.times_s = input.part.times_s;
  if (!sampling.times_s.empty()) sampling.strategy = "times";
  const std::int64_t most = processor_.frame_sampling().max_frames;
  if (most > limits_.max_frames) sampling.max_frames = limits_.max_frames;
  data::ClipReader reader(file ? file->path() : clip.name, sampling, processor_.frame_sampling(),
                          {.max_seconds = kMostClipSeconds, .threads = 1});
  ClipShape shape{.chosen_frames = reader.frame_count(), .duration_s = reader.duration_s()};
  std::vector<Pixels> parts;
  reader.for_each_group(processor_.frames_at_once(), shape.times_s,
                        [&](const std::vector<Image>& frames) {
                          shape.height = frames[0].height;
                          shape.width = frames[0].width;
                          parts.push_back(processor_.process_frames(frames, shape.chosen_frames));
                          return true;
                        });
  if (shape.times_s.empty()) throw Error({.what = "no frame could be read"});
  ++prepared.clips;
  prepared.frames += std::ssize(shape.times_s);
  return {.pixels = join_pixels(parts), .text = processor_.video_text(shape)};
}

ProcessedMedium PromptMaker::process(const MediaInput& input, PreparedPrompt& prepared) const {
  const data::MediaRef& medium = input.medium;
  try {
    if (medium.kind == data::MediaKind::kVideo) return process_clip(input, prepared);
    const data::MediaLimits limits{.max_pixels = limits_.max_pixels};
    const Image picture = medium.bytes ? data::decode_image(*medium.bytes, input.param, limits)
                                       : data::load_image(medium.name, limits);
    ++prepared.pictures;
    return processor_.process_picture(picture, medium.is_whole);
  } catch (const Error& error) {
    throw media_error(error, input);
  }
}

std::vector<Message> PromptMaker::plain(const std::vector<Message>& messages) const {
  std::vector<Message> marked = messages;
  for (Message& message : marked) {
    for (ContentPart& part : message.content) part.text = specials_.as_plain(part.text);
  }
  return marked;
}

// Behind the prompt stands what the answer is so far, as the template writes an answer.
void PromptMaker::continue_answer(const Message& answer, PreparedPrompt& prepared) const {
  EncodedConversation& prompt = prepared.prompt;
  std::string text;
  for (const ContentPart& part : answer.content) text += part.text;
  if (text.empty()) return;
  std::vector<std::int64_t> ids = encode_choices(processor_, {text}).front();
  if (!ids.empty()) ids.pop_back();  // the end of the turn
  prompt.ids.insert(prompt.ids.end(), ids.begin(), ids.end());
  prepared.begun_tokens = std::ssize(ids);
  PromptLayout& layout = prompt.layout;
  if (!layout.positions.defined()) return;
  const std::int64_t end = layout.next_position + std::ssize(ids);
  const at::Tensor more = at::arange(layout.next_position, end, layout.positions.options());
  layout.positions =
      at::cat({layout.positions, more.unsqueeze(0).expand({3, std::ssize(ids)})}, 1);  // [3, T]
  layout.next_position = end;
}

void PromptMaker::check_length(const EncodedConversation& prompt) const {
  const std::int64_t most = processor_.max_positions();
  if (std::ssize(prompt.ids) < most) return;
  ApiError error({.code = "context_length_exceeded", .param = "messages"},
                 {.what = "the prompt is too long",
                  .got = concat(prompt.ids.size(), " tokens"),
                  .wanted = concat("fewer than ", most, ", the model's context"),
                  .hint = "\"detail\": \"low\" makes pictures short"});
  error.context = {.prompt_tokens = std::ssize(prompt.ids), .context = most};
  throw error;
}

PreparedPrompt PromptMaker::prepare(const ChatRequest& request,
                                    const std::function<bool()>& is_unwanted) const {
  const c10::InferenceMode inference;
  const auto start = std::chrono::steady_clock::now();
  PreparedPrompt prepared;
  if (!request.media.empty() && !processor_.takes_media()) {
    throw ApiError({.code = "unsupported_parameter", .param = request.media[0].param},
                   {.what = "this model reads text alone"});
  }
  std::vector<ProcessedMedium> media;
  for (const MediaInput& input : request.media) {
    if (is_unwanted && is_unwanted()) return {};
    media.push_back(process(input, prepared));
  }
  std::vector<Message> messages = plain(request.messages);
  std::optional<Message> answer;
  if (request.continues_answer) {
    answer = std::move(messages.back());
    for (const ContentPart& part : request.messages.back().content) prepared.begun += part.text;
    messages.pop_back();
  }
  try {
    prepared.prompt = processor_.encode_prompt(messages, join_media(media));
    if (answer) continue_answer(*answer, prepared);
  } catch (const Error& error) {  // the template refuses the order of the roles, say
    throw ApiError({.param = "messages"}, error.parts());
  }
  check_length(prepared.prompt);
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
  prepared.seconds = passed.count();
  return prepared;
}

void PromptMaker::force_begin(PreparedPrompt& prepared, GenerationOptions& options) const {
  if (prepared.begun.empty()) return;
  EncodedConversation& prompt = prepared.prompt;
  std::vector<std::string> tokens;
  for (auto id = prompt.ids.end() - prepared.begun_tokens; id != prompt.ids.end(); ++id) {
    tokens.push_back(processor_.tokenizer().token_bytes(*id));
  }
  try {
    ForcedBegin begin = find_forced_begin(*options.grammar, prepared.begun, tokens);
    const std::int64_t dropped = std::ssize(tokens) - static_cast<std::int64_t>(begin.kept_tokens);
    prompt.ids.resize(prompt.ids.size() - static_cast<std::size_t>(dropped));
    PromptLayout& layout = prompt.layout;
    if (layout.positions.defined()) {
      layout.positions = layout.positions.narrow(1, 0, std::ssize(prompt.ids));
      layout.next_position -= dropped;
    }
    options.grammar_begin = std::move(begin.kept);
    options.forced_begin = std::move(begin.rest);
  } catch (const Error& error) {
    throw ApiError({.param = "messages"}, error.parts());
  }
}

PreparedPrompt PromptMaker::prepare(const CompletionRequest& request) const {
  PreparedPrompt prepared;
  prepared.prompt.ids = processor_.tokenizer().encode(request.prompt, true);
  const bool has_media =
      std::any_of(prepared.prompt.ids.begin(), prepared.prompt.ids.end(), [this](std::int64_t id) {
        return std::find(media_ids_.begin(), media_ids_.end(), id) != media_ids_.end();
      });
  if (has_media || prepared.prompt.ids.empty()) {
    throw bad_value("prompt", std::string(has_media ? "the token of a picture" : "no token"),
                    "text; pictures go with chat completions");
  }
  check_length(prepared.prompt);
  return prepared;
}

}  // namespace vlm::infer
