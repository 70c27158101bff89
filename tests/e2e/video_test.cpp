// `vlm video`, `generate --video` and `inspect` as their users meet them, with clips that the
// ffmpeg program makes.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <thread>
#include <vector>

#include "tests/e2e/killed_run.h"
#include "tests/support/catch.h"
#include "tests/support/run_program.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

const std::string kModel = " --model tests/fixtures/smolvlm_tiny --device cpu --threads 1 ";

// `seconds` of ffmpeg's test picture at 10 frames a second.
void make_clip(const fs::path& path, double seconds, const std::string& codec = "mpeg4") {
  fs::create_directories(path.parent_path());
  const ProgramResult made =
      run_shell("ffmpeg -v error -y -f lavfi -i testsrc2=size=64x48:rate=10:duration=" +
                    std::to_string(seconds) + " -c:v " + codec + " -g 10 '" + path.string() + "'",
                path.parent_path());
  INFO(made.err);
  REQUIRE(made.code == 0);
}

std::vector<OrderedJson> read_rows(const fs::path& output) {
  std::vector<OrderedJson> rows;
  std::istringstream in(read_file(output));
  for (std::string line; std::getline(in, line);) rows.push_back(OrderedJson::parse(line));
  return rows;
}

// Rows without what depends on what was computed beside them.
std::vector<std::string> read_answers(const fs::path& output) {
  std::vector<std::string> answers;
  for (OrderedJson& row : read_rows(output)) {
    for (const char* name : {"mean_logprob", "min_logprob", "first_token_entropy"}) row.erase(name);
    answers.push_back(row.dump());
  }
  return answers;
}

TEST_CASE("a folder of clips becomes rows, sorted, and broken clips rows with their error") {
  const ScratchFolder folder;
  const fs::path in = folder.path() / "in";
  make_clip(in / "b.mp4", 3);
  make_clip(in / "deep/a.mkv", 1.5);
  make_clip(in / "c.webm", 2, "libvpx");
  folder.write("in/notes.txt", "not looked at");
  folder.write("in/empty.mp4", "");
  folder.write("in/text.avi", "this is no video, whatever its name says");
  std::string cut = read_file(in / "b.mp4");
  folder.write("in/headless.mp4", cut.substr(0, cut.size() / 3));
  const std::string command =
      "video " + in.string() + kModel + "--question What? --max-new-tokens 3 --output ";
  const std::string output = folder.at("rows.jsonl");
  const ProgramResult run = run_vlm(command + output);
  INFO(run.err);
  REQUIRE(run.code == 3);
  const auto rows = read_rows(output);
  REQUIRE(rows.size() == 6);
  std::vector<std::string> names, errors;
  for (const OrderedJson& row : rows) {
    names.push_back(fs::path(row["path"].get<std::string>()).filename());
    CHECK(row["id"] == row["path"]);
    CHECK(row["question"] == "What?");
    CHECK(row.contains("error") != row.contains("text"));
    CHECK(row.contains("error") != row.contains("frames"));
    if (row.contains("error")) errors.push_back(names.back());
  }
  CHECK(names == std::vector<std::string>{"b.mp4", "c.webm", "a.mkv", "empty.mp4", "headless.mp4",
                                          "text.avi"});
  CHECK(errors == std::vector<std::string>{"empty.mp4", "headless.mp4", "text.avi"});
  CHECK(rows[0]["duration_s"] == 3);
  CHECK(rows[0]["frames"].dump() == "[0.0,1.4,2.9]");
  CHECK(rows[0]["damaged_frames"] == 0);

  REQUIRE(run_vlm(command + folder.at("rows.csv") + " --drop-duplicates").code == 3);
  const std::string csv = read_file(folder.at("rows.csv"));
  CHECK(csv.substr(0, csv.find('\r')) ==
        "id,path,question,duration_s,frames,damaged_frames,dropped_duplicates,text,mean_logprob,"
        "min_logprob,"
        "finish_reason,first_token_entropy,error");
  CHECK_THAT(csv, Contains(",3.0,\"[0.0,1.4,2.9]\",0,0,"));
  REQUIRE(run_vlm(command + folder.at("t.jsonl") + " --output-format txt").code == 3);
  CHECK(fs::exists(in / "deep/a.txt"));
  CHECK_FALSE(fs::exists(in / "text.txt"));
}

