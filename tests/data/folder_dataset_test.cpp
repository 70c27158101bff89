// Picture folders with their metadata, CSV, and the way from a path to a dataset.
#include "data/folder_dataset.h"

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

using Table = std::vector<std::vector<std::string>>;

std::string load_error(const std::string& path, const FolderOptions& options = {}) {
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

TEST_CASE("CSV: quotes, line breaks in fields, CRLF, a byte order mark, empty fields") {
  CHECK(parse_csv("a,b\n1,2\n", "f") == Table{{"a", "b"}, {"1", "2"}});
  CHECK(parse_csv("\xEF\xBB\xBF"
                  "a,b\r\n\r\n1,2",
                  "f") == Table{{"a", "b"}, {"1", "2"}});
  CHECK(parse_csv("\"x, \"\"y\"\"\r\nz\",,\"\"\n,", "f") ==
        Table{{"x, \"y\"\r\nz", "", ""}, {"", ""}});
  CHECK(parse_csv("a 5\" pipe,19\" and 21\"\n", "f") == Table{{"a 5\" pipe", "19\" and 21\""}});
  CHECK(parse_csv("", "f").empty());
  CHECK_THROWS_WITH(parse_csv("a,\"b\nc", "f"), "f: quote is not closed");
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
  CHECK(sample.images == std::vector<std::filesystem::path>{scratch.at("a.png")});
  CHECK(sample.where == file + ":1");
  CHECK(dataset->at(1).images[0] == scratch.at("sub/b.png"));
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
  CHECK(dataset->at(0).images[0] == scratch.at("x.png"));
  CHECK(dataset->at(1).where == file + ": row 2");

  scratch.write("metadata.jsonl", R"({"file_name":"z.png","label":"from jsonl"})");
  CHECK(answer(load_dataset(scratch.path(), {.text_column = "label"})->at(0)) == "from jsonl");
}

TEST_CASE("metadata that lacks a column or a field is refused with its place") {
  const ScratchFolder scratch;
  const std::string folder = scratch.path().string();
  CHECK(load_error(folder) == folder + ": a picture folder needs metadata.jsonl or metadata.csv");
  const std::string csv = scratch.write("metadata.csv", "file_name,label\na.png,cat\n");
  CHECK(load_error(folder) == csv + ": no column 'text': got columns file_name, label");
  CHECK(load_error(folder, {.text_column = "label"}) == "");
  scratch.write("metadata.csv", "file,text\na.png,cat\n");
  CHECK(load_error(folder) == csv + ": no column 'file_name': got columns file, text");
  scratch.write("metadata.csv", "file_name,text\na.png,cat\nb.png\n");
  CHECK(load_error(folder) == csv + ": row 2: wrong number of fields: got 1, wanted 2");
  scratch.write("metadata.csv", "file_name,text\na.png,cat,dog\n");
  CHECK(load_error(folder) == csv + ": row 1: wrong number of fields: got 3, wanted 2");
  scratch.write("metadata.csv", "file_name,text\na.png,\"cat\n");
  CHECK(load_error(folder) == csv + ": quote is not closed");

  const std::string jsonl = scratch.write("metadata.jsonl", "\n{\"text\":\"a\"}\n");
  CHECK(load_error(folder) == jsonl + ":2: no text in column 'file_name': got object");
  scratch.write("metadata.jsonl", R"({"file_name":"a.png","text":5})");
  CHECK(load_error(folder) == jsonl + ":1: no text in column 'text': got object");
  scratch.write("metadata.jsonl", "[1]");
  CHECK(load_error(folder) == jsonl + ":1: no text in column 'file_name': got array");
  scratch.write("metadata.jsonl", "{");
  CHECK_THAT(load_error(folder), Contains(jsonl + ":1: not valid JSON"));
}

TEST_CASE("a path that is no dataset, or an empty one, is refused") {
  const ScratchFolder scratch;
  CHECK(load_error(scratch.at("none")) == scratch.at("none") + ": no such file or folder");
  const std::string file = scratch.write("data.parquet", "");
  CHECK(load_error(file) == file +
                                ": unknown kind of data file: wanted a .jsonl file, or a folder "
                                "with metadata.jsonl or metadata.csv");
  const std::string empty = scratch.write("empty.jsonl", "\n");
  CHECK(load_error(empty) == empty + ": holds no samples");
  const std::string csv = scratch.write("folder/metadata.csv", "file_name,text\n");
  CHECK(load_error(scratch.at("folder")) == scratch.at("folder") + ": holds no samples");
  scratch.write("folder/metadata.csv", "");
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
  CHECK_THROWS(joined->at(5));
  CHECK_THROWS(joined->at(-1));
  CHECK(load_datasets({}, {})->size() == 0);
  CHECK_THROWS_WITH(load_datasets({one, scratch.at("none")}, {}),
                    scratch.at("none") + ": no such file or folder");
}

}  // namespace
}  // namespace vlm::data
