// Files of rows of every kind through the program: asked, evaluated, killed, changed.
#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "tests/e2e/killed_run.h"
#include "tests/support/catch.h"
#include "tests/support/run_program.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

const std::string kModel =
    " --model tests/fixtures/smolvlm_tiny --device cpu --threads 1 "
    "--max-new-tokens 2 --batch-size 2 ";

std::vector<Json> rows_in(const fs::path& path) {
  std::istringstream in(read_file(path));
  std::vector<Json> rows;
  for (std::string line; std::getline(in, line);) rows.push_back(parse_json(line, path.string()));
  return rows;
}

// What each row was called and asked, and whether it was answered.
std::string outline(const fs::path& path) {
  std::string text;
  for (const Json& row : rows_in(path)) {
    text += row["id"].get<std::string>() + " " + row.value("question", "-") + " " +
            (row.contains("error") ? "error" : "text") + "\n";
  }
  return text;
}

TEST_CASE("rows of every kind of file are asked and evaluated") {
  const ScratchFolder folder;
  const std::string picture = fixture("pictures/square.png").string();
  const auto row = [&](const std::string& id, const std::string& image) {
    const Json columns = {
        {"id", id}, {"image", image}, {"question", "Who, " + id + "?"}, {"answer", "a cat"}};
    return columns.dump();
  };
  const std::string rows =
      row("a", picture) + ",\n" + row("b", "nowhere.png") + ",\n" + row("c", "");
  std::string lines = rows;
  for (std::size_t at; (at = lines.find(",\n")) != std::string::npos;) lines.erase(at, 1);
  const std::string cells = "id,image,question,answer\na," + picture +
                            ",\"Who, a?\",a cat\nb,nowhere.png,\"Who, b?\",a cat\n"
                            "c,,\"Who, c?\",a cat\n";
  for (const std::string& file :
       {folder.write("r.jsonl", lines), folder.write("r.json", "[" + rows + "]"),
        folder.write("r.csv", cells), (folder.write("in/metadata.csv", cells), folder.at("in"))}) {
    INFO(file);
    const std::string out = folder.at("out.jsonl");
    const auto asked = run_vlm("vqa " + file + kModel + "--restart --output " + out);
    INFO(asked.err);
    CHECK(asked.code == 3);
    CHECK(outline(out) == "a Who, a? text\nb Who, b? error\nc Who, c? text\n");
    CHECK(rows_in(out).at(0)["answer"] == "a cat");
    CHECK(rows_in(out).at(0)["path"] == picture);
    const auto scored = run_vlm("evaluate " + file + kModel + "--restart --output " + out);
    INFO(scored.err);
    CHECK(scored.code == 3);
    CHECK(outline(out) == "0 Who, a? text\n1 Who, b? error\n2 Who, c? text\n");
    CHECK_THAT(scored.out, Contains("\"total\":3,\"errors\":1"));
    const auto captions = run_vlm("caption " + file + kModel + "--restart --prompt 'Say {id}.' " +
                                  "--id-column '' --output " + out);
    CHECK(captions.code == 3);
    CHECK_THAT(rows_in(out).at(0)["id"].get<std::string>(), Contains(":"));
    CHECK(rows_in(out).at(2)["input_id"] == "c");
  }
}

TEST_CASE("columns of other names are named on the command line, alike in every command") {
  const ScratchFolder folder;
  const std::string file =
      folder.write("r.csv", "key,foto,frage,antwort\nk,square.png,Wer?,a cat\n");
  const std::string maps = " --field-map images=foto --field-map query=frage --image-folder " +
                           fixture("pictures").string() + kModel + "--output " +
                           folder.at("out.jsonl");
  const auto asked = run_vlm("vqa " + file + maps + " --id-column key");
  INFO(asked.err);
  REQUIRE(asked.code == 0);
  CHECK(outline(folder.at("out.jsonl")) == "k Wer? text\n");
  // Rows that were read otherwise aren't gone on with.
  const auto other = run_vlm("vqa " + file + maps + " --id-column key --field-map context=antwort");
  CHECK(other.code == 1);
  CHECK_THAT(other.err, Contains("--field-map"));
  const auto scored =
      run_vlm("evaluate " + file + maps + " --restart --field-map response=antwort");
  INFO(scored.err);
  REQUIRE(scored.code == 0);
  CHECK(outline(folder.at("out.jsonl")) == "0 Wer? text\n");
  const auto wrong = run_vlm("vqa " + file + maps + " --field-map frage");
  CHECK(wrong.code == 2);
  CHECK_THAT(wrong.err, Contains("not a column's name: got 'frage', wanted OURS=THEIRS"));
  CHECK_THAT(run_vlm("vqa " + file + maps + " --field-map bild=foto").err,
             Contains("unknown column 'bild'"));
}

TEST_CASE("tables are asked, killed and gone on with; a changed one is noticed") {
  const ScratchFolder folder;
  for (const std::string name : {"asked.parquet", "asked.arrow"}) {
    INFO(name);
    const fs::path table = folder.path() / name;
    fs::copy_file(fixture("tables/" + name), table);
    const std::string command = "vqa " + table.string() + kModel + "--output ";
    const fs::path whole = folder.path() / (name + ".whole.jsonl"),
                   output = folder.at(name + ".jsonl");
    REQUIRE(run_vlm(command + whole.string()).code == 3);
    const auto rows = rows_in(whole);
    REQUIRE(rows.size() == 12);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      CHECK(rows[i]["id"] == "r" + std::to_string(i));
      CHECK(rows[i].contains("error") == (i == 6));
      CHECK_FALSE(rows[i].contains("path"));
      CHECK_FALSE(rows[i].contains("hash"));
    }
    CHECK_THAT(rows[6]["error"].get<std::string>(), Contains("not a picture"));
    std::mt19937 random(5);
    int kills = 0;
    for (int i = 0; i < 4; ++i) kills += kill_at_random(command + output.string(), output, random);
    CHECK(kills > 0);
    REQUIRE(run_vlm(command + output.string()).code == 3);
    CHECK(outline(output) == outline(whole));

    std::string bytes = read_file(table);
    bytes.replace(bytes.find("What is it, 5?"), 14, "What is it, 6?");
    std::ofstream(table, std::ios::binary) << bytes;
    for (const std::string verb : {"", " --allow-changes"}) {
      const auto changed = run_vlm(command + output.string() + verb);
      CHECK(changed.code == 1);
      CHECK_THAT(changed.err, Contains("inputs"));
    }
    CHECK(outline(output) == outline(whole));
    const auto scored = run_vlm("evaluate " + table.string() + kModel + "--output " +
                                folder.at(name + ".scored.jsonl"));
    CHECK(scored.code == 3);
    CHECK_THAT(scored.out, Contains("\"total\":12,\"errors\":1"));
  }
}

TEST_CASE("shards of a table, gathered, are one run") {
  const ScratchFolder folder;
  const std::string command = "evaluate tests/fixtures/tables/asked.parquet" + kModel + "--output ";
  REQUIRE(run_vlm(command + folder.at("whole.jsonl")).code == 3);
  for (const std::string shard : {"0/2", "1/2"}) {
    CHECK(run_vlm(command + folder.at("parts.jsonl") + " --shard " + shard).code != 1);
  }
  const auto gathered = run_vlm("gather " + folder.at("parts.jsonl"));
  INFO(gathered.err);
  CHECK(outline(folder.at("parts.jsonl")) == outline(folder.at("whole.jsonl")));
}

}  // namespace
}  // namespace vlm
