// Rows of data files → entries, and what is wrong with them.
#include "infer/items/row_entries.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "infer/items/item_list.h"
#include "tests/infer/items/entries.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

TEST_CASE("JSONL rows bring ids, pictures, questions and columns") {
  const ScratchFolder folder;
  const std::string file = folder.write(
      "in/rows.jsonl",
      R"({"id": "a", "image": "p.png", "question": "Who?", "label": 3, "text": "t"})"
      "\n\n"
      R"({"custom_id": 7, "images": ["p.png", {"path": "/q.png"}], "prompt": "Why?"})"
      "\n"
      R"({"image": "data:image/png;base64,aGkh", "label": [1]})"
      "\n"
      R"({"id": "m", "images": ["p.png"], "messages": [{"role": "user", "content": "Hm?"}]})"
      "\n"
      R"({"id": "bad", "image": "https://x.org/p.png", "question": "Who?"})"
      "\n"
      R"({"id": "none"})"
      "\n");
  const auto source = open_arguments({file});
  CHECK(ids_of(*source) == Names{"a", "7", file + ":4", "m", "bad", "none"});
  CHECK(source->columns() == Names{"label", "text"});
  CHECK(source->asks());
  const Entry first = source->at(0);
  CHECK(first.path == (folder.path() / "in/p.png").string());
  CHECK(first.question == "Who?");
  CHECK(first.columns.dump() == R"({"label":3,"text":"t"})");
  const Entry second = source->at(1);
  REQUIRE(second.media.size() == 2);
  CHECK(second.media[1].name == "/q.png");
  CHECK(second.question == "Why?");
  const Entry third = source->at(2);
  CHECK(third.path.empty());
  CHECK(data::read_bytes(third.media[0]) == "hi!");
  CHECK_FALSE(third.question.has_value());
  const Entry fourth = source->at(3);
  REQUIRE(fourth.messages.size() == 1);
  CHECK(fourth.messages[0].content[0].type == "image");
  CHECK(
      source->at(4).error ==
      file +
          ":6: image: pictures are not fetched from the network: got https://x.org/p.png, wanted a "
          "file or a data URI");
  CHECK_THAT(source->at(5).error, Contains(":7: a row without picture, video and question"));
  CHECK_FALSE(source->shares_media(1));

  CHECK_THROWS_WITH(open_arguments({folder.write(
                        "twice.jsonl", "{\"id\":\"a\"}\n{\"id\":\"b\"}\n{\"id\":\"a\"}\n")}),
                    folder.at("twice.jsonl") + ":3: id given twice (the same id as " +
                        folder.at("twice.jsonl") + ":1)");
  const auto broken = open_arguments(
      {folder.write("broken.jsonl", "{\"question\":\"q\"}\n{\"id\"\n7\n{\"id\":[]}\n")});
  REQUIRE(broken->size() == 4);
  CHECK(broken->at(0).error.empty());
  CHECK(broken->at(1).id == folder.at("broken.jsonl:2"));
  CHECK_THAT(broken->at(1).error, Contains("broken.jsonl:2: not valid JSON"));
  CHECK_THAT(broken->at(2).error, Contains("broken.jsonl:3: not a row: got number 7"));
  CHECK_THAT(broken->at(3).error, Contains("broken.jsonl:4: id: wrong type: got array"));
  CHECK_THROWS_WITH(open_arguments({folder.write("list.jsonl", "[]\n")}),
                    Contains("list.jsonl: no rows in the file: got " + folder.at("list.jsonl") +
                             ":1: not a row: got array, wanted an object"));
  CHECK_THROWS_WITH(open_arguments({folder.write("id.jsonl", "{\"id\":[]}\n")}),
                    Contains("id.jsonl:1: id: wrong type: got array, wanted a string or a whole"));
  CHECK_THROWS_WITH(open_arguments({folder.write("empty.jsonl", "\n")}),
                    Contains("empty.jsonl: no rows in"));
}

