// Picture folders with their metadata, files with options of their own, and files in a row.
#include "data/dataset.h"

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

std::string load_error(const std::string& path, const DataOptions& options = {}) {
  try {
    load_dataset(path, options);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::string answer(const Sample& sample) {
  return sample.messages.at(1).content.at(0).text;
}

TEST_CASE("a row of metadata.jsonl becomes one turn about its picture") {
  const ScratchFolder scratch;
  const std::string file = scratch.write("metadata.jsonl",
                                         "{\"file_name\":\"a.png\",\"text\":\"A cat.\"}\r\n\n"
                                         "{\"file_name\":\"sub/b.png\",\"text\":\"\",\"n\":1}");
  const auto dataset = load_dataset(scratch.path(), {});
  REQUIRE(dataset->size() == 2);
  const Sample sample = dataset->at(0);
  REQUIRE(sample.messages.size() == 2);
  CHECK(sample.messages[0].role == "user");
  REQUIRE(sample.messages[0].content.size() == 2);
  CHECK(sample.messages[0].content[0].type == "image");
  CHECK(sample.messages[0].content[1].text == "Describe the image.");
  CHECK(sample.messages[1].role == "assistant");
  CHECK(answer(sample) == "A cat.");
  REQUIRE(sample.media.size() == 1);
  CHECK(sample.media[0].name == scratch.at("a.png"));
  CHECK(sample.where == file + ":1");
  CHECK(dataset->at(1).media[0].name == scratch.at("sub/b.png"));
  CHECK(dataset->at(1).where == file + ":3");
  CHECK(load_dataset(scratch.path(), {.prompt = ""})->at(0).messages[0].content.size() == 1);
}

TEST_CASE("metadata.csv gives the same, with any text column and prompt") {
  const ScratchFolder scratch;
  const std::string file =
      scratch.write("metadata.csv", "label,file_name,more\r\n\"a, b\",x.png,1\r\ncat,y.png,2\r\n");
  const auto dataset = load_dataset(scratch.path(), {.text_column = "label", .prompt = "What?"});
  REQUIRE(dataset->size() == 2);
  CHECK(answer(dataset->at(0)) == "a, b");
  CHECK(dataset->at(0).messages[0].content[1].text == "What?");
  CHECK(dataset->at(0).media[0].name == scratch.at("x.png"));
  CHECK(dataset->at(1).where == file + ":3");

  scratch.write("metadata.jsonl", R"({"file_name":"z.png","label":"from jsonl"})");
  CHECK(answer(load_dataset(scratch.path(), {.text_column = "label"})->at(0)) == "from jsonl");
}

TEST_CASE("metadata that lacks a column or a field is refused with its place") {
  const ScratchFolder scratch;
  const std::string folder = scratch.path().string();
  const auto row_error = [&](const DataOptions& options = {}) {
    try {
      load_dataset(folder, options)->at(0);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(load_error(folder) == folder + ": a picture folder needs metadata.jsonl or metadata.csv");
  const std::string csv = scratch.write("metadata.csv", "file_name,label\na.png,cat\n");
  CHECK_THAT(row_error(), Contains(csv + ":2: a row of no known format: got columns file_name, "
                                         "label, wanted messages, "));
  CHECK(row_error({.text_column = "label"}).empty());
  scratch.write("metadata.csv", "file,text\na.png,cat\n");
  CHECK_THAT(row_error(), Contains(csv + ":2: neither a question nor a picture"));
  scratch.write("metadata.csv", "file_name,text\n\n\na.png\n");
  CHECK(row_error() == csv + ":4: wrong number of fields: got 1, wanted 2");
  scratch.write("metadata.csv", "file_name,text,text\n");
  CHECK(load_error(folder) == csv + ":1: column given twice: got 'text'");
  scratch.write("metadata.csv", "file_name,text\na.png,\"cat\n");
  CHECK(load_error(folder) == csv + ":2: quote is not closed");

  const std::string jsonl = scratch.write("metadata.jsonl", "\n{\"text\":[]}\n");
  CHECK_THAT(row_error(), Contains(jsonl + ":2: no answer: got array"));
  scratch.write("metadata.jsonl", "[1]");
  CHECK(row_error() == jsonl + ":1: not a row: got array, wanted an object");
  scratch.write("metadata.jsonl", "{");
  CHECK_THAT(row_error(), Contains(jsonl + ":1: not valid JSON"));
}

TEST_CASE("a path that is no dataset, or an empty one, is refused") {
  const ScratchFolder scratch;
  CHECK(load_error(scratch.at("none")) == scratch.at("none") + ": no such file or folder");
  const std::string unknown =
      ": unknown kind of data file: wanted JSONL, a JSON list, .csv, .tar, .parquet, .arrow, or a "
      "folder with metadata.jsonl or metadata.csv";
  for (const char* text : {"", "PA", "\x1f\x8b\b"}) {
    const std::string file = scratch.write("data.bin", text);
    CHECK(load_error(file) == file + unknown);
  }
  for (const char* name : {"empty.jsonl", "empty.json", "empty.csv"}) {
    const std::string empty = scratch.write(name, "\n");
    CHECK(load_error(empty) == empty + ": holds no samples");
  }
  const std::string list = scratch.write("list.json", " [\n]\n");
  CHECK(load_error(list) == list + ": holds no samples");
  scratch.write("folder/metadata.csv", "file_name,text\n");
  CHECK(load_error(scratch.at("folder")) == scratch.at("folder") + ": holds no samples");
}

TEST_CASE("joined datasets count on from one another") {
  const ScratchFolder scratch;
  const auto line = [](const std::string& text) {
    return R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":")" + text +
           "\"}]}\n";
  };
  const std::string one = scratch.write("one.jsonl", line("0") + line("1"));
  const std::string two = scratch.write("two.jsonl", line("2"));
  scratch.write("three/metadata.csv", "file_name,text\na.png,3\nb.png,4\n");
  const auto joined = load_datasets({one, two, scratch.at("three")}, {});
  REQUIRE(joined->size() == 5);
  for (std::int64_t i = 0; i < joined->size(); ++i)
    CHECK(answer(joined->at(i)) == std::to_string(i));
  CHECK(joined->at(2).where == two + ":1");
  CHECK(joined->where(2) == two + ":1");
  CHECK_THROWS(joined->at(5));
  CHECK_THROWS(joined->at(-1));
  CHECK(load_datasets({}, {})->size() == 0);
  CHECK_THROWS_WITH(load_datasets({one, scratch.at("none")}, {}),
                    scratch.at("none") + ": no such file or folder");
}

TEST_CASE("an entry may have a weight and options of its own") {
  const ScratchFolder scratch;
  const std::string plain = scratch.write("a.jsonl", R"({"query":"q","response":"a"})");
  const std::string mapped = scratch.write("b.csv", "frage,antwort\nq,b\nq,c\n");
  const Json files = {plain,
                      {{"path", mapped},
                       {"weight", 0.5},
                       {"field_map", {{"query", "frage"}, {"response", "antwort"}}}}};
  const auto joined = load_datasets(files, {});
  REQUIRE(joined->size() == 3);
  CHECK(answer(joined->at(0)) == "a");
  CHECK(answer(joined->at(2)) == "c");
  const auto parts = joined->parts();
  REQUIRE(parts.size() == 2);
  CHECK(parts[0].samples == 1);
  CHECK(parts[0].weight == 1);
  CHECK(parts[1].samples == 2);
  CHECK(parts[1].weight == 0.5);
}

TEST_CASE("entries that can't be meant are refused by their place") {
  const auto error = [](const std::string& files) {
    try {
      parse_data_files(parse_json(files, ""), {}, "train_files");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(error(R"(["a", {"path": "b", "prompt": ""}])").empty());
  CHECK(error(R"("a")") == "train_files: wrong type: got string \"a\", wanted a list of files");
  CHECK(error("[7]") ==
        "train_files[0]: wrong type: got number 7, wanted a path, or an object with 'path'");
  CHECK(error(R"(["a", {"weight": 2}])") == "train_files[1]: no path");
  CHECK(error(R"([{"path": "a", "weight": 0}])") ==
        "train_files[0].weight: value out of range: got 0, wanted more than 0, at most 1e6");
  CHECK_THAT(error(R"([{"path": "a", "wieght": 2}])"),
             Contains("train_files[0]: unknown key 'wieght' (did you mean 'weight'?)"));
  CHECK_THAT(error(R"([{"path": "a", "dataset_format": "llava"}])"),
             Contains("unknown value: got 'llava', wanted auto, messages, "));
  CHECK_THAT(error(R"([{"path": "a", "field_map": {"question": "q"}}])"),
             Contains("train_files[0].field_map: unknown column 'question': wanted messages, "));
  CHECK(error(R"([{"path": "a", "field_map": {"query": 1}}])") ==
        "train_files[0].field_map.query: wrong type: got number 1, wanted the name of a column, or "
        "null for none");
  CHECK_THAT(error(R"([{"path": "a", "field_map": ["query"]}])"),
             Contains("train_files[0].field_map: wrong type: got array"));
}

}  // namespace
}  // namespace vlm::data