TEST_CASE("options choose the frames, and a run with others is refused") {
  const ScratchFolder folder;
  make_clip(folder.path() / "a.mp4", 4);
  const auto frames = [&](const std::string& options) {
    const std::string output = folder.at("rows.jsonl");
    const ProgramResult run =
        run_vlm("video " + folder.at("a.mp4") + kModel +
                "--question What? --max-new-tokens 1 --restart --output " + output + " " + options);
    INFO(options << run.err);
    REQUIRE(run.code == 0);
    return read_rows(output)[0]["frames"].dump();
  };
  CHECK(frames("--fps 0.5") == "[0.0,3.9]");
  CHECK(frames("--max-frames 1") == "[1.0]");  // of a clip longer than 1 + 2 s
  CHECK(frames("--start 1 --end 2 --fps 3") == "[1.0,1.4,1.9]");
  CHECK(frames("--sampling uniform --max-frames 2") == "[1.0,3.0]");
  CHECK(frames("--times 0.5,3.2 --frame-size 16") == "[0.5,3.2]");
  const std::string again = "video " + folder.at("a.mp4") + kModel + "--question What? --output " +
                            folder.at("rows.jsonl") + " --max-new-tokens 1 ";
  CHECK_THAT(run_vlm(again + "--fps 2").err,
             Contains("the rows already there were made with other options: --fps"));
  CHECK_THAT(run_vlm(again + "--sampling times").err,
             Contains("--sampling times: no times (give --times)"));
  CHECK_THAT(run_vlm(again + "--times 1 --max-frames 3").err,
             Contains("--max-frames: has no effect with strategy 'times'"));
  CHECK_THAT(run_vlm(again + "--start 3 --end 2").err, Contains("--start is not before --end"));
  CHECK(run_vlm(again + "--segment-s 3").code == 2);
  CHECK_THAT(run_vlm(again + "--ground --times 1").err,
             Contains("--ground takes frames of every segment"));
  CHECK_THAT(run_vlm(again + "--ground --answer red --choices blue,green").err,
             Contains("--answer: not one of the choices: got 'red', wanted blue, green"));
}

TEST_CASE("the second question about a clip decodes nothing") {
  const ScratchFolder folder;
  make_clip(folder.path() / "in/a.mp4", 4);
  make_clip(folder.path() / "in/b.mp4", 3);
  const std::string command = "video " + folder.at("in") + kModel + "--max-new-tokens 3 " +
                              "--feature-cache " + folder.at("cache") + " --output ";
  const ProgramResult first = run_vlm(command + folder.at("1.jsonl") + " --question What?");
  INFO(first.err);
  REQUIRE(first.code == 0);
  CHECK_THAT(first.err, Contains("videos or segments: 2 decoded, 0 read from the feature cache"));
  const ProgramResult second =
      run_vlm(command + folder.at("2.jsonl") + " --question What? --question Why?");
  REQUIRE(second.code == 0);
  CHECK_THAT(second.err, Contains("videos or segments: 0 decoded, 2 read from the feature cache"));
  const auto once = read_rows(folder.at("1.jsonl")), twice = read_rows(folder.at("2.jsonl"));
  REQUIRE(twice.size() == 4);
  for (int i = 0; i < 2; ++i) {
    for (const char* name : {"text", "frames", "duration_s"}) {
      CHECK(once[i][name] == twice[2 * i][name]);
    }
  }
  const ProgramResult generated =
      run_vlm("generate --format json --max-new-tokens 3 --prompt What? --feature-cache " +
              folder.at("cache") + kModel + "--video " + folder.at("in/a.mp4"));
  REQUIRE(generated.code == 0);
  CHECK(OrderedJson::parse(generated.out)["text"] == once[0]["text"]);
}

