// Messages and media → ids: the same as the processor's own, and nothing that a client writes is a
// special token.
#include "infer/server/models/prompt_maker.h"

#include <nlohmann/json.hpp>

#include "data/media/media.h"
#include "data/media/video_clip.h"
#include "infer/search/choices.h"
#include "infer/server/api/api_error.h"
#include "infer/server/api/chat_request.h"
#include "tests/server/refusals.h"
#include "tests/support/catch.h"
#include "tests/support/run_program.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/concat.h"
#include "vlm/models/registry.h"
#include "vlm/text/plain_mark.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

const fs::path kFixtures = fs::path(VLM_SOURCE_DIR) / "tests/fixtures";

struct Maker {
  explicit Maker(const std::string& model, const ApiLimits& limits = {},
                 std::vector<std::int64_t> media_ids = {})
      : processor(load_processor(kFixtures / model)),
        maker(*processor, limits, std::move(media_ids)) {}

  PreparedPrompt prepare(const Json& messages, const Json& fields = Json::object()) const {
    Json body = {{"messages", messages}};
    body.update(fields);
    return maker.prepare(read_chat_request(body, {}));
  }
  std::vector<std::int64_t> ids(const std::string& text) const {
    return prepare({{{"role", "user"}, {"content", text}}}).prompt.ids;
  }
  std::string text(const std::vector<std::int64_t>& ids) const {
    return processor->tokenizer().decode(ids, false);
  }

  std::unique_ptr<Processor> processor;
  PromptMaker maker;
};

std::string uri_of(const fs::path& file, const std::string& kind = "image") {
  return "data:" + kind + ";base64," + data::encode_base64(read_file(file));
}

Json picture_part(const fs::path& file, const char* detail = "auto") {
  return {{"type", "image_url"}, {"image_url", {{"url", uri_of(file)}, {"detail", detail}}}};
}

TEST_CASE("the prompt is the one that the processor makes of the same messages") {
  const Maker maker("smolvlm_tiny");
  const fs::path file = kFixtures / "pictures/square.png";
  const Image image = data::load_image(file);
  for (const bool is_whole : {false, true}) {
    const PreparedPrompt prepared = maker.prepare({{{"role", "system"}, {"content", "Be brief."}},
                                                   {{"role", "user"},
                                                    {"content",
                                                     {{{"type", "text"}, {"text", "Image 1:"}},
                                                      picture_part(file, is_whole ? "low" : "high"),
                                                      {{"type", "text"}, {"text", "What?"}}}}}});
    const EncodedConversation wanted = maker.processor->encode_prompt(
        {{.role = "system", .content = {{.type = "text", .text = "Be brief."}}},
         {.role = "user",
          .content = {{.type = "text", .text = "Image 1:"},
                      {.type = "image"},
                      {.type = "text", .text = "What?"}}}},
        join_media({maker.processor->process_picture(image, is_whole)}));
    CHECK(prepared.prompt.ids == wanted.ids);
    CHECK(prepared.prompt.pixels.digest() == wanted.pixels.digest());
    CHECK(prepared.pictures == 1);
  }
}

TEST_CASE("special tokens in what a client writes are text") {
  for (const char* model : {"smolvlm_tiny", "qwen2_tiny", "internvl_chat_tiny", "llama_tiny"}) {
    INFO(model);
    const Maker maker(model);
    const Tokenizer& tokenizer = maker.processor->tokenizer();
    const auto plain = maker.ids("ab");
    int special = 0;
    for (std::int64_t id = 0; id < tokenizer.vocab_size(); ++id) {
      const std::vector<std::int64_t> one = {id};
      const std::string text = tokenizer.decode(one, false);
      if (text.size() < 2 || !tokenizer.decode(one, true).empty()) continue;
      ++special;
      const auto ids = maker.ids("a" + text + "b");
      INFO(text);
      CHECK(std::count(ids.begin(), ids.end(), id) == std::count(plain.begin(), plain.end(), id));
      CHECK(ids.size() > plain.size());
      CHECK(maker.text(ids).find("a" + text + "b") != std::string::npos);
    }
    CHECK(special > 1);
  }
}

TEST_CASE("ordinary text, angle brackets in it, has the same ids as ever") {
  const Maker maker("smolvlm_tiny");
  for (const std::string text :
       {"1 < 2 and <b>bold</b>", "[x](y) <img src=a> <|nothing|>", "plain", " \n<", ""}) {
    const EncodedConversation wanted = maker.processor->encode_prompt(
        {{.role = "user", .content = {{.type = "text", .text = text}}}}, ProcessedMedia{});
    CHECK(maker.ids(text) == wanted.ids);
  }
  // The mark itself is no way around.
  const std::string sly = "<" + std::string(kPlainMark) + "image>";
  CHECK(maker.text(maker.ids(sly)).find("<\xEF\xBF\xBDimage>") != std::string::npos);
}

