// Files of every kind → rows with their places, what can be wrong with a file, and reading by
// several threads.
#include "data/formats/row_source.h"

#include <cstdlib>
#include <thread>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

using Table = std::vector<std::vector<std::string>>;

// Every row as "line: JSON"; of a row that can't be read the error.
std::vector<std::string> rows_of(const std::string& path) {
  std::vector<std::string> rows;
  const auto source = open_rows(path);
  for (std::int64_t i = 0; i < source->size(); ++i) {
    try {
      const Row row = source->at(i);
      CHECK(row.where == source->where(i));
      CHECK(row.where.starts_with(path));
      rows.push_back(row.where.substr(path.size() + 1) + " " + row.columns.dump());
    } catch (const Error& error) {
      rows.push_back(error.what());
    }
  }
  return rows;
}

std::string open_error(const std::string& path) {
  try {
    open_rows(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

using Rows = std::vector<std::string>;

TEST_CASE("JSONL: CRLF, blank lines, a byte order mark, no end of line at the end") {
  const ScratchFolder scratch;
  const std::string file =
      scratch.write("t.jsonl", "\xEF\xBB\xBF{\"a\":1}\r\n\r\n \t\n{\"a\":2}\n{\"a\"\n{\"a\":4}");
  const Rows rows = rows_of(file);
  REQUIRE(rows.size() == 4);
  CHECK(rows[0] == R"(1 {"a":1})");
  CHECK(rows[1] == R"(4 {"a":2})");
  CHECK_THAT(rows[2], Contains(file + ":5: not valid JSON: got parse error"));
  CHECK(rows[3] == R"(6 {"a":4})");
  // Lines of old systems end with a lone CR.
  CHECK(rows_of(scratch.write("c.jsonl", "{\"a\":1}\r{\"a\":2}\r\r{\"a\":3}")) ==
        Rows{R"(1 {"a":1})", R"(2 {"a":2})", R"(4 {"a":3})"});
  // What a file is, its content says.
  CHECK(rows_of(scratch.write("t.txt", "\n{\"a\":1}\n")) == Rows{R"(2 {"a":1})"});
  CHECK(rows_of(scratch.write("t.json", "{\"a\":1}\n{\"a\":2}\n")).size() == 2);
}

TEST_CASE("a JSON list: elements over several lines, brackets and quotes in strings") {
  const ScratchFolder scratch;
  const std::string text =
      "\xEF\xBB\xBF\n[ {\"a\": \"]},\\\"{[\"},\n\n {\"a\":\n  [1, {\"b\": 2}]}\n,"
      "5, {\"a\": \"x\\\\\"}\n]\n ";
  CHECK(rows_of(scratch.write("t.json", text)) ==
        Rows{R"(2 {"a":"]},\"{["})", R"(4 {"a":[1,{"b":2}]})", "6 5", R"(6 {"a":"x\\"})"});
  CHECK(rows_of(scratch.write("none.json", "[ ]")).empty());
  const auto error = [&](const std::string& bad) {
    return open_error(scratch.write("b.json", bad));
  };
  const std::string file = scratch.at("b.json");
  CHECK(error("[{},\n{}") == file + ":2: the list is not closed");
  CHECK(error("[\"a") == file + ":1: the list is not closed");
  CHECK(error("[") == file + ":1: the list is not closed");
  CHECK(error("[{},\n]") == file + ":2: not an element of a list");
  CHECK(error("[,{}]") == file + ":1: not an element of a list");
  CHECK(error("[{}]\n{}") == file + ":2: text behind the end of the list");
  CHECK(error("[1}, 2]") == file + ":1: not an element of a list");
  CHECK(rows_of(scratch.write("cr.json", "[\r1,\r\n2,\n3]")) == Rows{"2 1", "3 2", "4 3"});
  CHECK_THAT(rows_of(scratch.write("b.json", "[{},\n{\"a\":}]"))[1],
             Contains(file + ":2: not valid JSON"));
}

Table read_csv(std::string_view text) {
  const ScratchFolder scratch;
  const FileBytes file(scratch.write("t.csv", text));
  ByteStream stream(file);
  skip_mark(stream, "f");
  CsvReader reader(stream, "f");
  Table table;
  for (CsvRecord record; reader.next(record);) table.push_back(record.fields);
  return table;
}

TEST_CASE("CSV: quotes, line breaks in fields, CRLF, a byte order mark, empty fields") {
  CHECK(read_csv("a,b\n1,2\n") == Table{{"a", "b"}, {"1", "2"}});
  CHECK(read_csv("\xEF\xBB\xBF"
                 "a,b\r\n\r\n1,2") == Table{{"a", "b"}, {"1", "2"}});
  CHECK(read_csv("\"x, \"\"y\"\"\r\nz\",,\"\"\n,") == Table{{"x, \"y\"\r\nz", "", ""}, {"", ""}});
  CHECK(read_csv("a 5\" pipe,19\" and 21\"\n") == Table{{"a 5\" pipe", "19\" and 21\""}});
  CHECK(read_csv("").empty());
  CHECK(read_csv("a,b\r1,2\r\r\"x\ry\",") == Table{{"a", "b"}, {"1", "2"}, {"x\ry", ""}});
  CHECK_THROWS_WITH(read_csv("a\n\nb,\"b\nc"), "f:3: quote is not closed");
}

TEST_CASE("CSV rows know the line they begin in, and are read alone as in one go") {
  const ScratchFolder scratch;
  const std::string file = scratch.write("t.csv", "a,b\n\"x\ny\",\"1 \"\"2\"\"\"\r\n\nz\n,\"\"\n");
  CHECK(rows_of(file) == Rows{R"(2 {"a":"x\ny","b":"1 \"2\""})",
                              file + ":5: wrong number of fields: got 1, wanted 2",
                              R"(6 {"a":"","b":""})"});
}

