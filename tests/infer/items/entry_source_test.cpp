// Every kind of input → entries, and what is wrong with them.
#include "infer/items/entry_source.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>

#include "infer/items/item_list.h"
#include "infer/items/messages.h"
#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<EntrySource> open_arguments(const std::vector<std::string>& arguments,
                                            const std::string& list = "") {
  std::istringstream in(list);
  return open_entries(arguments, in);
}

std::vector<std::string> ids_of(const EntrySource& source, const fs::path& folder = {}) {
  std::vector<std::string> ids;
  for (std::int64_t i = 0; i < source.size(); ++i) {
    const std::string id = source.at(i).id;
    ids.push_back(folder.empty() ? id : fs::path(id).lexically_relative(folder).string());
  }
  return ids;
}

using Names = std::vector<std::string>;

TEST_CASE("pictures are listed recursively, sorted, each once") {
  const ScratchFolder folder;
  for (const char* name :
       {"in/b.png", "in/deep/a.JPG", "in/c.webp", "in/notes.txt", "in/deep/.h.png"}) {
    folder.write(name, "x");
  }
  const fs::path in = folder.path() / "in";
  CHECK(ids_of(*open_arguments({(in / "c.webp").string(), in.string(), (in / "deep").string()}),
               in) == Names{"c.webp", "b.png", "deep/a.JPG"});
  CHECK_THROWS_WITH(open_arguments({"/nowhere"}), "/nowhere: no such file or folder");
  fs::create_directories(in / "empty");
  CHECK_THROWS_WITH(open_arguments({(in / "empty").string()}),
                    Contains("empty: no pictures in the folder"));
  CHECK_THROWS_WITH(open_arguments({folder.write("x.csv", "")}),
                    Contains("x.csv: unknown kind of input: wanted pictures, folders, .jsonl"));
  CHECK_THROWS_WITH(open_arguments({folder.write("x.tar.gz", "")}),
                    Contains("x.tar.gz: the archive is compressed: wanted a plain .tar"));
}

TEST_CASE("globs match as in a shell, and ** crosses folders") {
  const ScratchFolder folder;
  for (const char* name :
       {"in/a1.png", "in/a2.png", "in/b.jpg", "in/d/a3.png", "in/d/e/a4.png", "in/.a5.png"}) {
    folder.write(name, "x");
  }
  const fs::path in = folder.path() / "in";
  const auto match = [&](const std::string& pattern) {
    return ids_of(*open_arguments({(in / pattern).string()}), in);
  };
  CHECK(match("*.png") == Names{"a1.png", "a2.png"});
  CHECK(match("a[2-9].png") == Names{"a2.png"});
  CHECK(match("?.jpg") == Names{"b.jpg"});
  CHECK(match("**/*.png") == Names{"a1.png", "a2.png", "d/a3.png", "d/e/a4.png"});
  CHECK(match("**/e/*") == Names{"d/e/a4.png"});
  CHECK(match("d/**") == Names{"d/a3.png", "d/e/a4.png"});
  CHECK(match("d*") == Names{"d/a3.png", "d/e/a4.png"});  // a folder that matches is searched
  CHECK_THROWS_WITH(match("*.gif"), Contains("*.gif: nothing matches the pattern"));
  folder.write("in/odd[1].png", "x");  // a name that only looks like a pattern
  CHECK(match("odd[1].png") == Names{"odd[1].png"});
}

TEST_CASE("a list of paths ends them by lines or NUL bytes") {
  CHECK(ids_of(*open_arguments({"-"}, "a.png\r\n\nb c.png")) == Names{"a.png", "b c.png"});
  CHECK(ids_of(*open_arguments({"-"}, std::string("a\nb.png\0c.png\0", 14))) ==
        Names{"a\nb.png", "c.png"});
  CHECK_THROWS_WITH(open_arguments({"-"}, "\n"), "-: no paths in the list");
}

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

std::string error_of(const std::string& row) {
  const ScratchFolder folder;
  const std::string file = folder.write("b.jsonl", row + "\n");
  return open_arguments({file})->at(0).error;
}

TEST_CASE("what is wrong with one row is its own error") {
  CHECK_THAT(error_of(R"({"image": "a", "images": ["b"]})"), Contains("both 'image' and 'images'"));
  CHECK_THAT(error_of(R"({"image": 3})"),
             Contains("image: wrong type: got number 3, wanted a path"));
  CHECK_THAT(error_of(R"({"question": ["a", "b"]})"),
             Contains("b.jsonl:1: columns: query: wrong type: got array, wanted text"));
  CHECK_THAT(error_of(R"({"question": "a", "prompt": "b"})"),
             Contains("two columns for the query that differ: got 'question' and 'prompt'"));
  CHECK_THAT(error_of(R"({"question": "a", "history": [["x", "y"]]})"),
             Contains("column 'history' can't be used beside 'question'"));
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
        "video a.mp4, image b.png, image c.png, ");
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

