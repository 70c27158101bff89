// Entries × questions → items and their groups.
#include "infer/items/item_list.h"

#include <nlohmann/json.hpp>

#include "tests/infer/items/entries.h"

namespace vlm::infer {
namespace {

TEST_CASE("questions are templates over the fields of a row") {
  const ScratchFolder folder;
  const std::string file =
      folder.write("rows.jsonl", R"({"id": "a", "image": "dir/p.png", "label": 3, "text": "t"})"
                                 "\n"
                                 R"({"id": "b", "image": "q.png"})"
                                 "\n");
  const auto questions = load_questions(
      {"{name} {stem} {{{label}}} {id}"},
      folder.write("q.jsonl",
                   "{\"id\": \"color\", \"question\": \"Color?\"}\n\n{\"question\": \"?\"}\n"));
  REQUIRE(questions.size() == 3);
  const ItemList items(open_arguments({file}),
                       {.questions = questions, .system = "S", .reserved = {"text", "error"}});
  CHECK(items.items() == 6);
  CHECK(items.groups() == 2);
  CHECK(items.columns() == Names{"path", "question", "label", "input_text"});
  const ItemGroup group = items.group(0).at(0);
  REQUIRE(group.items.size() == 3);
  CHECK(group.media.size() == 1);
  CHECK(group.items[0].id == "a#1");
  CHECK(group.items[1].id == "a#color");
  CHECK(group.items[2].id == "a#3");
  CHECK(group.items[0].columns.dump() ==
        R"({"path":")" + folder.at("dir/p.png") +
            R"(","question":"p.png p {3} a","label":3,"input_text":"t"})");
  CHECK(group.items[1].text_file == folder.at("dir/p.color.txt"));
  CHECK(group.items[0].messages[0].role == "system");
  CHECK(items.group(1).at(0).items[0].ordinal == 3);
  CHECK_THAT(items.group(1).at(0).items[0].error,
             Contains("b: the row has no value for a field of the question: got label"));
  CHECK(items.group(1).at(0).items[1].error.empty());

  const auto use = [&](const std::string& text) {
    ItemList(open_arguments({file}), {.questions = {{"1", text}}});
  };
  CHECK_THROWS_WITH(
      use("{size}"),
      "unknown field in the question: got {size}, wanted one of path, name, stem, id, "
      "question, label, text (write {{ and }} for braces)");
  CHECK_THROWS_WITH(use("a } b"),
                    "unmatched brace in the question: got a } b (write {{ and }} for braces)");
  CHECK_THROWS_WITH(use("a {b"), Contains("unmatched brace"));
  const auto read = [&](const std::string& text) {
    load_questions({}, folder.write("q.jsonl", text));
  };
  CHECK_THROWS_WITH(read("{}"), Contains("q.jsonl:1: no 'question'"));
  CHECK_THROWS_WITH(read("{\"question\":\"a\",\"x\":1}"),
                    Contains("q.jsonl:1: unknown key: got x"));
  CHECK_THROWS_WITH(read("{\"question\":\"a\",\"id\":\"b/c\"}"),
                    Contains("unusable id of a question: got 'b/c'"));
  CHECK_THROWS_WITH(read("{\"question\":\"a\",\"id\":[]}"), Contains("id: wrong type: got array"));
  CHECK_THROWS_WITH(read("{\"question\":\"a\",\"id\":\"b\"}\n{\"question\":\"a\",\"id\":\"b\"}"),
                    Contains("q.jsonl:2: id of a question given twice: got b"));
  CHECK_THROWS_WITH(read(""), Contains("q.jsonl: no questions in the file"));
}

