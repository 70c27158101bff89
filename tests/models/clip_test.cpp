// Clips: pixel values, prompts and ids against transformers (tests/fixtures/video), media mixed in
// one prompt, and what a config or a conversation can do wrong.
#include <nlohmann/json.hpp>

#include "tests/support/messages.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/image/video_processor.h"
#include "vlm/models/smolvlm/smolvlm_processor.h"
#include "vlm/models/smolvlm/smolvlm_video_prompt.h"

namespace vlm {
namespace {

const SmolVlmProcessor& processor() {
  static const SmolVlmProcessor loaded(fixture("smolvlm_tiny"));
  return loaded;
}

std::vector<Image> to_images(const at::Tensor& frames) {  // uint8 [F, H, W, 3]
  std::vector<Image> images;
  for (std::int64_t i = 0; i < frames.size(0); ++i) {
    const at::Tensor frame = frames[i].contiguous();
    const auto* begin = frame.data_ptr<std::uint8_t>();
    images.push_back({frame.size(0), frame.size(1), {begin, begin + frame.numel()}});
  }
  return images;
}

// A clip as the script gives it to transformers: sampled, and of a colour.
VideoClip grey_clip(std::int64_t frames, double fps) {
  const double duration = static_cast<double>(frames) / fps;
  const SampledFrames sampled = sample_frames({frames, fps, duration}, {});
  VideoClip clip{.times_s = sampled.times_s, .duration_s = duration};
  clip.frames.assign(sampled.times_s.size(), {4, 4, std::vector<std::uint8_t>(48, 99)});
  return clip;
}

Message ask(std::vector<ContentPart> content) {
  return {.role = "user", .content = std::move(content)};
}

TEST_CASE("frames' pixel values equal transformers', bit for bit") {
  const Golden golden("video/processor.safetensors");
  const Json cases = load_json(fixture("video/processor.json"))["cases"];
  REQUIRE(cases.size() == 13);
  for (const Json& one : cases) {
    INFO(one.dump());
    const VideoProcessor video(VideoProcessorConfig::parse(one["settings"], "settings"));
    const auto frames = to_images(golden[one["frames"]]);
    const at::Tensor expected = golden[one["name"]];
    const at::Tensor values = video.process(frames);
    REQUIRE(values.sizes() == expected.sizes());
    CHECK(values.equal(expected.to(at::kFloat)));
    // A clip in pieces is the clip.
    CHECK(at::cat({video.process({frames[0]}), video.process({frames[1]})}).equal(values));
  }
}

TEST_CASE("prompts of clips equal transformers', character for character") {
  const Json golden = load_json(fixture("video/prompts.json"));
  for (const Json& one : golden["conversations"]) {
    INFO(one["name"]);
    std::vector<Medium> clips;
    for (const Json& clip : one["clips"]) clips.emplace_back(grey_clip(clip[0], clip[1]));
    const ProcessedMedia media = processor().process_media(clips);
    const auto messages = parse_messages(one["messages"]);
    const bool generates = one["add_generation_prompt"];
    CHECK(processor().expand_prompt(messages, media, generates) ==
          one["expanded"].get<std::string>());
    if (one["input_ids"].is_null()) continue;
    const auto encoded = generates ? processor().encode_prompt(messages, media)
                                   : processor().encode_conversation(messages, media);
    CHECK(encoded.ids == one["input_ids"].get<std::vector<std::int64_t>>());
  }
  for (const auto& [number, words] : golden["number_words"].items()) {
    CHECK(number_words(std::stoll(number)) == words.get<std::string>());
  }
}

TEST_CASE("a clip of unknown duration ends at its last frame") {
  CHECK(video_prompt({0, 61.9}, -1, "<f>") ==
        "You are provided the following series of two frames from a 0:01:01 [H:MM:SS] video.\n\n"
        "Frame from 00:00:<f>\nFrame from 01:01:<f>\n\n");
  CHECK(video_prompt({6000}, 7200.5, "") ==
        "You are provided the following series of one frames from a 2:00:00 [H:MM:SS] video.\n\n"
        "Frame from 100:00:\n\n");
}

TEST_CASE("pictures and clips mix in one prompt, each with the text it has alone") {
  const Image picture{32, 32, std::vector<std::uint8_t>(32 * 32 * 3, 40)};
  const VideoClip clip = grey_clip(30, 10);
  const ProcessedMedia media = processor().process_media({picture, clip, picture});
  REQUIRE(media.pixels.units() == 5 + 3 + 5);
  const at::Tensor tiles = processor().process_picture(picture).pixels.values;
  const at::Tensor frames = processor().process_video(clip).pixels.values;
  CHECK(media.pixels.values.equal(at::cat({tiles, frames, tiles})));

  const std::string image = processor().process_picture(picture).text.text;
  const std::string video = processor().process_video(clip).text.text;
  const Message message = ask({{.type = "image"},
                               {.type = "text", .text = "then"},
                               {.type = "video"},
                               {.type = "image"},
                               {.type = "text", .text = "?"}});
  CHECK(processor().expand_prompt({message}, media, true) ==
        "<|im_start|>User:" + image + "then" + video + image + "?<end_of_utterance>\nAssistant:");
  // A message that begins with a clip has a space behind the colon.
  CHECK(processor().expand_prompt({ask({{.type = "video"}})}, processor().process_media({clip}),
                                  false) == "<|im_start|>User: " + video + "<end_of_utterance>\n");
}

TEST_CASE("the word <video> is text where there is no clip") {
  const Message message = ask({{.type = "text", .text = "What does <video> do?"}});
  CHECK(processor().expand_prompt({message}, {}, true) ==
        "<|im_start|>User: What does <video> do?<end_of_utterance>\nAssistant:");
}

TEST_CASE("media and their places must be as many, and in the same order") {
  const Image picture{8, 8, std::vector<std::uint8_t>(192, 40)};
  const ProcessedMedia both = processor().process_media({picture, grey_clip(20, 10)});
  CHECK_THROWS_WITH(processor().encode_prompt({ask({{.type = "video"}, {.type = "image"}})}, both),
                    "media are in another order than the parts of the conversation: got a picture "
                    "as medium 1, wanted a video");
  CHECK_THROWS_WITH(processor().encode_prompt({ask({{.type = "image"}})}, both),
                    "image and video places in the conversation don't fit the media: got 1 places, "
                    "wanted 2 for the pictures and videos given");
  CHECK_THROWS_WITH(processor().encode_prompt({ask({{.type = "video"}, {.type = "video"}})},
                                              processor().process_media({grey_clip(20, 10)})),
                    Contains("got 2 places, wanted 1"));
}

TEST_CASE("a clip's frames are each changed where they have the fewest pixels") {
  VideoProcessorConfig config;
  config.size_longest_edge = 24;
  config.max_image_size_longest_edge = 16;
  const VideoProcessor processor(config);
  std::vector<std::int64_t> widths;
  const auto invert = [&](Image frame) {
    widths.push_back(frame.width);
    for (std::uint8_t& value : frame.pixels) value = static_cast<std::uint8_t>(255 - value);
    return frame;
  };
  const Image large{32, 48, std::vector<std::uint8_t>(32 * 48 * 3, 40)};
  const Image small{8, 12, std::vector<std::uint8_t>(8 * 12 * 3, 90)};
  const at::Tensor changed = processor.process({large, small}, invert);
  CHECK(widths == std::vector<std::int64_t>{24, 12});
  const Image large_after{32, 48, std::vector<std::uint8_t>(32 * 48 * 3, 215)};
  const Image small_after{8, 12, std::vector<std::uint8_t>(8 * 12 * 3, 165)};
  CHECK(changed.equal(processor.process({large_after, small_after})));
}

VideoProcessorConfig load(const ScratchFolder& folder) {
  return VideoProcessorConfig::load(folder.path());
}

TEST_CASE("the video processor's settings come from the file that transformers takes") {
  const ScratchFolder folder;
  CHECK_THROWS_WITH(load(folder), Contains("no video processor config"));
  folder.write("processor_config.json", R"({"image_processor": {"fps": 5}})");
  CHECK(load(folder).sampling.fps == 5);
  folder.write("preprocessor_config.json",
               R"({"image_processor_type": "SmolVLMImageProcessor", "resample": 1,
                   "size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512},
                   "video_sampling": {"fps": 1, "max_frames": 64,
                                      "video_size": {"longest_edge": 512}}})");
  const VideoProcessorConfig published = load(folder);
  CHECK(published.size_longest_edge == 2048);  // size wins over video_size
  CHECK(published.max_image_size_longest_edge == 512);
  CHECK(published.sampling.max_frames == 64);
  folder.write("video_preprocessor_config.json",
               R"({"video_processor_type": "SmolVLMVideoProcessor", "fps": 2, "num_frames": 7,
                   "video_sampling": null})");
  CHECK(load(folder).sampling.max_frames == 7);
  folder.write("processor_config.json", R"({"video_processor": {"num_frames": 9, "fps": 0.5}})");
  CHECK(load(folder).sampling.max_frames == 9);
  CHECK(load(folder).sampling.fps == 0.5);
}