TEST_CASE("what is wrong with one row is its own error") {
  CHECK_THAT(error_of(R"({"image": "a", "images": ["b"]})"), Contains("both 'image' and 'images'"));
  CHECK_THAT(error_of(R"({"image": 3})"),
             Contains("image: wrong type: got number 3, wanted a path"));
  CHECK_THAT(error_of(R"({"question": ["a", "b"]})"),
             Contains("b.jsonl:1: query: wrong type: got array, wanted text"));
  CHECK_THAT(error_of(R"({"question": "a", "prompt": "b"})"),
             Contains("two columns for the query that differ: got 'question' and 'prompt'"));
  CHECK_THAT(error_of(R"({"question": "a", "tools": ["x"]})"),
             Contains("column 'tools' can't be used: got array (tools are not supported"));
  CHECK_THAT(error_of(R"({"question": "a", "history": ["x"]})"),
             Contains("history: wrong type: got string \"x\", wanted a list of pairs"));
  CHECK_THAT(error_of(R"({"question": "a", "choices": "x"})"), Contains("no choices: got string"));
  CHECK_THAT(error_of(R"({"question": "x", "messages": []})"),
             Contains("both 'messages' and 'question'"));
  CHECK_THAT(error_of(R"({"messages": 3})"),
             Contains("no messages: got number 3, wanted an object with a list 'messages'"));
  CHECK_THAT(
      error_of(
          R"({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]})"),
      Contains("the conversation doesn't end with a user's turn"));
  CHECK_THAT(error_of(R"({"messages": [{"role": "tool", "content": "x"}]})"),
             Contains("messages[0]: unknown role: got 'tool'"));
  CHECK_THAT(error_of(R"({"messages": [{"role": "user"}]})"),
             Contains("messages[0]: message without content"));
  CHECK_THAT(error_of(R"({"messages": [3]})"), Contains("messages[0]: no 'role': got number 3"));
  CHECK_THAT(error_of(R"({"messages": [{"role": "user", "content": [{"type": "image"}]}]})"),
             Contains("more image parts than entries of 'images': got 0 entries"));
  CHECK_THAT(
      error_of(
          R"({"image": "a", "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]})"),
      Contains("image parts don't fit the 'images' column: got 0 parts, wanted 1"));
  CHECK_THAT(error_of(R"({"messages": [{"role": "user", "content": [{"type": "audio"}]}]})"),
             Contains("unknown content part: got 'audio'"));
  CHECK_THAT(error_of(R"({"messages": [{"role": "user", "content": [{"type": "video"}]}]})"),
             Contains("more video parts than entries of 'videos': got 0 entries"));
  CHECK_THAT(
      error_of(
          R"({"video": "a", "messages": [{"role": "user", "content": [{"type": "image", "path": "b"}]}]})"),
      Contains("video parts don't fit the 'videos' column: got 0 parts, wanted 1"));
  CHECK_THAT(error_of(R"({"video": "a", "videos": ["b"]})"), Contains("both 'video' and 'videos'"));
  CHECK_THAT(error_of(R"({"video": 3})"),
             Contains("video: wrong type: got number 3, wanted a path"));
  CHECK_THAT(error_of(R"({"video": "https://x.org/a.mp4"})"),
             Contains("videos are not fetched from the network"));
  CHECK_THAT(error_of(R"({"video": "data:video/mp4;base64,aGkh"})"),
             Contains("unknown kind of video address"));
  CHECK_THAT(
      error_of(
          R"({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a", "detail": "tiny"}}]}]})"),
      Contains("messages[0]: image_url: detail: unsupported detail of a picture: got string "
               "\"tiny\", wanted low, high or auto"));
  CHECK_THAT(error_of(R"({"image": "data:image/png,xx"})"),
             Contains("data URI without base64 data"));
  CHECK_THAT(error_of(R"({"image": "data:image/png;base64,x"})"), Contains("not base64"));
  CHECK_THAT(error_of(R"({"image": "s3://bucket/x"})"),
             Contains("unknown kind of picture address"));
}