TEST_CASE("rows that follow each other with the same picture are one group") {
  const ScratchFolder folder;
  std::string text;
  for (const char* picture : {"a", "a", "b", "a"}) {
    text += std::string(R"({"image": ")") + picture + R"(.png", "question": "x"})" + "\n";
  }
  text += R"({"image": "a.png"})";
  const ItemList items(open_arguments({folder.write("rows.jsonl", text)}), {});
  CHECK(items.items() == 5);
  REQUIRE(items.groups() == 3);
  CHECK(items.first_item(1) == 2);
  CHECK(items.group(0).at(0).items.size() == 2);
  CHECK(items.group(2).at(0).items[0].ordinal == 3);
  CHECK_THAT(items.group(2).at(0).items[1].error,
             Contains("the row asks nothing (give --question)"));
  const std::string chat =
      folder.write("chat.jsonl", R"({"id": "c", "messages": [{"role": "user", "content": "x"}]})"
                                 "\n");
  const ItemList asked(open_arguments({chat}), {.questions = {{"1", "x"}}});
  CHECK_THAT(asked.group(0).at(0).items[0].error,
             Contains("c: the row has its own conversation, and --question was given"));
}

TEST_CASE("rows of a table that show the same picture are one group when they are read") {
  for (const std::string name : {"asked.parquet", "asked.arrow"}) {
    const ItemList items(open_arguments({fixture("tables/" + name)}), {});
    CHECK(items.items() == 12);
    REQUIRE(items.groups() == 2);
    CHECK(items.first_item(1) == 8);
    std::vector<std::size_t> sizes;
    std::int64_t ordinal = 0;
    for (const std::int64_t group : {0, 1}) {
      for (const ItemGroup& part : items.group(group)) {
        sizes.push_back(part.items.size());
        for (const BatchItem& item : part.items) CHECK(item.ordinal == ordinal++);
      }
    }
    CHECK(sizes == std::vector<std::size_t>{2, 2, 2, 1, 1, 1, 1, 2});  // broken; none
  }
}

TEST_CASE("lists of items are told apart by their rows, and by nothing else") {
  const ScratchFolder folder;
  const auto digest = [](const std::string& file) {
    return ItemList(open_arguments({file}), {}).digest();
  };
  for (const std::string name : {"asked.parquet", "asked.arrow"}) {
    const std::string bytes = load_text(fixture("tables/" + name));
    CHECK(digest(folder.write("a/" + name, bytes)) == digest(fixture("tables/" + name)));
    std::string other = bytes;
    other.replace(other.find("What is it, 5?"), 14, "What is it, 6?");
    CHECK(digest(folder.write("b/" + name, other)) != digest(fixture("tables/" + name)));
  }
  for (const std::string name : {"r.json", "r.csv"}) {
    INFO(name);
    const auto write = [&](const std::string& question) {
      return folder.write(name, name == "r.csv" ? "id,question\na," + question + "\n"
                                                : "[{\"question\":\"" + question + "\"}]");
    };
    const std::string before = digest(write("Who?"));
    CHECK(digest(write("Who?")) == before);
    CHECK(digest(write("Why?")) != before);
  }
  // What journals of earlier versions hold.
  const std::string rows = folder.write("r.jsonl", "{\"question\":\"Who?\"}\n{\"id\": 1}\n");
  CHECK(digest(rows) == "a34f8e5f0a7b3f1e6e9e9aa8a242a86d");
}

TEST_CASE("a question in columns takes the run's system message, a conversation doesn't") {
  const ScratchFolder folder;
  const std::string file =
      folder.write("r.jsonl", R"({"image": "p.png", "question": "<image>\nWho?"})"
                              "\n"
                              R"({"question": "Who?", "history": [["a", "b"]]})"
                              "\n");
  const ItemList items(open_arguments({file}), {.system = "S"});
  const BatchItem first = items.group(0).at(0).items[0];
  REQUIRE(first.messages.size() == 2);
  CHECK(first.messages[0].content[0].text == "S");
  REQUIRE(first.messages[1].content.size() == 2);
  CHECK(first.messages[1].content[0].type == "image");
  CHECK(first.messages[1].content[1].text == "Who?");
  CHECK(items.group(1).at(0).items[0].messages.size() == 3);
  const ItemList put(open_arguments({file}), {.questions = {{"1", "x"}}});
  CHECK(put.group(0).at(0).items[0].error.empty());
  CHECK_THAT(put.group(1).at(0).items[0].error, Contains("the row has its own conversation"));
}

}  // namespace
}  // namespace vlm::infer
