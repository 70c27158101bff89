// Parquet and Arrow files: their values, the columns of data sets of the hub, damage.
#include <atomic>
#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>

#include "data/dataset.h"
#include "data/formats/row_source.h"
#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

namespace fs = std::filesystem;

fs::path table(const std::string& name) {
  return fixture("tables/" + name);
}

std::string open_error(const fs::path& path) {
  try {
    const auto rows = open_rows(path);
    for (std::int64_t i = 0; i < rows->size(); ++i) rows->at(i);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::string text_of(const Message& message) {
  std::string text;
  for (const ContentPart& part : message.content) {
    text += part.type == "text" ? part.text : "<" + part.type + ">";
  }
  return text;
}

// "role: text" a line.
std::string conversation(const std::string& name, std::int64_t row = 0,
                         const DataOptions& options = {}) {
  const Sample sample = load_dataset(table(name + ".parquet"), options)->at(row);
  std::string text;
  for (const Message& message : sample.messages) {
    text += message.role + ": " + text_of(message) + "\n";
  }
  for (const MediaRef& medium : sample.media) {
    const Image image = load_picture(medium);
    CHECK(image.height == 4);
    CHECK(image.width == 6);
  }
  return text;
}

TEST_CASE("values of tables are the same from Parquet, an Arrow file and an Arrow stream") {
  for (const char* name : {"kinds.parquet", "kinds_file.arrow", "kinds_stream.arrow"}) {
    INFO(name);
    const auto rows = open_rows(table(name));
    REQUIRE(rows->size() == 5);
    CHECK(rows->where(3) == table(name).string() + ":4");
    REQUIRE(rows->blocks().size() == 3);
    CHECK(rows->blocks()[0].rows == 2);
    CHECK(rows->blocks()[2].rows == 1);
    CHECK(rows->blocks()[0].bytes > 0);
    Json first = rows->at(0).columns;
    CHECK(first["bytes"].get_binary() == Json::binary_t({0x00, 0xff}));
    first.erase("bytes");
    CHECK(first == Json{{"text", "a"},
                        {"large", "xxxxxxxxx"},
                        {"small", 1},
                        {"wide", 9223372036854775808ULL},
                        {"single", 0.1},
                        {"half", 0.099975586},
                        {"double", 0.1},
                        {"yes", true},
                        {"date", "1970-01-01"},
                        {"list", {1, 2}},
                        {"map", {{"k", 1}}},
                        {"nested", {{"a", {{{"b", "deep"}}}}}},
                        {"coded", "u"}});
    const Json last = rows->at(4).columns;
    CHECK(last["wide"] == 18446744073709551615ULL);
    CHECK(std::signbit(last["single"].get<double>()));
    CHECK(last["date"].is_null());
    CHECK(last["nested"] == Json{{"a", {{{"b", nullptr}}}}});
    const Json third = rows->at(2).columns;
    for (const char* column : {"bytes", "double", "yes", "list", "map"}) {
      INFO(column);
      CHECK(third[column].is_null());
    }
    CHECK(rows->at(3).columns["map"] == Json{{"a", 2}, {"b", 3}});
    CHECK_THROWS(rows->at(5));
  }
}

TEST_CASE("data sets of the hub are read as they are") {
  CHECK(conversation("cauldron") ==
        "user: <image>What colour?\nassistant: Red.\nuser: Sure?\nassistant: Yes.\n");
  CHECK(conversation("cauldron", 1) == "user: <image><image>How many?\nassistant: Two.\n");
  CHECK(conversation("llava_onevision") == "user: <image>What colour?\nassistant: Red.\n");
  CHECK(conversation("vqav2") == "user: <image>What colour?\nassistant: red\n");
  CHECK(load_dataset(table("vqav2.parquet"), {})->at(0).references.size() == 10);
  CHECK(conversation("docvqa") == "user: <image>What is the date?\nassistant: 1/8/93\n");
  CHECK(load_dataset(table("docvqa.parquet"), {})->at(0).references ==
        std::vector<std::string>{"1/8/93", "January 8, 1993"});
  CHECK(conversation("docvqa_languages") == "user: <image>What date?\nassistant: 1/8/93\n");
  CHECK(conversation("chartqa") == "user: <image>How many bars?\nassistant: 14\n");
  CHECK(conversation("textvqa") == "user: <image>Which brand?\nassistant: dakota\n");
  CHECK_THAT(conversation("scienceqa"), Contains("Which is a mammal?") && Contains("a mouse"));
  CHECK_THAT(conversation("scienceqa", 1), !Contains("<image>") && Contains("Is water wet?"));
  CHECK(conversation("coco_captions") ==
        "user: <image>Describe the image.\nassistant: A red square.\n");
  CHECK(conversation("classes", 0, {.text_column = "label", .prompt = "Which?"}) ==
        "user: <image>Which?\nassistant: warm\n");
}

TEST_CASE("damaged tables are errors that name the file") {
  const ScratchFolder scratch;
  for (const char* name : {"kinds.parquet", "kinds_file.arrow", "kinds_stream.arrow"}) {
    const std::string whole = load_text(table(name));
    const std::string damaged = std::string("damaged") + fs::path(name).extension().string();
    for (std::size_t size = 8; size + 8 < whole.size(); size += 211) {
      INFO(name << " " << size);
      const auto path = scratch.write(damaged, whole.substr(0, size));
      const std::string error = open_error(path);
      // A stream may end behind any whole message, and an Arrow file's rows stand before its
      // footer.
      const bool is_shorter = error.empty() && open_rows(path)->size() <= 5;
      CHECK((is_shorter || error.starts_with(path)));
    }
    for (std::size_t at = 0; at < whole.size(); at += 13) {  // no crash, whatever the byte
      std::string flipped = whole;
      flipped[at] = static_cast<char>(flipped[at] ^ 0x55);
      open_error(scratch.write(damaged, flipped));
    }
  }
  CHECK_THAT(open_error(table("dictionary.arrow")), Contains("stored as dictionaries"));
  CHECK_THAT(open_error(scratch.write("empty.arrow", "")), Contains("empty.arrow"));
}

TEST_CASE("threads read rows of one table at once") {
  const auto rows = open_rows(table("kinds.parquet"));
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 200; ++i) {
        const Json value = rows->at((i + thread) % 5).columns["small"];
        const Json wanted[] = {1, -2, 3, nullptr, 5};
        if (value != wanted[(i + thread) % 5]) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("patterns stand for files, and what belongs to a hub is refused elsewhere") {
  const ScratchFolder scratch;
  for (const char* name : {"b.jsonl", "a.jsonl", "deep/c.jsonl", "deep/er/d.jsonl", ".h.jsonl"}) {
    scratch.write(name, R"({"question": "q", "answer": "a"})"
                        "\n");
  }
  const auto count = [&](const Json& files) { return load_datasets(files, {})->size(); };
  CHECK(count({scratch.at("*.jsonl")}) == 2);
  CHECK(count({scratch.at("**/*.jsonl")}) == 4);
  CHECK(count({scratch.at("deep/?.jsonl")}) == 1);
  CHECK(count({{{"path", scratch.at("[ab].jsonl")}, {"weight", 2}}}) == 2);
  CHECK(load_datasets({scratch.at("*.jsonl")}, {})->where(0) == scratch.at("a.jsonl") + ":1");
  CHECK_THROWS_WITH(count({scratch.at("*.csv")}), Contains("no file matches the pattern"));
  CHECK_THROWS_WITH(count({{{"path", scratch.at("a.jsonl")}, {"split", "test"}}}),
                    Contains("belong to data sets of a hub"));
  for (const char* name : {"hf://org/name", "hf://datasets/org", "hf://datasets/../x"}) {
    CHECK_THROWS_WITH(count({name}), Contains("not the name of a data set on a hub"));
  }
}

}  // namespace
}  // namespace vlm::data
