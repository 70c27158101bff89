// Rows of Parquet and Arrow files → entries: pictures as bytes, conversations of data sets, damage.
#include <nlohmann/json.hpp>

#include "infer/items/row_entries.h"
#include "tests/infer/items/entries.h"

namespace vlm::infer {
namespace {

TEST_CASE("rows of tables hold their pictures; bytes are no columns") {
  for (const std::string name : {"asked.parquet", "asked.arrow"}) {
    INFO(name);
    const std::string file = fixture("tables/" + name);
    const auto source = open_arguments({file});
    REQUIRE(source->size() == 12);
    const Entry first = source->at(0);
    CHECK(first.error.empty());
    CHECK(first.id == "r0");
    CHECK(first.question == "What is it, 0?");
    CHECK(first.path.empty());
    CHECK(first.columns.dump() == R"({"answer":"a cat","number":0})");
    CHECK(data::load_picture(first.media.at(0)).width == 6);
    CHECK(source->columns() == Names{"answer", "number"});
    CHECK((source->at(1).media == first.media));
    CHECK_FALSE((source->at(2).media == first.media));
    CHECK_THROWS_WITH(data::load_picture(source->at(6).media.at(0)), Contains("not a picture"));
    CHECK(source->at(9).media.empty());
    CHECK(source->at(9).messages.size() == 1);
    // Without ids the table and the row name it.
    const auto unnamed = open_arguments({file}, "", {.id_column = ""});
    CHECK(unnamed->at(2).id == file + ":3");
    CHECK(unnamed->columns() == Names{"answer", "id", "number"});
    CHECK(open_arguments({file}, "", {.id_column = "number"})->at(3).id == "3");
    CHECK_THROWS_WITH(open_arguments({file}, "", {.id_column = "answer"}),
                      file + ":2: id given twice (the same id as " + file + ":1)");
    CHECK_THROWS_WITH(open_arguments({file}, "", {.id_column = "key"}),
                      Contains(":1: no column 'key' (--id-column says that it names the row)"));
    CHECK_THAT(
        open_arguments({file}, "", {.data = {.field_map = {{"images", "hash"}}}})->at(0).error,
        !Contains("wrong type"));
  }
}

TEST_CASE("a damaged group of a table costs its rows, and a picture that isn't read is told") {
  const ScratchFolder folder;
  std::string bytes = load_text(fixture("tables/asked.parquet"));
  const auto at = bytes.find("What is it, 5?");
  REQUIRE(at != std::string::npos);
  bytes[at - 4] = '\x7f';  // the length of the text, in the second of three groups
  bytes[at - 1] = '\x7f';
  const auto source = open_arguments({folder.write("d.parquet", bytes)});
  REQUIRE(source->size() == 12);
  for (std::int64_t i = 0; i < 12; ++i) {
    const Entry entry = source->at(i);
    INFO(i << " " << entry.error);
    CHECK(entry.error.empty() == (i / 4 != 1));
    CHECK(entry.id == (i / 4 != 1 ? "r" + std::to_string(i)
                                  : folder.at("d.parquet") + ":" + std::to_string(i + 1)));
  }
  CHECK_THAT(source->at(5).error, Contains(folder.at("d.parquet") + ":6: can't read the row"));
  const RowOptions unread{.data = {.field_map = {{"images", "none"}}}};
  CHECK_THAT(open_arguments({fixture("tables/asked.parquet")}, "", unread)->at(0).error,
             Contains(":1: no column 'none': got columns"));
}

TEST_CASE("conversations of data sets are asked up to their last answer") {
  const auto last = [](const std::string& name, std::int64_t row = 0) {
    const Entry entry = open_arguments({fixture("tables/" + name)})->at(row);
    INFO(entry.error);
    REQUIRE(entry.error.empty());
    std::string text;
    for (const Message& message : entry.messages) {
      text += message.role + ":";
      for (const ContentPart& part : message.content) {
        text += part.type == "text" ? part.text : "<" + part.type + ">";
      }
      text += " ";
    }
    return text;
  };
  CHECK(last("cauldron.parquet") == "user:<image>What colour? assistant:Red. user:Sure? ");
  CHECK(last("llava_onevision.parquet") == "user:<image>What colour? ");
  CHECK(last("docvqa_languages.parquet") == "user:<image>What date? ");
  CHECK(last("chartqa.parquet") == "user:<image>How many bars? ");
  CHECK(last("scienceqa.parquet") ==
        "user:<image>Look at the fur.\nWhich is a mammal?\nA. a trout\nB. a mouse ");
  CHECK(error_of(R"({"prompt": [{"role": "user", "content": "a"}], "completion": "b"})") == "");
  CHECK_THAT(error_of(R"({"conversations": [{"from": "gpt", "value": "a"}]})"),
             Contains("doesn't end with a user's turn: got no turn before the answer"));
}

}  // namespace
}  // namespace vlm::infer