std::string request(const std::string& fields, const std::string& picture = "p.png") {
  return R"({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", )" +
         fields +
         R"("messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, )"
         R"({"type": "image_url", "image_url": {"url": ")" +
         picture + R"("}}]}]}})";
}

TEST_CASE("OpenAI requests become entries with overrides, or errors") {
  const ScratchFolder folder;
  const std::string file = folder.write(
      "b.jsonl",
      request(R"("max_tokens": 5, "temperature": 0.5, "stop": "x", "n": 2, "user": "u", )"
              R"("top_p": 1, "seed": 3, "presence_penalty": 0, "tools": null, )",
              "file://a%20b.png") +
          "\n");
  const Entry entry = open_arguments({file})->at(0);
  CHECK(entry.error.empty());
  CHECK(entry.id == "a");
  CHECK(entry.overrides.dump() ==
        R"({"max_new_tokens":5,"temperature":0.5,"stop":["x"],"n":2,"top_p":1,"seed":3})");
  CHECK(entry.columns.dump() == R"({"model":"m"})");
  CHECK(entry.media[0].name == (folder.path() / "a b.png").string());
  REQUIRE(entry.messages.size() == 1);
  CHECK(entry.messages[0].content[1].type == "image");

  CHECK_THAT(error_of(request(R"("logprobs": true, )")),
             Contains("body: unsupported field of the request: got logprobs"));
  CHECK_THAT(
      error_of(request(R"("temperature": 3, )")),
      Contains("body: temperature: unsupported value: got number 3, wanted a number from 0 to 2"));
  CHECK_THAT(error_of(request(R"("max_tokens": 0, )")), Contains("wanted a whole number from 1"));
  CHECK_THAT(error_of(request(R"("max_tokens": 1, "max_completion_tokens": 1, )")),
             Contains("both max_tokens and max_completion_tokens"));
  CHECK_THAT(error_of(request(R"("stop": ["", "a"], )")),
             Contains("a string or up to four of them"));
  CHECK_THAT(error_of(request("", "../p.png")),
             Contains("file outside of the batch file's folder"));
  CHECK_THAT(error_of(request("", "/etc/p.png")),
             Contains("file outside of the batch file's folder"));
  CHECK_THAT(error_of(R"({"custom_id": "a", "url": "/v1/embeddings", "body": {"messages": []}})"),
             Contains("url: unsupported request: got string \"/v1/embeddings\""));
  CHECK_THAT(error_of(R"({"custom_id": "a", "body": {}})"), Contains("body: no messages"));
  CHECK_THAT(error_of(R"({"custom_id": "a", "body": null})"), Contains("body: no messages"));
  CHECK_THAT(error_of(R"({"custom_id": "a", "body": {"messages": null}})"),
             Contains("body: no messages"));
}

TEST_CASE("fields that are null are as if they weren't there, in requests and rows") {
  const ScratchFolder folder;
  const auto entry_of = [&](const std::string& row) {
    std::string line = row;
    std::replace(line.begin(), line.end(), '\n', ' ');
    const Entry entry = open_arguments({folder.write("n.jsonl", line + "\n")})->at(0);
    CHECK(entry.error == "");
    return entry;
  };
  const Entry asked = entry_of(
      R"({"custom_id": null, "method": null, "url": null, "more": null, "body": {"model": null,
          "temperature": 0.70, "top_p": 1.00, "stop": null, "messages": [{"role": "user",
          "name": null, "content": [{"type": "text", "text": "x", "image_url": null},
          {"type": "image_url", "image_url": {"url": "p.png", "detail": null}}]}]}})");
  CHECK(asked.id == folder.at("n.jsonl") + ":1");
  CHECK(asked.columns.dump() == "{}");
  CHECK(asked.overrides.dump() == R"({"temperature":0.7,"top_p":1.0})");
  REQUIRE(asked.media.size() == 1);
  CHECK_FALSE(asked.media[0].is_whole);
  const Entry row = entry_of(R"({"id": null, "custom_id": 5, "image": null, "images": ["p.png"],
      "question": null, "prompt": "q", "messages": null, "system": null, "history": null})");
  CHECK(row.id == "5");
  CHECK(row.question == "q");
  CHECK(row.messages.empty());
  CHECK(row.media.size() == 1);
}

