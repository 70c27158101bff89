// TensorBoard files, charts, the report page and the model card.
#include <sys/stat.h>

#include <cstring>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/support/catch.h"
#include "tests/support/logged_lines.h"
#include "tests/support/scratch_folder.h"
#include "train/report/html_report.h"
#include "train/report/metrics_log.h"
#include "train/report/model_card.h"
#include "train/report/run_record.h"
#include "train/report/svg_chart.h"
#include "train/report/tensorboard_log.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"

namespace vlm::train {
namespace {

template <typename T>
T read_at(const std::string& bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

std::uint32_t masked(std::string_view bytes) {
  const std::uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
}

// The records of an event file, each checked by its sums, without the wall time in front.
std::vector<std::string> read_records(const std::filesystem::path& path) {
  const std::string bytes = load_text(path);
  std::vector<std::string> records;
  for (std::size_t at = 0; at < bytes.size();) {
    const auto size = static_cast<std::size_t>(read_at<std::uint64_t>(bytes, at));
    CHECK(read_at<std::uint32_t>(bytes, at + 8) == masked(bytes.substr(at, 8)));
    const std::string record = bytes.substr(at + 12, size);
    CHECK(read_at<std::uint32_t>(bytes, at + 12 + size) == masked(record));
    CHECK(record[0] == '\x09');  // field 1, 64 bits: wall_time
    CHECK(read_at<double>(record, 1) > 1.5e9);
    records.push_back(record.substr(9));
    at += 16 + size;
  }
  return records;
}

TEST_CASE("CRC-32C of known texts") {
  CHECK(crc32c("123456789") == 0xe3069283U);            // the check value of the CRC catalogue
  CHECK(crc32c(std::string(32, '\0')) == 0x8a9136aaU);  // RFC 3720, B.4
}

TEST_CASE("a TensorBoard file holds one event a row, with tags as transformers writes them") {
  using namespace std::string_literals;
  const ScratchFolder folder;
  TensorboardLog log(folder.path(), /*first_step=*/0);
  log.add_row({{"step", 300}, {"loss", 0.5}, {"note", "text"}});
  log.add_row({{"step", 300}, {"eval_anls", 1}});
  CHECK(log.path().filename().string().starts_with("events.out.tfevents."));
  const auto records = read_records(log.path());
  REQUIRE(records.size() == 3);
  CHECK(records[0] == "\x10\x00\x1a\x0d"s + "brain.Event:2");
  // step 300, summary { value { tag: "train/loss" simple_value: 0.5 } }
  CHECK(records[1] == "\x10\xac\x02\x2a\x13\x0a\x11\x0a\x0atrain/loss\x15\x00\x00\x00\x3f"s);
  CHECK(records[2] == "\x10\xac\x02\x2a\x12\x0a\x10\x0a\x09"s + "eval/anls\x15\x00\x00\x80\x3f"s);
}

TEST_CASE("a run that goes on voids what TensorBoard has past its checkpoint") {
  using namespace std::string_literals;
  const ScratchFolder folder;
  const TensorboardLog log(folder.path(), /*first_step=*/5);
  const auto records = read_records(log.path());
  REQUIRE(records.size() == 2);
  CHECK(records[1] == "\x10\x06\x3a\x02\x08\x01"s);  // step 6, session_log { status: START }
}

TEST_CASE("metrics keep the rows before a checkpoint byte for byte") {
  const ScratchFolder folder;
  const auto path = folder.path() / "metrics.jsonl";
  save_text(path, "{\"step\":1,\"loss\":0.10}\n{\"step\": 2}\n{\"step\":3}\n{\"step\":2,\"lo");
  MetricsLog log(path, 2, 1);
  log.write({{"step", 3}, {"loss", 1.5}});
  CHECK(load_text(path) ==
        "{\"step\":1,\"loss\":0.10}\n{\"step\": 2}\n{\"step\":3,\"loss\":1.5}\n");
  CHECK(read_metrics(path).size() == 3);
  MetricsLog nowhere("", 0, 0);
  nowhere.write({{"step", 1}});
}

TEST_CASE("ticks are round numbers within the range") {
  CHECK(choose_ticks(0, 10, 5) == std::vector<double>{0, 2, 4, 6, 8, 10});
  const auto small = choose_ticks(0.013, 0.027, 5);
  REQUIRE(small.size() == 3);
  CHECK(small[0] == Approx(0.015));
  CHECK(small[2] == Approx(0.025));
}

TEST_CASE("ticks of a logarithmic axis are 1, 2 and 5 times powers of ten, or powers alone") {
  const auto near = [](const std::vector<double>& ticks, const std::vector<double>& wanted) {
    REQUIRE(ticks.size() == wanted.size());
    for (std::size_t i = 0; i < ticks.size(); ++i) CHECK(ticks[i] == Approx(wanted[i]));
  };
  near(choose_log_ticks(0.15, 2.5), {0.2, 0.5, 1, 2});
  near(choose_log_ticks(0.1, 10), {0.1, 0.2, 0.5, 1, 2, 5, 10});
  near(choose_log_ticks(3e-4, 3), {1e-3, 1e-2, 1e-1, 1});
  const auto few = choose_log_ticks(1e-12, 1e12);
  CHECK(few.size() <= 6);
  CHECK(few.size() >= 4);
}

TEST_CASE("a loss that spans decades is drawn on a logarithmic axis, others on a linear one") {
  const auto draw = [](double first, double last, Scale scale) {
    return draw_chart(
        {.title = "loss", .series = {{"loss", {{0, first}, {1, 1}, {2, last}}}}, .scale = scale});
  };
  const std::string wide = draw(10, 0.1, Scale::kLogWhereWide);
  // The middle value of three decades' ends lies in the middle of the plot, 30 to 210.
  CHECK_THAT(wide, Contains("d=\"M58 30L253 120L448 210\"") && Contains("loss (logarithmic)"));
  CHECK_THAT(draw(10, 0.1, Scale::kLinear),
             Contains("d=\"M58 30L253 193.6L448 210\"") && !Contains("logarithmic"));
  CHECK_THAT(draw(3, 0.5, Scale::kLogWhereWide), !Contains("logarithmic"));
  CHECK_THAT(draw(10, 0, Scale::kLogWhereWide), !Contains("logarithmic"));
  CHECK_THAT(draw(10, -1, Scale::kLogWhereWide), !Contains("logarithmic"));
}

TEST_CASE("a chart draws finite points and breaks its line at others") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::string svg =
      draw_chart({.title = "a < b", .series = {{"loss", {{0, 1}, {1, nan}, {2, 3}}}}});
  CHECK_THAT(svg, Contains("<svg viewBox=\"0 0 460 240\"") && Contains("a &lt; b"));
  CHECK_THAT(svg, Contains("d=\"M58 210M448 30\""));  // corners of the plot
  CHECK(draw_chart({.title = "none", .series = {{"x", {{0, nan}}}}}).empty());
}

const OrderedJson kConfig = {{"model_name_or_path", "org/base"},
                             {"method", "lora"},
                             {"r", 8},
                             {"eval_metrics", {"exact_match"}},
                             {"train_files", {"train.jsonl"}}};

std::string example(const std::string& name) {
  return std::string(VLM_SOURCE_DIR) + "/examples/" + name;
}

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

// The held-out samples of a page about two items, of which the first shows these media.
std::string show_held_out(const std::function<std::vector<data::MediaRef>()>& media) {
  RunRecord record{.config = kConfig};
  record.after = {{.index = 0, .where = "e:1", .question = "Where?", .references = {"left"}},
                  {.index = 1, .where = "e:2", .question = "Last?", .references = {"right"}}};
  const std::string page =
      make_report(record, {.media = [&](std::int64_t index) {
                    return index == 0 ? media() : std::vector<data::MediaRef>{};
                  }});
  return page.substr(page.find("<h2>Held-out samples</h2>"));
}

TEST_CASE("the report shows frames of clips in the order of time") {
  const LoggedLines warnings(LogLevel::kWarning);
  const std::string clip = example("clips/left.mp4");
  const std::string page = show_held_out([&] {
    return std::vector<data::MediaRef>{{data::MediaKind::kVideo, clip}};
  });
  CHECK(warnings.text.empty());
  CHECK(count_of(page, "src=\"data:image/jpeg;base64,/9j/") == 4);
  // Four frames spread evenly over 3 seconds, in the order of time, each with a picture of its own.
  std::size_t at = page.find("<div class=\"media many\">");
  std::set<std::string> uris;
  for (const char* time : {"0.3", "1.1", "1.8", "2.6"}) {
    INFO(time);
    const std::string title = concat("title=\"", clip, ", ", time, " s\" src=\"");
    at = page.find(title, at);
    REQUIRE(at != std::string::npos);
    at += title.size();
    uris.insert(page.substr(at, page.find('"', at) - at));
  }
  CHECK(uris.size() == 4);
}

TEST_CASE("an item of several media shows a picture of each") {
  const std::string page = show_held_out([] {
    return std::vector<data::MediaRef>{
        {data::MediaKind::kPicture, example("pictures/shape_038.png")},
        {data::MediaKind::kVideo, example("clips/up.mp4")},
        {data::MediaKind::kPicture, example("pictures/shape_049.png")}};
  });
  CHECK(count_of(page, "<img ") == 6);
  const std::size_t first = page.find("shape_038.png"), second = page.find("up.mp4"),
                    third = page.find("shape_049.png");
  REQUIRE(third != std::string::npos);
  CHECK((first < second && second < third));
  CHECK_THAT(page, !Contains(" more</p>"));
  const std::string many = show_held_out([] {
    return std::vector<data::MediaRef>(
        30, {data::MediaKind::kPicture, example("pictures/shape_038.png")});
  });
  CHECK(count_of(many, "<img ") == 12);
  CHECK_THAT(many, Contains("and 18 more</p>"));
  CHECK_THAT(show_held_out([] {
               return std::vector<data::MediaRef>{
                   {data::MediaKind::kPicture, example("pictures/shape_038.png")}};
             }),
             Contains("<div class=\"media\"><img "));
}

TEST_CASE("a broken clip is told in its place, and the report goes on") {
  const ScratchFolder folder;
  const std::string broken = folder.write("broken.mp4", "this is no clip");
  const std::string pipe = folder.at("pipe.mp4");
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  const LoggedLines warnings(LogLevel::kWarning);
  const std::string page = show_held_out([&] {
    return std::vector<data::MediaRef>{{data::MediaKind::kVideo, broken},
                                       {data::MediaKind::kVideo, pipe},
                                       {data::MediaKind::kVideo, folder.at("gone.mp4")},
                                       {data::MediaKind::kVideo, example("clips/up.mp4")}};
  });
  CHECK_THAT(page, Contains("not shown: " + broken) && Contains("gone.mp4: ") &&
                       Contains(pipe + ": a clip from a pipe can't be read again") &&
                       Contains("<b>Last?</b>"));
  CHECK(count_of(page, "<img ") == 4);
  CHECK_THAT(warnings.text, Contains("the report shows no picture of a sample: " + broken));
  CHECK(count_of(warnings.text, "the report shows no picture") == 3);
}

TEST_CASE("an item whose row can't be read any more is told, too") {
  const LoggedLines warnings(LogLevel::kWarning);
  const std::string page = show_held_out([]() -> std::vector<data::MediaRef> {
    throw Error({.what = "row is gone", .where = "eval.jsonl:1"});
  });
  CHECK_THAT(page, Contains("not shown: eval.jsonl:1: row is gone") && Contains("<b>Last?</b>"));
  CHECK_THAT(warnings.text, Contains("eval.jsonl:1: row is gone"));
}

// A folder as a finished run leaves it.
void write_run(const ScratchFolder& folder) {
  folder.write("metrics.jsonl",
               "{\"step\":0,\"eval_loss\":3.0,\"eval_exact_match\":0.0}\n"
               "{\"step\":1,\"loss\":2.5,\"learning_rate\":0.1,\"samples_per_second\":4.0,"
               "\"seconds\":61,\"peak_rss_mb\":250.5}\n"
               "{\"step\":2,\"loss\":1.25,\"learning_rate\":0.05,\"samples_per_second\":2.0,"
               "\"seconds\":125,\"peak_rss_mb\":251.0}\n"
               "{\"step\":2,\"eval_loss\":1.5,\"eval_exact_match\":1.0}\n");
  HeldOutAnswer one{.index = 3, .where = "e.jsonl:4", .question = "<What?>", .references = {"cat"}};
  HeldOutAnswer two{.index = 5, .where = "e.jsonl:6", .question = "Who?", .references = {"dog"}};
  one.answer = "hat";
  two.answer = "fog";
  save_answers(before_path(folder.path()), {one, two});
  one.answer = "cat";
  two.answer = "Dog";
  save_answers(answers_path(folder.path()), {one, two});
}

TEST_CASE("the report is one page: result, samples, curves, course and the folded configuration") {
  const ScratchFolder folder;
  write_run(folder);
  const std::string page =
      make_report(load_run_record(folder.path(), kConfig), {.media = [](std::int64_t index) {
                    const char* name = index == 3 ? "shape_038.png" : "shape_049.png";
                    return std::vector<data::MediaRef>{
                        {data::MediaKind::kPicture, example(concat("pictures/", name))}};
                  }});
  CHECK_THAT(page, Contains("<title>LoRA fine-tuning of org/base</title>"));
  CHECK_THAT(page, Contains("<title>loss</title>") && Contains("<title>learning_rate</title>") &&
                       Contains("<title>eval_exact_match</title>"));
  CHECK_THAT(page, Contains("<th>training time</th><td class=\"value\">2:05</td>") &&
                       Contains("<td class=\"value\">251 MB</td>"));
  CHECK_THAT(page, Contains("<div>exact_match</div><div class=\"figure\"><span class=\"before\">0"
                            "</span> → <b>1</b></div><div class=\"rise\">+1 (95 % interval 1 to 1)"
                            "</div><div class=\"muted\">2 of 2 items better, 0 worse</div>"));
  CHECK_THAT(page,
             Contains("<div>evaluation loss</div><div class=\"figure\"><span class=\"before\">"
                      "3</span> → <b>1.5</b></div><div class=\"muted\">since step 0</div>"));
  CHECK_THAT(page, Contains("shape_038.png\" src=\"data:image/jpeg") &&
                       Contains("\"></div>\n<b>&lt;What?&gt;</b>") &&
                       Contains("<th>before</th><td class=\"\">hat</td></tr>\n"
                                "<tr><th>after</th><td class=\"\">cat</td></tr>\n"
                                "<tr><th>wanted</th><td class=\"\">cat</td></tr>"));
  CHECK_THAT(page, Contains("<th>r</th><td class=\"value\">8</td>"));
  std::size_t at = 0;
  for (const char* part : {"<h2>Result</h2>", "exact_match", "<h2>Held-out samples</h2>",
                           "shape_038.png", "<h2>Curves</h2>", "<svg", "<h2>Course of the run</h2>",
                           "<details><summary>Configuration</summary>", "org/base", "</details>"}) {
    INFO(part);
    at = page.find(part, at);
    REQUIRE(at != std::string::npos);
  }
  // Nothing is fetched from anywhere.
  CHECK(page.find("http") == std::string::npos);
  CHECK(page.find("<script") == std::string::npos);
}

TEST_CASE("the report says whether the interval leaves a doubt") {
  RunRecord record{.config = kConfig};
  record.comparisons = {{"anls",
                         {.before = 0.5,
                          .after = 0.625,
                          .difference = 0.125,
                          .low = -0.05,
                          .high = 0.25,
                          .items = 8,
                          .better = 2,
                          .worse = 1}},
                        {"rouge_l",
                         {.before = 0.5,
                          .after = 0.25,
                          .difference = -0.25,
                          .low = -0.5,
                          .high = -0.125,
                          .items = 8,
                          .better = 0,
                          .worse = 3}},
                        {"cer",
                         {.before = 0.5,
                          .after = 0.375,
                          .difference = -0.125,
                          .low = -0.25,
                          .high = -0.0625,
                          .items = 8,
                          .better = 3,
                          .worse = 0}}};
  const std::string page = make_report(record, {});
  CHECK_THAT(page, Contains("<div class=\"rise\">-0.125 (95 % interval -0.25 to -0.0625)</div>"));
  CHECK_THAT(page, Contains("<div class=\"muted\">+0.125 (95 % interval -0.05 to 0.25): no clear "
                            "difference</div>") &&
                       Contains("<div class=\"fall\">-0.25 (95 % interval -0.5 to -0.125)</div>"));
}

TEST_CASE("the model card has PEFT's front matter and the comparison") {
  const ScratchFolder folder;
  write_run(folder);
  const std::string card = make_model_card(load_run_record(folder.path(), kConfig));
  CHECK(
      card.starts_with("---\nbase_model: \"org/base\"\nlibrary_name: peft\n"
                       "pipeline_tag: image-text-to-text\ntags:\n"
                       "- \"base_model:adapter:org/base\"\n- lora\n- transformers\n---\n\n"));
  CHECK_THAT(card, Contains("Steps: 2. Last training loss: 1.25. Evaluation loss: 1.5."));
  CHECK_THAT(card, Contains("On 2 held-out items") &&
                       Contains("| exact_match | 0 | 1 | 1 | 1 to 1 | 2 | 0 |"));
  CHECK_THAT(card, Contains("| `train_files` | `[\"train.jsonl\"]` |"));
  OrderedJson full = kConfig;
  full["method"] = "full";
  const std::string other = make_model_card(load_run_record(folder.path(), full));
  CHECK_THAT(other, Contains("library_name: transformers\n"));
  CHECK(other.find("peft") == std::string::npos);
}

TEST_CASE("the card of a run that takes its best step back tells that step's evaluation") {
  const ScratchFolder folder;
  folder.write("metrics.jsonl",
               "{\"step\":1,\"loss\":2.5}\n{\"step\":1,\"eval_loss\":0.5}\n"
               "{\"step\":2,\"loss\":1.5}\n{\"step\":2,\"eval_loss\":0.75}\n");
  RunRecord record = load_run_record(folder.path(), kConfig);
  CHECK_THAT(make_model_card(record),
             Contains("Steps: 2. Last training loss: 1.5. Evaluation loss: 0.75."));
  record.result_step = 1;
  CHECK_THAT(make_model_card(record), Contains("Steps: 2. The weights are those of step 1. Last "
                                               "training loss: 1.5. Evaluation loss: 0.5."));
  CHECK_THAT(make_report(record, {}), Contains("<th>step of the weights</th>"));
}

TEST_CASE("a run without evaluation has a report and a card, too") {
  const ScratchFolder folder;
  folder.write("metrics.jsonl", "{\"step\":1,\"loss\":2.5}\n");
  const RunRecord record = load_run_record(folder.path(), kConfig);
  CHECK_THAT(make_report(record, {}),
             Contains("<title>loss</title>") &&
                 Contains("<div class=\"figure\"><b>2.5</b></div>") &&
                 Contains("not compared with the untuned model: that needs eval_files and "
                          "eval_metrics") &&
                 !Contains("Held-out samples") && !Contains("→"));
  CHECK_THAT(make_model_card(record), Contains("was not compared with the untuned model"));
  folder.write("eval_answers.jsonl", "{\"index\": 1, \"what\": 2}\n");
  std::string warning;
  set_log_sink([&](LogLevel, const std::string& message) { warning = message; });
  CHECK(load_run_record(folder.path(), kConfig).after.empty());
  set_log_sink({});
  CHECK_THAT(warning, Contains("the report goes without answers: ") &&
                          Contains("eval_answers.jsonl:1: unknown key 'what'"));
}

}  // namespace
}  // namespace vlm::train