TEST_CASE("rows longer than a block of the file, and ends of lines where a block ends") {
  const ScratchFolder scratch;
  for (const std::size_t length : {(1UL << 18) - 10, (1UL << 18) - 9, (1UL << 18) - 8, 600000UL}) {
    const std::string text(length, 'x');
    const std::string row = "{\"a\":\"" + text + "\"}";
    const auto check = [&](const std::string& file) {
      const auto source = open_rows(file);
      REQUIRE(source->size() == 2);
      for (std::int64_t i = 0; i < 2; ++i) CHECK(source->at(i).columns.begin()->size() == 1);
      CHECK(source->at(0).columns["a"] == text);
      CHECK(source->where(1) == file + (file.ends_with("csv") ? ":3" : ":2"));
    };
    check(scratch.write("t.jsonl", row + "\r\n{\"a\":2}"));
    check(scratch.write("t.json", "[" + row + ",\r\n{\"a\":2}]"));
    check(scratch.write("t.csv", "a\r\n\"" + text + "\"\r\n2"));
  }
}

TEST_CASE("a file that is cut short while it is read is an error of its rows") {
  const ScratchFolder scratch;
  const std::string row = "{\"a\":\"" + std::string(10000, 'x') + "\"}";
  for (const std::string& file : {scratch.write("t.jsonl", row + "\n" + row + "\n"),
                                  scratch.write("t.json", "[" + row + "," + row + "]"),
                                  scratch.write("t.csv", "a\n" + std::string(10000, 'y') + "\n" +
                                                             std::string(10000, 'y') + "\n")}) {
    const auto source = open_rows(file);
    REQUIRE(source->size() == 2);
    std::filesystem::resize_file(file, 12000);
    CHECK_NOTHROW(source->at(0));
    CHECK_THROWS_AS(source->at(1), Error);
  }
  const auto source = open_rows(scratch.write("u.jsonl", row));
  std::filesystem::resize_file(scratch.at("u.jsonl"), 0);
  CHECK_THROWS_WITH(source->at(0), scratch.at("u.jsonl") +
                                       ": the file became shorter while it was read: got 0 bytes, "
                                       "wanted at least 10008");
}

TEST_CASE("what is no text is told with its place") {
  const ScratchFolder scratch;
  using namespace std::string_literals;
  const auto error = [&](const std::string& name, const std::string& bytes) {
    const std::string file = scratch.write(name, bytes);
    try {
      for (const std::string& row : rows_of(file)) return row.substr(file.size());
    } catch (const Error& error) {
      return std::string(error.what()).substr(file.size());
    }
    return ""s;
  };
  const std::string utf16 =
      ": the text is not UTF-8: got the byte order mark of UTF-16, wanted UTF-8 (convert it: iconv "
      "-f UTF-16 -t UTF-8)";
  CHECK(error("t.jsonl", "\xFF\xFE{\0}\0"s) == utf16);
  CHECK(error("t.json", "\xFF\xFE[\0]\0"s) == utf16);
  CHECK(error("t.csv", "\xFE\xFF\0a\0\n"s) == utf16);
  CHECK(error("t.csv", "a\n\xE9\n") ==
        ":2: a: the text is not UTF-8 (convert the file, e.g. iconv -f LATIN1 -t UTF-8)");
  CHECK_THAT(error("t.csv", "a\nx\0\n"s), Contains(":2: a:1: a NUL byte in the text"));
  CHECK_THAT(error("t.jsonl", "{\"a\":\"x\0\"}"s), Contains(":1: not valid JSON"));
  CHECK_THROWS_WITH(open_rows("/dev/null"),
                    "/dev/null: not a file with rows: got a pipe or device, wanted a regular file: "
                    "its rows are read in any order");
}