TEST_CASE("generate shows pictures and videos in the order of the command line") {
  const ScratchFolder folder;
  make_clip(folder.path() / "-a.mp4", 2);  // also a name that looks like an option
  const std::string video = "--video=" + folder.at("-a.mp4");
  const std::string image = "--image tests/fixtures/pictures/square.png";
  const auto ask = [&](const std::string& media) {
    const ProgramResult run =
        run_vlm("generate --format json --max-new-tokens 2 --prompt What?" + kModel + media);
    INFO(run.err);
    REQUIRE(run.code == 0);
    return OrderedJson::parse(run.out);
  };
  const OrderedJson first = ask(image + " " + video), last = ask(video + " " + image);
  CHECK(first["frames"] == last["frames"]);
  CHECK(first["duration_s"] == 2);
  const auto one = first["prompt_token_ids"].get<std::vector<int>>();
  const auto other = last["prompt_token_ids"].get<std::vector<int>>();
  CHECK(one != other);
  CHECK(ask(video + " " + video)["frames"].size() == 2);
  const std::string row =
      R"({"id": "x", "question": "What?", "image": ")" + std::string(VLM_SOURCE_DIR) +
      R"(/tests/fixtures/pictures/square.png", )" + R"("video": ")" + folder.at("-a.mp4") + "\"}\n";
  const std::string rows = folder.write("rows.jsonl", row);
  REQUIRE(run_vlm("vqa " + rows + kModel + "--max-new-tokens 2 --output " + folder.at("o.jsonl"))
              .code == 0);
  CHECK(read_rows(folder.at("o.jsonl"))[0]["text"] == first["text"]);
  // A pipe can be read once, from its beginning.
  const ProgramResult piped =
      run_shell("'" VLM_BINARY "' generate --format json --max-new-tokens 2 --prompt What?" +
                    kModel + "--video - < " + folder.at("-a.mp4"),
                VLM_SOURCE_DIR);
  INFO(piped.err);
  REQUIRE(piped.code == 0);
  CHECK(OrderedJson::parse(piped.out)["frames"] == first["frames"]);
}

TEST_CASE("a data set with clips is evaluated") {
  const ScratchFolder folder;
  const ProgramResult run = run_vlm("evaluate examples/clips/examples.jsonl" + kModel +
                                    "--max-new-tokens 2 --output " + folder.at("rows.jsonl"));
  INFO(run.err);
  REQUIRE(run.code == 0);
  const auto rows = read_rows(folder.at("rows.jsonl"));
  REQUIRE(rows.size() == 4);
  CHECK(rows[3]["answer"] == "down");
  CHECK(rows[3]["frames"].dump() == "[0.0,1.4,2.9]");
  CHECK_THAT(run.out, Contains("\"total\":4"));
}

TEST_CASE("killed at random moments, a run over clips ends with the rows of one that wasn't") {
  const ScratchFolder folder;
  for (int i = 0; i < 12; ++i) {
    make_clip(folder.path() / ("in/clip" + std::to_string(10 + i) + ".mp4"), 1 + i % 4);
  }
  folder.write("in/clip15.mp4", "broken");
  const std::string command = "video " + folder.at("in") + kModel +
                              "--question Who? --question Where? --max-new-tokens 2 --output ";
  REQUIRE(run_vlm(command + folder.at("whole.jsonl")).code == 3);
  const std::string killed =
      command + folder.at("rows.jsonl") + " --feature-cache " + folder.at("cache");
  std::mt19937 random(5);
  int kills = 0;
  for (int i = 0; i < 8; ++i) {
    const pid_t child = start(killed);
    std::this_thread::sleep_for(std::chrono::milliseconds(30 + random() % 400));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    kills += WIFSIGNALED(status) ? 1 : 0;
  }
  CHECK(kills > 0);
  REQUIRE(run_vlm(killed).code == 3);
  CHECK(read_answers(folder.at("rows.jsonl")) == read_answers(folder.at("whole.jsonl")));
  CHECK(read_rows(folder.at("rows.jsonl")).size() == 24);
}