TEST_CASE("settings that can't work are refused by key") {
  const auto parse = [](const char* text) {
    return VideoProcessorConfig::parse(parse_json(text, "f"), "f");
  };
  CHECK_THROWS_WITH(parse(R"({"video_processor_type": "Qwen2VLVideoProcessor"})"),
                    "f: video_processor_type: unsupported video processor: got "
                    "'Qwen2VLVideoProcessor', wanted SmolVLMVideoProcessor");
  CHECK_THROWS_WITH(parse(R"({"video_sampling": {"fps": 0, "max_frames": 4}})"),
                    "f: fps: value out of range: got 0, wanted more than 0");
  CHECK_THROWS_WITH(parse(R"({"num_frames": 0})"),
                    "f: max_frames: value out of range: got 0, wanted at least 1");
  CHECK_THROWS_WITH(parse(R"({"video_sampling": {"video_size": {"longest_edge": 0}}})"),
                    Contains("f: video_sampling: video_size: unsupported size"));
  const std::vector<Image> frame = {{2, 2, std::vector<std::uint8_t>(12, 1)}};
  CHECK_THROWS_WITH(VideoProcessor(parse(R"({"resample": 4})")).process(frame),
                    "resample: filter can't be used for video: got 4, wanted 0 nearest, 1 Lanczos, "
                    "2 bilinear or 3 bicubic");
  CHECK_THROWS_WITH(VideoProcessor(parse(R"({"do_resize": false})")).process(frame),
                    Contains("frame doesn't have the model's size: got 2 × 2 pixels, wanted 364 × "
                             "364"));
}

}  // namespace
}  // namespace vlm