TEST_CASE("an answer that goes on stands behind the prompt, without its end") {
  const Maker maker("smolvlm_tiny");
  const Json question = {{"role", "user"}, {"content", "Colour?"}};
  const auto prompt = maker.prepare(Json::array({question})).prompt.ids;
  const auto going_on = maker
                            .prepare({question, {{"role", "assistant"}, {"content", "It is red"}}},
                                     {{"continue_final_message", true}})
                            .prompt.ids;
  auto answer = encode_choices(*maker.processor, {"It is red"}).front();
  answer.pop_back();
  auto wanted = prompt;
  wanted.insert(wanted.end(), answer.begin(), answer.end());
  CHECK(going_on == wanted);
  CHECK(maker.text(going_on).ends_with("It is red"));
}

TEST_CASE("positions of an answer that goes on follow the prompt's") {
  const Maker maker("qwen2_vl_tiny");
  const Json question = {
      {"role", "user"},
      {"content",
       {picture_part(kFixtures / "pictures/square.png"), {{"type", "text"}, {"text", "Colour?"}}}}};
  const auto prompt = maker.prepare(Json::array({question})).prompt;
  const auto going_on = maker
                            .prepare({question, {{"role", "assistant"}, {"content", "It is red"}}},
                                     {{"continue_final_message", true}})
                            .prompt;
  const std::int64_t more = std::ssize(going_on.ids) - std::ssize(prompt.ids);
  REQUIRE(more > 0);
  REQUIRE(going_on.layout.positions.size(1) == std::ssize(going_on.ids));
  CHECK(going_on.layout.next_position == prompt.layout.next_position + more);
  CHECK(going_on.layout.positions.narrow(1, 0, prompt.layout.positions.size(1))
            .equal(prompt.layout.positions));
  CHECK(going_on.layout.positions[2][-1].item<std::int64_t>() == going_on.layout.next_position - 1);
}

TEST_CASE("media that can't be read name their part, and no file of the server") {
  const Maker maker("smolvlm_tiny");
  const auto ask = [&](const Json& part) {
    return refusal_of([&] { maker.prepare({{{"role", "user"}, {"content", {part}}}}); });
  };
  const std::string whole = read_file(kFixtures / "pictures/square.png");
  const auto picture = [&](const std::string& bytes) {
    return ask({{"type", "image_url"},
                {"image_url", {{"url", "data:;base64," + data::encode_base64(bytes)}}}});
  };
  const std::string place = "400 invalid_image messages[0].content[0].image_url.url: ";
  CHECK(picture(whole) == "accepted");
  for (const std::string& bytes :
       {whole.substr(0, whole.size() / 2), std::string("no picture"), whole.substr(0, 20)}) {
    const std::string refused = picture(bytes);
    INFO(refused);
    CHECK(refused.starts_with(place));
    CHECK(refused.find("messages[0]", place.size()) == std::string::npos);
  }
  const std::string clip =
      ask({{"type", "video_url"}, {"video_url", "data:video/mp4;base64,AAAAAAAA"}});
  CHECK(clip.starts_with("400 invalid_video messages[0].content[0].video_url: "));
  CHECK(clip.find("/proc") == std::string::npos);
}

TEST_CASE("pictures of too many pixels are refused by their header") {
  ApiLimits limits;
  limits.max_pixels = 10;
  const Maker maker("smolvlm_tiny", limits);
  const std::string refused = refusal_of([&] {
    maker.prepare(
        {{{"role", "user"}, {"content", {picture_part(kFixtures / "pictures/square.png")}}}});
  });
  CHECK(refused.starts_with("400 invalid_image messages[0].content[0].image_url.url: "));
  CHECK(refused.find("picture has too many pixels: got ") != std::string::npos);
}

// Four seconds of 5 frames each.
fs::path make_clip(const ScratchFolder& scratch) {
  REQUIRE(run_shell("ffmpeg -loglevel error -f lavfi -i testsrc=duration=4:size=64x48:rate=5 "
                    "-pix_fmt yuv420p clip.mp4",
                    scratch.path())
              .code == 0);
  return scratch.path() / "clip.mp4";
}