std::string make_tar(const ScratchFolder& folder, const std::string& name) {
  const std::string tar = folder.at(name);
  const std::string command =
      "tar -C '" + folder.at("members") + "' --sort=name -cf '" + tar + "' .";
  REQUIRE(std::system(command.c_str()) == 0);
  return tar;
}

TEST_CASE("tar shards: pictures by key, columns from json, txt and cls") {
  const ScratchFolder folder;
  folder.write("members/d/000.jpg", "one");
  folder.write("members/d/000.txt", "A cat.\n");
  folder.write("members/d/001.cls", "7");
  folder.write("members/d/001.json", R"({"question":"q","n":[1]})");
  folder.write("members/d/001.left.png", "two");
  folder.write("members/d/001.right.png", "three");
  folder.write("members/d/002.npy", "passed over");
  folder.write("members/d/003.json", "[]");
  const std::string tar = make_tar(folder, "shard.bin");  // known by its content
  const auto source = open_rows(tar);
  REQUIRE(source->size() == 3);
  const Row first = source->at(0), second = source->at(1);
  CHECK(first.where == tar + ": d/000");
  CHECK(first.columns == Json{{"txt", "A cat."}});
  REQUIRE(first.members.size() == 1);
  CHECK(read_bytes(first.members[0]) == "one");
  CHECK(second.columns == Json{{"cls", "7"}, {"question", "q"}, {"n", {1}}});
  REQUIRE(second.members.size() == 2);
  CHECK(second.members[0].name == tar + "/d/001.left.png");
  CHECK(read_bytes(second.members[1]) == "three");
  CHECK_THROWS_WITH(source->at(2), tar + "/d/003.json: wrong type: got array, wanted an object");
  CHECK_THAT(open_error(folder.write("no.tar", std::string(2048, 'x'))),
             Contains("no.tar: can't read the archive"));
  const std::string torn = folder.write("torn.tar", load_text(tar).substr(0, 1000));
  CHECK_THAT(open_error(torn), Contains("torn.tar: can't read the archive: got Truncated"));
}

TEST_CASE("rows are the same for several threads at once") {
  const ScratchFolder scratch;
  std::string jsonl, json = "[", csv = "n\n";
  for (int i = 0; i < 500; ++i) {
    const std::string row = "{\"n\":\"" + std::to_string(i) + "\"}";
    jsonl += row + "\n";
    json += (i > 0 ? ",\n" : "") + row;
    csv += std::to_string(i) + "\n";
  }
  for (const std::string& file :
       {scratch.write("t.jsonl", jsonl), scratch.write("t.json", json + "]"),
        scratch.write("t.csv", csv)}) {
    const auto source = open_rows(file);
    REQUIRE(source->size() == 500);
    std::vector<int> wrong(4, 0);
    std::vector<std::thread> threads;
    for (std::size_t thread = 0; thread < wrong.size(); ++thread) {
      threads.emplace_back([&, thread] {
        for (int i = 0; i < 500; ++i) {
          const int index = (i * 7 + static_cast<int>(thread) * 101) % 500;
          if (source->at(index).columns["n"] != std::to_string(index)) ++wrong[thread];
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(wrong == std::vector<int>(4, 0));
  }
}

TEST_CASE("what archivers and systems add to a tar is no sample, and unreadable kinds are told") {
  const ScratchFolder folder;
  for (const char* name : {"000.png", "._000.png", ".DS_Store", "__MACOSX/000.png", "d/._x.json",
                           "001.jxl", "001.json", "002.psd"}) {
    folder.write(std::string("members/") + name, name == std::string("001.json") ? "{}" : "x");
  }
  const std::string tar = make_tar(folder, "mac.tar");
  const auto source = open_rows(tar);
  REQUIRE(source->size() == 2);
  CHECK(source->where(0) == tar + ": 000");
  CHECK(source->at(0).members.size() == 1);
  CHECK(source->where(1) == tar + ": 001");
  CHECK(source->left_out() == KindCounts{{".jxl", 1}, {".psd", 1}});
  // Whoever asks about pictures passes over samples that have none.
  CHECK(open_rows(tar, TarTexts::kNotes)->size() == 1);
}

TEST_CASE("a data file that can't be opened is told as such") {
  const ScratchFolder folder;
  std::filesystem::create_symlink("loop.jsonl", folder.path() / "loop.jsonl");
  CHECK(open_error(folder.at("loop.jsonl")) ==
        folder.at("loop.jsonl") + ": can't open the file: got Too many levels of symbolic links");
  std::filesystem::create_directories(folder.path() / "in");
  std::filesystem::create_symlink("metadata.jsonl", folder.path() / "in/metadata.jsonl");
  CHECK_THAT(open_error(folder.at("in")),
             Contains("metadata.jsonl: ") && Contains("Too many levels of symbolic links"));
}

}  // namespace
}  // namespace vlm::data