TEST_CASE("media of a row keep their order, in fields, plain text and parts") {
  const ScratchFolder folder;
  const auto media_of = [&](const std::string& row) {
    const auto source = open_arguments({folder.write("m.jsonl", row + "\n")});
    const Entry entry = source->at(0);
    INFO(entry.error);
    REQUIRE(entry.error.empty());
    CHECK(source->shows_videos());
    std::string text;
    for (const MediaRef& one : entry.media) {
      text +=
          std::string(part_type(one.kind)) + " " + fs::path(one.name).filename().string() + ", ";
    }
    for (const Message& message : entry.messages) {
      for (const ContentPart& part : message.content) text += part.type + " ";
    }
    return text;
  };
  CHECK(media_of(R"({"question": "?", "video": "a.mp4", "images": ["b.png", "c.png"]})") ==
        "video a.mp4, image b.png, image c.png, video image image text ");
  CHECK(media_of(R"({"image": "b.png", "videos": ["a.mp4", {"path": "d.mp4"}], )"
                 R"("messages": [{"role": "user", "content": "?"}]})") ==
        "image b.png, video a.mp4, video d.mp4, image video video text ");
  CHECK(media_of(R"({"image": "b.png", "video": "a.mp4", "messages": [{"role": "user", "content": )"
                 R"([{"type": "video"}, {"type": "video_url", "video_url": {"url": "e.mp4"}}, )"
                 R"({"type": "image"}]}]})") ==
        "video a.mp4, video e.mp4, image b.png, video video image ");
  folder.write("in/a.MP4", "x");
  folder.write("in/b.png", "x");
  std::istringstream none;
  const auto videos = open_entries({folder.at("in")}, none, MediaKind::kVideo);
  CHECK(ids_of(*videos) == Names{folder.at("in/a.MP4")});
  fs::remove(folder.at("in/a.MP4"));
  CHECK_THROWS_WITH(open_entries({folder.at("in")}, none, MediaKind::kVideo),
                    Contains("in: no videos in the folder"));
}

TEST_CASE("a row's own question takes its context, input, choices and system message") {
  const ScratchFolder folder;
  const std::string file = folder.write(
      "q.jsonl",
      R"({"id": "a", "image": "p.png", "question": 1.10, "hint": "Look.", "choices": ["x", 2.0],
          "system": "Be brief.", "price": 1.10, "key": 123456789012345678901234})"
      "\n");
  std::string text = load_text(file);
  std::replace(text.begin(), text.end() - 1, '\n', ' ');
  folder.write("q.jsonl", text);
  const auto items = [&](ItemListOptions options) {
    return ItemList(open_arguments({file}), std::move(options)).group(0).at(0).items.at(0);
  };
  const BatchItem own = items({.system = "Other."});
  CHECK(own.error.empty());
  REQUIRE(own.messages.size() == 2);
  CHECK(own.messages[0].content[0].text == "Be brief.");
  CHECK(own.messages[1].content[1].text == "Look.\n1.10\nA. x\nB. 2.0");
  CHECK(own.columns["price"].dump() == "1.1");
  CHECK(own.columns["key"] == "123456789012345678901234");
  const BatchItem put = items({.questions = {{"1", "{price} of {key}?"}}, .system = "Other."});
  CHECK(put.messages[0].content[0].text == "Other.");
  CHECK(put.messages[1].content[1].text == "1.10 of 123456789012345678901234?");
}

TEST_CASE("a JSONL file that is cut short while it is read costs the rows that are gone") {
  const ScratchFolder folder;
  const std::string row = R"({"question": ")" + std::string(9000, 'x') + "\"}\n";
  const std::string file = folder.write("c.jsonl", row + row);
  const auto source = open_arguments({file});
  fs::resize_file(file, 10000);
  CHECK(source->at(0).error.empty());
  CHECK(source->at(1).id == file + ":2");
  CHECK_THAT(source->at(1).error, Contains("the file became shorter while it was read"));
}

// A tar made by the system's own program, in the format given.
std::string make_tar(const ScratchFolder& folder, const std::string& format) {
  const std::string tar = folder.at(format + ".tar");
  const std::string command = "tar -C '" + folder.at("members") + "' --format=" + format +
                              " --sort=name -cf '" + tar + "' .";
  REQUIRE(std::system(command.c_str()) == 0);
  return tar;
}