TEST_CASE("the moments of a clip are ranked by segment") {
  const ScratchFolder folder;
  make_clip(folder.path() / "a.mp4", 7);
  const std::string command = "video " + folder.at("a.mp4") + kModel +
                              "--ground --segment-s 2 --feature-cache " + folder.at("cache") +
                              " --output ";
  const ProgramResult run =
      run_vlm(command + folder.at("1.jsonl") + " --question 'Is it red?' --question 'Is it on?'");
  INFO(run.err);
  REQUIRE(run.code == 0);
  CHECK_THAT(run.err, Contains("videos or segments: 4 decoded, 0 read from the feature cache"));
  const auto rows = read_rows(folder.at("1.jsonl"));
  REQUIRE(rows.size() == 2);
  for (const OrderedJson& row : rows) {
    CHECK(row["duration_s"] == 7);
    REQUIRE(row["segments"].size() == 4);
    const auto first = std::lround(row["segments"][0]["start_s"].get<double>());
    CHECK(row["text"] == "0:00:0" + std::to_string(first) + "-0:00:0" +
                             std::to_string(std::min<long>(first + 2, 7)));
  }
  // A page, also of rows that are there already.
  const std::string page_of =
      command + folder.at("1.jsonl") + " --question 'Is it red?' --question 'Is it on?' --html ";
  REQUIRE(run_vlm(page_of + folder.at("1.html")).code == 0);
  const std::string page = read_file(folder.at("1.html"));
  CHECK_THAT(page, Contains("<b>Is it red?</b>") && Contains("<b>Is it on?</b>") &&
                       Contains("viewBox=\"0 0 7 100\"") && Contains("<rect class=\"best\" x=\"") &&
                       Contains(rows[1]["text"]));
  CHECK_THAT(run_vlm(page_of + folder.at("1.jsonl")).err,
             Contains("--html: the page would replace the rows"));
  const std::string clip = read_file(folder.at("a.mp4"));
  CHECK(run_vlm(page_of + folder.at("a.mp4")).code == 1);
  CHECK(read_file(folder.at("a.mp4")) == clip);
  CHECK_THAT(run_vlm(command + folder.at("1.csv") + " --question q --html " + folder.at("x")).err,
             Contains("--html: the page of segments is made from rows of JSON: got "
                      "--output-format csv, wanted jsonl or parquet"));
  // Another answer, by itself: no decoding.
  const ProgramResult other =
      run_vlm(command + folder.at("2.jsonl") + " --question 'Which colour?' --answer red");
  REQUIRE(other.code == 0);
  CHECK_THAT(other.err, Contains("videos or segments: 0 decoded, 4 read from the feature cache"));
  const OrderedJson row = read_rows(folder.at("2.jsonl"))[0];
  CHECK(std::abs(row["probability"].get<double>() -
                 std::exp(row["segments"][0]["logprob"].get<double>())) < 1e-5);
}

TEST_CASE("inspect tells what a video holds and which frames would be shown") {
  const ScratchFolder folder;
  make_clip(folder.path() / "a.mp4", 3);
  const ProgramResult json = run_vlm("inspect " + folder.at("a.mp4") + " --json");
  INFO(json.err);
  REQUIRE(json.code == 0);
  const OrderedJson report = OrderedJson::parse(json.out);
  CHECK(report["codec"] == "mpeg4");
  CHECK(report["width"] == 64);
  CHECK(report["height"] == 48);
  CHECK(report["fps"] == 10);
  CHECK(report["frame_count"] == 30);
  CHECK(report["duration_s"] == 3);
  CHECK(report["indices"].dump() == "[0,14,29]");
  CHECK(report["frames"].dump() == "[0.0,1.4,2.9]");
  CHECK(report["read_s"].get<double>() > 0);
  const ProgramResult text = run_vlm("inspect " + folder.at("a.mp4") + " --max-frames 1");
  CHECK_THAT(text.out, Contains("frames                            [0.0]\n"));
  CHECK_THAT(run_vlm("inspect README.md").err, Contains("README.md"));
}

}  // namespace
}  // namespace vlm
