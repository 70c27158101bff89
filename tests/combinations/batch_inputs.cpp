#include "tests/combinations/batch_inputs.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/run_program.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

// Small pictures under odd names, one perhaps broken; their paths.
std::vector<fs::path> write_pictures(Dice& dice, const fs::path& folder) {
  fs::create_directories(folder / "deep/er");
  std::vector<std::string> names = {"a.png",      "b b.png",       "\xc3\xbc.png", "deep/c.png",
                                    "deep/a.png", "deep/er/d.png", "e'.png",       "f,g.png",
                                    "{h}.png",    "#i.png"};
  dice.shuffle(names);
  names.resize(static_cast<std::size_t>(dice.between(4, 9)));
  std::vector<fs::path> pictures;
  for (const std::string& name : names) {
    const fs::path path = folder / name;
    fs::copy_file(fixture("pictures/" + dice.pick({"square.png", "wide.png", "tall.png"})), path);
    pictures.push_back(path);
  }
  if (dice.chance(0.4)) std::ofstream(pictures[dice.below(pictures.size())]) << "no picture";
  std::ofstream(folder / "notes.txt") << "not looked at";
  return pictures;
}

// What lies beside pictures in people's folders.
void add_oddities(Dice& dice, const fs::path& folder) {
  if (dice.chance(0.2)) fs::copy_file(fixture("pictures/wide.png"), folder / "\xff\xfe.png");
  if (dice.chance(0.2)) fs::copy_file(fixture("pictures/wide.png"), folder / "._a.png");
  if (dice.chance(0.2)) std::ofstream(folder / ".DS_Store") << "x";
  if (dice.chance(0.2)) std::ofstream(folder / "photo.jxl") << "x";
  if (dice.chance(0.2)) fs::create_symlink("loop.png", folder / "loop.png");
  if (dice.chance(0.2)) fs::create_directory_symlink(folder, folder / "deep/again");
  if (dice.chance(0.2)) std::ofstream(folder / "empty.png").flush();
}

// Text as other systems write it: a byte order mark, other ends of lines.
void write_as_elsewhere(Dice& dice, const fs::path& path) {
  if (!dice.chance(0.25)) return;
  std::string text = "\xef\xbb\xbf" + read_file(path);
  for (std::size_t at = 0; (at = text.find('\n', at)) != std::string::npos; at += 2) {
    text.insert(at, 1, '\r');
  }
  std::ofstream(path, std::ios::binary) << text;
}

const std::vector<std::string> kAsked = {"What?", "Where is it?", "How many?", "Which colour?"};

Json messages_about(const std::string& picture, const std::string& question, bool is_openai) {
  const Json image = is_openai ? Json{{"type", "image_url"}, {"image_url", {{"url", picture}}}}
                               : Json{{"type", "image"}, {"path", picture}};
  return {{{"role", "user"}, {"content", {image, {{"type", "text"}, {"text", question}}}}}};
}

Json draw_row(Dice& dice, const std::string& picture, const std::string& id,
              const std::string& kind) {
  const std::string question = dice.pick(kAsked);
  if (dice.chance(0.08)) return {{"id", id}, {"image", 5}, {"question", question}};
  if (kind == "messages")
    return {{"id", id}, {"messages", messages_about(picture, question, false)}};
  if (kind == "openai") {
    Json body = {{"model", "m"}, {"messages", messages_about(picture, question, true)}};
    if (dice.chance(0.3)) body["max_tokens"] = 2;
    if (dice.chance(0.2)) body["temperature"] = 0;
    return {{"custom_id", id}, {"method", "POST"}, {"url", "/v1/chat/completions"}, {"body", body}};
  }
  return {{"id", id}, {"image", picture}, {"question", question}, {"number", dice.between(0, 9)}};
}

// The rows as a table of text: one that has no such column has an empty cell.
std::string to_csv(const std::vector<Json>& rows) {
  std::string text = "id,image,question,number\n";
  for (const Json& row : rows) {
    for (const char* name : {"id", "image", "question", "number"}) {
      const Json value = row.value(name, Json(""));
      const std::string cell = value.is_string() ? value.get<std::string>() : value.dump();
      text += "\"" + cell + (std::string(name) == "number" ? "\"\n" : "\",");
    }
  }
  return text;
}