TEST_CASE("tar shards are read in place, in every format") {
  const ScratchFolder folder;
  const std::string square = load_text(fixture("pictures/square.png"));
  const std::string long_name(60, 'n');
  const std::string deep = long_name + "/" + std::string(80, 'd');
  folder.write("members/000.png", square);
  folder.write("members/000.txt", "a caption");
  folder.write("members/001.json", R"({"question": "Who?", "label": 3})");
  folder.write("members/001.txt", "another");
  folder.write("members/001.cls", "5");
  folder.write("members/001.left.png", square);
  folder.write("members/001.right.png", square);
  folder.write("members/002.mp3", "no picture here");
  folder.write("members/" + deep + ".png", square);
  for (const char* format : {"gnu", "pax", "ustar"}) {
    INFO(format);
    const std::string tar = make_tar(folder, format);
    const auto source = open_arguments({tar});
    CHECK(ids_of(*source) == Names{tar + "/000", tar + "/001", tar + "/" + deep});
    CHECK(source->columns() == Names{"txt", "cls", "label"});
    CHECK(source->at(0).columns.dump() == R"({"txt":"a caption"})");
    const Entry second = source->at(1);
    CHECK(second.question == "Who?");
    CHECK(second.columns.dump() == R"({"cls":"5","label":3,"txt":"another"})");
    REQUIRE(second.media.size() == 2);
    CHECK(second.path == tar + "/001.left.png");
    for (std::int64_t i = 0; i < 3; ++i) CHECK(data::read_bytes(source->at(i).media[0]) == square);
    CHECK(load_picture(second.media[1]).width ==
          data::load_picture({.name = fixture("pictures/square.png")}).width);

    const std::string bytes = load_text(tar);
    for (const std::size_t cut :
         {bytes.find("IEND"), std::size_t{1024 + square.size() / 512 * 512 + 512}}) {
      const std::string torn = folder.write("torn.tar", bytes.substr(0, cut));
      CHECK_THROWS_WITH(open_arguments({torn}), Contains("torn.tar: ") && Contains("truncated"));
    }
  }
  CHECK_THROWS_WITH(open_arguments({folder.write("no.tar", std::string(2048, 'x'))}),
                    Contains("no.tar: can't read the archive"));
  const ScratchFolder empty;
  empty.write("members/a.txt", "x");
  CHECK_THROWS_WITH(open_arguments({make_tar(empty, "gnu")}),
                    Contains("gnu.tar: no pictures in the archive"));
}

// "id: question, picture" of every entry; of one that can't be asked its error.
Names told(const EntrySource& source) {
  Names lines;
  for (std::int64_t i = 0; i < source.size(); ++i) {
    const Entry entry = source.at(i);
    std::string line = entry.id + ": ";
    if (entry.error.empty()) {
      line += entry.question.value_or("-");
      for (const MediaRef& one : entry.media) line += ", " + fs::path(one.name).filename().string();
    } else {
      line += entry.error;
    }
    lines.push_back(line);
  }
  return lines;
}

TEST_CASE("files of every kind bring the same rows") {
  const ScratchFolder folder;
  const std::string a = R"({"id": "a", "image": "p.png", "question": "Who?", "label": "x"})",
                    b = R"({"id": "b", "image": "", "question": "Why?", "label": "y"})";
  const std::string cells = "id,image,question,label\na,p.png,Who?,x\nb,,Why?,y\n";
  for (const std::string& file :
       {folder.write("r.jsonl", a + "\n" + b), folder.write("r.ndjson", a + "\n" + b),
        folder.write("r.json", "[" + a + ",\n" + b + "]"), folder.write("r.csv", cells),
        (folder.write("in/metadata.csv", cells), folder.at("in"))}) {
    INFO(file);
    const auto source = open_arguments({file});
    CHECK(told(*source) == Names{"a: Who?, p.png", "b: Why?"});
    CHECK(source->columns() == Names{"label"});
    CHECK(source->at(0).columns.dump() == R"({"label":"x"})");
    CHECK(source->asks());
    CHECK(source->files() == Names{file});
  }
  CHECK(ids_of(*open_arguments({folder.at("r.*")}, "", {.id_column = ""})).size() == 8);
  // A folder of pictures alone is searched.
  folder.write("plain/q.png", "x");
  CHECK(ids_of(*open_arguments({folder.at("plain")})) == Names{folder.at("plain/q.png")});
}

