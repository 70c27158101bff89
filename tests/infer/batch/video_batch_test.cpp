// Videos through the batch runner: their rows, their errors, segments and going on.
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "infer/batch/batch_runner.h"
#include "infer/media/shown_media.h"
#include "infer/search/choices.h"
#include "infer/session.h"
#include "tests/infer/sessions.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "vlm/core/json.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

const fs::path kClips = fs::path(VLM_SOURCE_DIR) / "examples/clips";

// A run over rows of a JSONL file, whose media lie in the folder.
struct ClipRun {
  ScratchFolder folder;
  std::vector<Question> questions;
  BatchOptions options;
  AnswerReportOptions report;

  std::vector<OrderedJson> answer(Session& session, const std::string& rows) {
    const std::string file = folder.write("rows.jsonl", rows);
    std::istringstream none;
    auto source = open_entries({file}, none);
    CHECK(source->shows_videos());
    const ItemList list(std::move(source), {.questions = questions,
                                            .reserved = reserved_columns(),
                                            .media_columns = video_column_names(false)});
    const RowFormat format(OutputFormat::kJsonl, list.columns(), report);
    const fs::path output = folder.path() / "out.jsonl";
    RowLog log({.output = output,
                .header = {.items = list.items(), .shard_items = list.items()},
                .restart = true});
    options.generation = session.generation;
    options.generation.max_new_tokens = 3;
    options.choices = encode_choices(session.generator->processor(), report.choices.texts);
    CHECK(run_batch(*session.generator, list, format, log, options));
    return read_rows(output);
  }
};

TEST_CASE("rows of pictures and videos, mixed and alone, tell what was seen") {
  ClipRun run;
  for (const char* name : {"left.mp4", "up.mp4"}) {
    fs::copy_file(kClips / name, run.folder.path() / name);
  }
  fs::copy_file(fixture("pictures/square.png"), run.folder.path() / "square.png");
  run.folder.write("broken.mp4", "no video");
  Session session = open_fixture(kTinyModel);
  const auto rows = run.answer(
      session,
      R"({"id": "v", "video": "left.mp4", "question": "What?", "frames": "mine"})"
      "\n"
      R"({"id": "w", "video": "left.mp4", "question": "Why?"})"
      "\n"
      R"({"id": "two", "image": "square.png", "videos": ["left.mp4", {"path": "up.mp4"}], "question": "Who?"})"
      "\n"
      R"({"id": "bad", "video": "broken.mp4", "question": "What?"})"
      "\n"
      R"({"id": "p", "image": "square.png", "question": "What?"})"
      "\n"
      R"({"id": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, )"
      R"({"type": "video", "path": "up.mp4"}, {"type": "text", "text": "b"}]}]})"
      "\n");
  REQUIRE(rows.size() == 6);
  CHECK(rows[0]["duration_s"] == 3);
  CHECK(rows[0]["frames"].dump() == "[0.0,1.4,2.9]");
  CHECK(rows[0]["input_frames"] == "mine");
  CHECK(rows[0].contains("text"));
  CHECK(rows[1]["frames"] == rows[0]["frames"]);
  CHECK(rows[2]["duration_s"].dump() == "[3.0,3.0]");
  CHECK(rows[2]["frames"].dump() == "[[0.0,1.4,2.9],[0.0,1.4,2.9]]");
  CHECK_THAT(rows[3]["error"].get<std::string>(), Contains("broken.mp4"));
  CHECK_FALSE(rows[3].contains("frames"));
  CHECK_FALSE(rows[4].contains("frames"));
  CHECK(rows[4].contains("text"));
  CHECK(rows[5].contains("text"));
  CHECK(session.generator->encoder().decoded_videos() == 4);  // v and w share one

  // What a row says is what the question by itself gives.
  ShownMedia media(session.generator->processor(), session.generator->encoder());
  media.add(VideoRequest{(kClips / "left.mp4").string(), {}});
  REQUIRE(session.generator->read(media));
  Request request{.options = run.options.generation};
  request.prompt = session.generator->processor()
                       .encode_prompt(make_conversation("Why?", {{.kind = MediaKind::kVideo}}, ""),
                                      media.processed())
                       .ids;
  RequestGroup group{.pictures = media.features()};
  group.requests.push_back(request);
  CHECK(rows[1]["text"] == session.generator->answer(std::move(group)).generations[0].text);
}

// The answer's score when only that part of the clip is shown.
double score_part(Session& session, const std::string& path, const TimeSegment& part,
                  const std::string& question, const std::vector<std::vector<std::int64_t>>& ids) {
  const Processor& processor = session.generator->processor();
  ShownMedia media(processor, session.generator->encoder());
  media.add(VideoRequest{path, {{.fps = 5, .start_s = part.start_s, .end_s = part.end_s}}});
  REQUIRE(session.generator->read(media));
  Request request{.options = session.generation, .choices = ids};
  request.prompt =
      processor
          .encode_prompt(make_conversation(question, {{.kind = MediaKind::kVideo}}, ""),
                         media.processed())
          .ids;
  RequestGroup group{.pictures = media.features()};
  group.requests.push_back(std::move(request));
  return session.generator->answer(std::move(group)).choices.at(0).logprob;
}

TEST_CASE("segments are scored as each of them by itself, and ranked") {
  ClipRun run;
  fs::copy_file(kClips / "left.mp4", run.folder.path() / "left.mp4");
  run.folder.write("broken.mp4", "no video");
  run.questions = {{"1", "Is it there?"}, {"2", "Is it gone?"}};
  run.options.video = {{.fps = 5}, 0.6};
  run.options.batch_size = 3;
  run.report = {.choices = {.texts = {"yes", "no"}}, .by_segment = true};
  Session session = open_fixture(kTinyModel);
  const auto rows = run.answer(session, R"({"id": "c", "video": "left.mp4"})"
                                        "\n"
                                        R"({"id": "bad", "video": "broken.mp4"})"
                                        "\n"
                                        R"({"id": "two", "videos": ["left.mp4", "left.mp4"]})"
                                        "\n");
  REQUIRE(rows.size() == 6);
  for (std::size_t r = 0; r < 2; ++r) {
    const OrderedJson& row = rows[r];
    CHECK(row["duration_s"] == 3);
    CHECK_FALSE(row.contains("frames"));
    REQUIRE(row["segments"].size() == 5);
    double before = 1;
    std::vector<bool> seen(5, false);
    for (const OrderedJson& one : row["segments"]) {
      const TimeSegment part{one["start_s"], one["end_s"]};
      seen.at(static_cast<std::size_t>(std::lround(part.start_s / 0.6))) = true;
      const double alone = score_part(session, (kClips / "left.mp4").string(), part,
                                      run.questions[r].text, run.options.choices);
      CHECK(std::abs(one["logprob"].get<double>() - alone) < 1e-4);
      CHECK(one["probability"].get<double>() <= before);
      before = one["probability"];
    }
    CHECK(seen == std::vector<bool>(5, true));
    CHECK(row["probability"] == row["segments"][0]["probability"]);
  }
  for (std::size_t r = 2; r < 4; ++r) {
    CHECK_THAT(rows[r]["error"].get<std::string>(), Contains("broken.mp4"));
  }
  CHECK_THAT(rows[4]["error"].get<std::string>(),
             Contains("segments are of one video: got 2 videos, wanted one in the item"));
}

}  // namespace
}  // namespace vlm::infer