// As the suffix of the file wants it, a row a line.
std::string to_text(const std::vector<Json>& rows, const std::string& suffix) {
  if (suffix == ".csv") return to_csv(rows);
  std::string text = suffix == ".json" ? "[" : "";
  for (const Json& row : rows) {
    const bool has_comma = suffix == ".json" && &row != &rows.back();
    text += row.dump() + (has_comma ? ",\n" : "\n");
  }
  return text + (suffix == ".json" ? "]" : "");
}

BatchInputs write_rows(Dice& dice, const fs::path& folder, const std::vector<fs::path>& pictures) {
  const std::string kind = dice.pick({"columns", "messages", "openai"});
  const std::string suffix =
      kind == "columns" ? dice.pick({".jsonl", ".json", ".csv"}) : std::string(".jsonl");
  const fs::path path = folder / ("rows" + suffix);
  std::vector<Json> drawn;
  for (std::size_t i = 0; i < pictures.size(); ++i) {
    const std::string picture = pictures[i].lexically_relative(folder).string();
    const int rows = dice.between(1, 2);
    for (int row = 0; row < rows; ++row) {
      const std::string id = "r" + std::to_string(i) + "." + std::to_string(row);
      drawn.push_back(draw_row(dice, picture, id, kind));
    }
  }
  std::ofstream(path) << to_text(drawn, suffix);
  write_as_elsewhere(dice, path);
  return {.paths = {path.string()}, .asks = true, .rows = path};
}

BatchInputs write_list(Dice& dice, const fs::path& folder, const std::vector<fs::path>& pictures) {
  const fs::path list = folder / "list";
  std::ofstream out(list);
  for (const fs::path& picture : pictures) out << picture.string() << "\n";
  out << (folder / "in/nowhere.png").string() << "\n";
  out.close();
  write_as_elsewhere(dice, list);
  return {.paths = {"-"}, .list = list, .has_files = true};
}

// A tar of the system's own program.
BatchInputs write_tar(const fs::path& folder) {
  const fs::path tar = folder / "shard.tar";
  const auto made = run_shell("tar --sort=name -cf '" + tar.string() + "' in", folder);
  REQUIRE(made.code == 0);
  return {.paths = {tar.string()}};
}

}  // namespace

BatchInputs draw_picture_inputs(Dice& dice, const fs::path& folder) {
  const fs::path in = folder / "in";
  const auto pictures = write_pictures(dice, in);
  const int kind = dice.between(0, 6);
  if (kind < 2 || kind > 4) add_oddities(dice, in);
  switch (kind) {
    case 0:
      return {.paths = {(in / "**/*.png").string()}, .has_files = true, .folder = in};
    case 1:
      return write_list(dice, folder, pictures);
    case 2:
      return write_tar(folder);
    case 3:
    case 4:
      return write_rows(dice, folder, pictures);
    case 5:
      return {.paths = {pictures[0].string(), in.string()}, .has_files = true, .folder = in};
    default:
      return {.paths = {in.string()}, .has_files = true, .folder = in};
  }
}

BatchInputs draw_evaluation_inputs(Dice& dice, const fs::path& folder) {
  const auto pictures = write_pictures(dice, folder / "in");
  const bool is_csv = dice.chance(0.4);
  const fs::path path = folder / (is_csv ? "data.csv" : "data.jsonl");
  std::ofstream out(path);
  if (is_csv) out << "image,question,answer\n";
  for (const fs::path& picture : pictures) {
    const std::string question = dice.pick(kAsked),
                      answer = dice.pick({"a cat", "7", "yes, \"it\" is"});
    if (is_csv) {
      std::string quoted = answer;
      for (std::size_t at = 0; (at = quoted.find('"', at)) != std::string::npos; at += 2) {
        quoted.insert(at, 1, '"');
      }
      out << '"' << picture.string() << "\"," << question << ",\"" << quoted << "\"\n";
    } else {
      const Json row = {{"image", picture.string()}, {"question", question}, {"answer", answer}};
      out << row.dump() << "\n";
    }
  }
  out.close();
  write_as_elsewhere(dice, path);
  return {.paths = {path.string()}, .asks = true, .rows = path};
}

BatchInputs draw_video_inputs(Dice& dice, const fs::path& folder) {
  const fs::path in = folder / "in";
  fs::create_directories(in);
  for (const std::string name : {"left", "up", "right"}) {
    fs::copy_file(fs::path(VLM_SOURCE_DIR) / "examples/clips" / (name + ".mp4"),
                  in / (name + ".mp4"));
  }
  if (dice.chance(0.4)) std::ofstream(in / "broken.mp4") << "no video";
  return {.paths = {in.string()}, .has_files = true, .folder = in};
}

}  // namespace vlm
