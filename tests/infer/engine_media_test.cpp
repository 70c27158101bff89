// Videos in an engine: read between the tokens of others, segment by segment, cancelled, missing;
// and bounds of time and bytes.
#include <chrono>
#include <filesystem>
#include <future>
#include <thread>

#include "infer/engine/engine.h"
#include "infer/search/choices.h"
#include "tests/infer/engine_callers.h"
#include "tests/support/failing_processor.h"
#include "tests/support/watched_model.h"
#include "vlm/models/registry.h"

namespace vlm::infer {
namespace {

std::string clip_file(const std::string& name) {
  return (std::filesystem::path(VLM_SOURCE_DIR) / "examples/clips" / name).string();
}

// A request about a clip.
struct ClipRequest {
  const Processor& processor;
  std::shared_ptr<ShownMedia> media;
  std::vector<Message> messages = make_conversation(
      "What moves?", std::vector<MediaRef>{{.kind = MediaKind::kVideo, .name = "clip"}}, "");

  ClipRequest(const Processor& with, PictureEncoder& encoder, const std::string& path,
              const VideoStreamOptions& options)
      : processor(with), media(std::make_shared<ShownMedia>(with, encoder)) {
    media->add(VideoRequest{path, options});
  }
  void set_prompt(ShownMedia& shown, Request& request) const {
    EncodedConversation prompt = processor.encode_prompt(messages, shown.processed());
    request.prompt = std::move(prompt.ids);
    request.layout = std::move(prompt.layout);
  }
  EngineRequest ask(Request request) const {
    EngineRequest asked{.media = media, .show = [*this](ShownMedia& shown, Request& one) {
                          set_prompt(shown, one);
                        }};
    asked.requests.push_back(std::move(request));
    return asked;
  }
};

TEST_CASE("a clip is read while others are answered, and answered as by the generator") {
  Session session = open_fixture(kTinyModel);
  Generator& generator = *session.generator;
  GenerationOptions options = session.generation;
  options.max_new_tokens = 8;
  const VideoStreamOptions video{.sampling = {.fps = 3}};
  RequestAnswer wanted;
  {
    const ClipRequest clip(generator.processor(), generator.encoder(), clip_file("up.mp4"), video);
    const bool is_read = generator.read(*clip.media);
    REQUIRE(is_read);
    Request request{.options = options};
    clip.set_prompt(*clip.media, request);
    RequestGroup group{.pictures = clip.media->features()};
    group.requests.push_back(std::move(request));
    wanted = generator.answer(std::move(group));
  }
  Engine engine(generator);
  const auto prompts = golden_prompts(session, "smolvlm_tiny");
  std::vector<std::future<RequestAnswer>> clips, others;
  for (int i = 0; i < 3; ++i) {
    const ClipRequest clip(engine.processor(), engine.encoder(), clip_file("up.mp4"), video);
    clips.push_back(engine.submit(clip.ask({.options = options})));
    others.push_back(engine.submit(EngineRequest::of(prompts[1], {.options = options})));
  }
  for (auto& one : clips) check_same(one.get().generations.at(0), wanted.generations.at(0));
  for (auto& one : others) CHECK(one.get().outcome == Outcome::kAnswered);
}

TEST_CASE("of a clip that is shown by segments each is told, and the request ends once") {
  Session session = open_fixture(kTinyModel);
  Engine engine(*session.generator);
  const ClipRequest clip(engine.processor(), engine.encoder(), clip_file("up.mp4"),
                         {.sampling = {.fps = 4}, .segment_s = 1});
  Request request{.options = session.generation};
  request.choices = encode_choices(engine.processor(), {"yes", "no"});
  std::vector<double> begins;
  Collected caller;
  EngineEvents events = caller.events();
  events.on_segment = [&](const TimeSegment& segment, RequestAnswer& answer) {
    begins.push_back(segment.start_s);
    CHECK(answer.choices.size() == 2);
  };
  engine.submit(clip.ask(std::move(request)), std::move(events));
  CHECK(caller.wait().outcome == Outcome::kAnswered);
  CHECK(begins == std::vector<double>{0, 1, 2});
  CHECK(caller.ends == 1);
}

TEST_CASE("a clip that can't be read, or asked about, is its own request's end") {
  Session session = open_fixture(kTinyModel);
  Engine engine(*session.generator);
  const ClipRequest missing(engine.processor(), engine.encoder(), "none.mp4", {});
  const RequestAnswer refused = engine.submit(missing.ask({})).get();
  CHECK(refused.outcome == Outcome::kRefused);
  CHECK_THAT(refused.error, Contains("none.mp4: "));
  ClipRequest wrong(engine.processor(), engine.encoder(), clip_file("up.mp4"), {});
  wrong.messages = make_conversation("no clip", {}, "");
  CHECK(engine.submit(wrong.ask({})).get().outcome == Outcome::kRefused);
  GenerationOptions options = session.generation;
  options.max_new_tokens = 3;
  CHECK(
      engine.submit(EngineRequest::of({.ids = {1, 278, 28}}, {.options = options})).get().outcome ==
      Outcome::kAnswered);
  CHECK(engine.stats().refused == 2);
}

TEST_CASE("a request is cancelled while its clip is decoded") {
  Session session = open_fixture(kTinyModel);
  Gate gate;
  const auto processor = std::make_shared<FailingProcessor>(
      load_processor(fixture(kTinyModel)), ProcessorHooks{.on_frames = [&] { gate.pass(); }});
  Generator generator(session.model, processor);
  GenerationOptions options = session.generation;
  options.max_new_tokens = 5;
  Engine engine(generator);
  gate.close();
  Collected caller;
  {
    const ClipRequest clip(engine.processor(), engine.encoder(), clip_file("up.mp4"), {});
    const auto number = engine.submit(clip.ask({.options = options}), caller.events());
    gate.wait_until_reached();
    // Others don't wait for its frames.
    const EncodedConversation prompt{.ids = {1, 278, 28, 223}};
    CHECK(engine.submit(EngineRequest::of(prompt, {.options = options})).get().outcome ==
          Outcome::kAnswered);
    engine.cancel(number);
    CHECK(caller.wait().outcome == Outcome::kCancelled);
    CHECK(engine.stats().running + engine.stats().waiting == 0);
    gate.open();  // a stream that goes away waits for the frame that is being decoded
  }
  CHECK(caller.ends == 1);
}

TEST_CASE("a request that waits too long ends, and one that takes too long") {
  Session session = open_fixture(kTinyModel);
  Gate gate;
  Generator generator(watch_passes(session, gate), borrow_processor(session));
  GenerationOptions options = session.generation;
  options.max_new_tokens = 20;
  options.eos_token_ids = {};
  const EncodedConversation prompt{.ids = {1, 278, 28, 223}};
  Engine engine(generator, {.max_running = 1, .queue_timeout_s = 0.05});
  gate.close();
  auto first = engine.submit(EngineRequest::of(prompt, {.options = options}));
  gate.wait_until_reached();
  auto second = engine.submit(EngineRequest::of(prompt, {.options = options}));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  gate.open();
  const RequestAnswer late = second.get();
  CHECK(late.outcome == Outcome::kTimedOut);
  CHECK(late.error == "the request waited too long: wanted at most 0.05 s");
  CHECK(first.get().outcome == Outcome::kAnswered);
  const RequestAnswer slow =
      engine.submit(EngineRequest::of(prompt, {.options = options, .time_limit_s = 1e-9})).get();
  CHECK(slow.outcome == Outcome::kTimedOut);
  CHECK_THAT(slow.error, Contains("the answer took too long"));
  CHECK(engine.stats().timed_out == 2);
}

TEST_CASE("pictures of requests that wait are bounded by their bytes") {
  Session session = open_fixture(kTinyModel);
  Gate gate;
  Generator generator(watch_passes(session, gate), borrow_processor(session));
  const auto prompts = golden_prompts(session, "smolvlm_tiny");
  const auto found = std::ranges::find_if(
      prompts, [](const EncodedConversation& one) { return !one.pixels.empty(); });
  GenerationOptions options = session.generation;
  options.max_new_tokens = 3;
  const std::int64_t bytes = found->pixels.bytes();
  Engine engine(generator, {.max_running = 1, .media_bytes = bytes * 5 / 2});
  gate.close();
  std::vector<std::future<RequestAnswer>> taken;
  for (int i = 0; i < 2; ++i) {
    taken.push_back(engine.submit(EngineRequest::of(*found, {.options = options})));
  }
  CHECK(engine.stats().media_bytes == 2 * bytes);
  CHECK_THROWS_AS(engine.submit(EngineRequest::of(*found, {.options = options})), EngineFull);
  CHECK_THROWS_WITH(engine.submit(EngineRequest::of(*found, {.options = options})),
                    Contains("the pictures of the requests that wait take too much memory"));
  // Text alone has room.
  taken.push_back(
      engine.submit(EngineRequest::of({.ids = {1, 278, 28, 223}}, {.options = options})));
  gate.open();
  for (auto& one : taken) CHECK(one.get().outcome == Outcome::kAnswered);
  CHECK(engine.stats().media_bytes == 0);
}

}  // namespace
}  // namespace vlm::infer