TEST_CASE("broken rows of every kind cost themselves") {
  const ScratchFolder folder;
  const std::string csv = folder.write("r.csv", "question,image\nWho?,\n\"a\nb\"\n,s3://x/y\n,\n");
  CHECK(told(*open_arguments({csv})) ==
        Names{csv + ":2: Who?", csv + ":3: " + csv + ":3: wrong number of fields: got 1, wanted 2",
              csv + ":5: " + csv +
                  ":5: image: unknown kind of picture address: got s3://x/y, wanted a path, "
                  "file:// or a data URI",
              csv + ":6: " + csv +
                  ":6: a row without picture, video and question: wanted 'image', 'images', "
                  "'video', 'videos', 'question', 'prompt', 'messages' or columns that --field-map "
                  "names"});
  const std::string json = folder.write("r.json", "[{\"question\": \"Who?\"},\n7,\n{\"a\":}]");
  const Names lines = told(*open_arguments({json}));
  CHECK(lines.at(0) == json + ":1: Who?");
  CHECK_THAT(lines.at(1), Contains(":2: not a row: got number 7, wanted an object"));
  CHECK_THAT(lines.at(2), Contains(":3: not valid JSON"));
  CHECK_THROWS_WITH(open_arguments({folder.write("e.json", "[]")}), Contains("e.json: no rows in"));
  CHECK_THROWS_WITH(
      open_arguments({folder.write("t.csv", "id\na\na\n")}),
      folder.at("t.csv") + ":3: id given twice (the same id as " + folder.at("t.csv") + ":2)");
  CHECK_THROWS_WITH(open_arguments({csv, csv}), Contains(": id given twice (the same id as "));
}

TEST_CASE("a picture in a column that nobody reads is told, a path is shown") {
  CHECK_THAT(error_of(R"({"question": "a", "depth": {"bytes": "aGkh", "path": "b.png"}})"),
             Contains("column 'depth' can't be used: got object (a picture or clip that no format "
                      "reads; field_map {\"images\": null} leaves it out)"));
  CHECK(error_of(R"({"question": "a", "source": {"path": "b.png"}})") == "");
  CHECK(error_of(R"({"image": "a.png", "images": [], "question": "a"})") == "");
}

TEST_CASE("options say what the columns of rows are") {
  const ScratchFolder folder;
  const std::string file = folder.write(
      "r.jsonl", R"({"key": "a", "foto": "p.png", "frage": "Wer?", "question": "x", "user": "bob"})"
                 "\n");
  CHECK_THAT(told(*open_arguments({file})).at(0),
             Contains("two columns for the query that differ: got 'question' and 'user'"));
  const RowOptions options{
      .data = {.field_map = {{"images", "foto"}, {"query", "frage"}}, .image_folder = "/pictures"},
      .id_column = "key"};
  const auto source = open_arguments({file}, "", options);
  CHECK(told(*source) == Names{"a: Wer?, p.png"});
  CHECK(source->at(0).media.at(0).name == "/pictures/p.png");
  CHECK(source->at(0).columns.dump() == R"({"foto":"p.png","frage":"Wer?","user":"bob"})");
  CHECK(options.describe().dump() ==
        R"({"--field-map":{"images":"foto","query":"frage"},"--image-folder":"/pictures",)"
        R"("--id-column":"key"})");
  CHECK(RowOptions().describe().empty());
  const std::string chat = folder.write("c.jsonl", R"({"messages": [], "question": "x"})");
  CHECK(told(*open_arguments({chat}, "", {.data = {.format = "query_response"}})).at(0) ==
        chat + ":1: x");
  CHECK_THROWS_WITH(open_arguments({folder.write("p.png", "x")}, "", {.id_column = "key"}),
                    Contains("--id-column: the input has no rows that it could be about"));
  CHECK_THROWS_WITH(open_arguments({file}, "", {.split = "test"}),
                    Contains("r.jsonl: split, config_name and revision belong to data sets of a"));
  CHECK_THROWS_WITH(open_arguments({"hf://org/name"}), Contains("not the name of a data set"));
}

}  // namespace
}  // namespace vlm::infer