TEST_CASE("a request's picture may be base64 of any kind, and of low detail") {
  const ScratchFolder folder;
  const std::string bytes = load_text(fixture("pictures/square.png"));
  const std::string plain = data::encode_base64(bytes);
  std::string lines, url = plain;
  for (std::size_t i = 0; i < plain.size(); i += 76) lines += plain.substr(i, 76) + "\\r\\n";
  std::replace(url.begin(), url.end(), '+', '-');
  std::replace(url.begin(), url.end(), '/', '_');
  while (url.ends_with('=')) url.pop_back();
  for (const std::string& text : {plain, lines, url}) {
    for (const std::string prefix : {"", "data:image/png;base64,"}) {
      const std::string file = folder.write("b.jsonl", request("", prefix + text) + "\n");
      const Entry entry = open_arguments({file})->at(0);
      CHECK(entry.error.empty());
      REQUIRE(entry.media.size() == 1);
      CHECK(data::read_bytes(entry.media[0]) == bytes);
      CHECK(entry.path.empty());
    }
  }
  // What is neither a picture nor a path costs its own row.
  CHECK_THAT(error_of(request("", "data:image/png;base64," + plain + "=A")),
             Contains("not base64"));
  CHECK_THAT(error_of(request("", std::string(5000, 'A'))), Contains("unusable path"));

  std::string low = request("");
  low.replace(low.find("\"p.png\""), 7, R"("p.png", "detail": "low")");
  CHECK(open_arguments({folder.write("l.jsonl", low + "\n")})->at(0).media[0].is_whole);
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
    return ItemList(open_arguments({file}), std::move(options)).group(0).items.at(0);
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

TEST_CASE("lists and questions may begin with a byte order mark and end lines with CRLF") {
  const ScratchFolder folder;
  CHECK(ids_of(*open_arguments({"-"},
                               "\xEF\xBB\xBF"
                               "a.png\r\nb.png\r\n")) == Names{"a.png", "b.png"});
  const std::string file = folder.write(
      "q.jsonl", "\xEF\xBB\xBF{\"question\":\"a\"}\r\n\r\n{\"id\":\"x\",\"question\":\"b\"}\r");
  const auto questions = load_questions({}, file);
  REQUIRE(questions.size() == 2);
  CHECK(questions[0].text == "a");
  CHECK(questions[1].id == "x");
  const auto source = open_arguments(
      {folder.write("r.jsonl", "\xEF\xBB\xBF{\"id\":\"a\",\"question\":\"q\"}\r\n")});
  CHECK(ids_of(*source) == Names{"a"});
  using namespace std::string_literals;
  CHECK_THROWS_WITH(load_questions({}, folder.write("u.jsonl", "\xFF\xFE{\0"s)),
                    Contains("u.jsonl: the text is not UTF-8: got the byte order mark of UTF-16"));
  CHECK_THROWS_WITH(open_arguments({folder.write("u.jsonl", "\xFF\xFE{\0"s)}),
                    Contains("u.jsonl: the text is not UTF-8: got the byte order mark of UTF-16"));
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
  folder.write("members/001.left.png", square);
  folder.write("members/001.right.png", square);
  folder.write("members/002.mp3", "no picture here");
  folder.write("members/" + deep + ".png", square);
  for (const char* format : {"gnu", "pax", "ustar"}) {
    INFO(format);
    const std::string tar = make_tar(folder, format);
    const auto source = open_arguments({tar});
    CHECK(ids_of(*source) == Names{tar + "/000", tar + "/001", tar + "/" + deep});
    CHECK(source->columns() == Names{"txt", "label"});
    CHECK(source->at(0).columns.dump() == R"({"txt":"a caption"})");
    const Entry second = source->at(1);
    CHECK(second.question == "Who?");
    CHECK(second.columns.dump() == R"({"label":3})");
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
  const ItemGroup group = items.group(0);
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
  CHECK(items.group(1).items[0].ordinal == 3);
  CHECK_THAT(items.group(1).items[0].error,
             Contains("b: the row has no value for a field of the question: got label"));
  CHECK(items.group(1).items[1].error.empty());

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
  CHECK(items.group(0).items.size() == 2);
  CHECK(items.group(2).items[0].ordinal == 3);
  CHECK_THAT(items.group(2).items[1].error, Contains("the row asks nothing (give --question)"));
  const std::string chat =
      folder.write("chat.jsonl", R"({"id": "c", "messages": [{"role": "user", "content": "x"}]})"
                                 "\n");
  const ItemList asked(open_arguments({chat}), {.questions = {{"1", "x"}}});
  CHECK_THAT(asked.group(0).items[0].error,
             Contains("c: the row has its own conversation, and --question was given"));
}

}  // namespace
}  // namespace vlm::infer