TEST_CASE("clips come as data, and are shown as from their file") {
  const Maker maker("smolvlm_tiny");
  const ScratchFolder scratch;
  const fs::path file = make_clip(scratch);
  const PreparedPrompt prepared = maker.prepare(
      {{{"role", "user"},
        {"content",
         {{{"type", "video_url"}, {"video_url", {{"url", uri_of(file, "video/mp4")}}}},
          {{"type", "text"}, {"text", "What?"}}}}}});
  const data::Clip clip =
      data::load_clip(file, data::VideoSampling{}, maker.processor->frame_sampling());
  const EncodedConversation wanted = maker.processor->encode_prompt(
      {{.role = "user", .content = {{.type = "video"}, {.type = "text", .text = "What?"}}}},
      join_media({maker.processor->process_video(clip)}));
  CHECK(prepared.prompt.ids == wanted.ids);
  CHECK(prepared.prompt.pixels.digest() == wanted.pixels.digest());
  CHECK(prepared.clips == 1);
  CHECK(prepared.frames == std::ssize(clip.frames));
}

TEST_CASE("a part of a clip, or moments of it") {
  const Maker maker("smolvlm_tiny");
  const ScratchFolder scratch;
  const fs::path file = make_clip(scratch);
  const auto body = [&](Json part) -> Json {
    part["url"] = uri_of(file, "video/mp4");
    return {{{"role", "user"},
             {"content",
              {{{"type", "video_url"}, {"video_url", part}}, {{"type", "text"}, {"text", "?"}}}}}};
  };
  const auto shows = [&](const Json& part, const data::VideoSampling& sampling) {
    const data::Clip clip = data::load_clip(file, sampling, maker.processor->frame_sampling());
    const EncodedConversation wanted = maker.processor->encode_prompt(
        {{.role = "user", .content = {{.type = "video"}, {.type = "text", .text = "?"}}}},
        join_media({maker.processor->process_video(clip)}));
    const PreparedPrompt prepared = maker.prepare(body(part));
    CHECK(prepared.prompt.ids == wanted.ids);
    CHECK(prepared.prompt.pixels.digest() == wanted.pixels.digest());
    CHECK(prepared.frames == std::ssize(clip.frames));
  };
  data::VideoSampling window;
  window.start_s = 1;
  window.end_s = 2.5;
  shows({{"start", 1}, {"end", 2.5}}, window);
  data::VideoSampling moments;
  moments.strategy = "times";
  moments.times_s = {0.5, 3};
  shows({{"times", {0.5, 3}}}, moments);
  const std::string late = refusal_of([&] { maker.prepare(body({{"start", 9}})); });
  CHECK(late.starts_with("400 invalid_video messages[0].content[0].video_url.url: "));
}

TEST_CASE("prompts longer than the context are refused with both numbers") {
  const Maker maker("smolvlm_tiny");
  const std::int64_t most = maker.processor->max_positions();
  std::string text;
  for (std::int64_t i = 0; i < most; ++i) text += "word ";
  try {
    maker.ids(text);
    FAIL("accepted");
  } catch (const ApiError& error) {
    CHECK(error.status() == 400);
    CHECK(error.code() == "context_length_exceeded");
    REQUIRE(error.context);
    CHECK(error.context->context == most);
    CHECK(error.context->prompt_tokens >= most);
  }
}

TEST_CASE("models of text alone see no pictures") {
  const Maker maker("llama_tiny");
  CHECK(refusal_of([&] {
          maker.prepare(
              {{{"role", "user"}, {"content", {picture_part(kFixtures / "pictures/square.png")}}}});
        }) ==
        "400 unsupported_parameter messages[0].content[0].image_url.url: this model reads text "
        "alone");
}

TEST_CASE("a plain completion is the text as it is, without tokens of pictures") {
  const Maker probe("smolvlm_tiny");
  const auto image_id = probe.processor->tokenizer().token_to_id("<image>");
  REQUIRE(image_id);
  const Maker maker("smolvlm_tiny", {}, {*image_id});
  const auto complete = [&](const std::string& prompt) {
    return maker.maker.prepare(CompletionRequest{.prompt = prompt}).prompt.ids;
  };
  CHECK(complete("<|im_start|>User: hi") ==
        maker.processor->tokenizer().encode("<|im_start|>User: hi", true));
  CHECK(
      refusal_of([&] { complete("a <image> b"); }) ==
      "400 invalid_value prompt: unusable value: got the token of a picture, wanted text; pictures "
      "go with chat completions");
}

}  // namespace
}  // namespace vlm::infer
