#include "tests/combinations/training_data.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/catch.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

struct Row {
  std::vector<std::string> pictures, clips;
  std::string question, answer;
};

const std::vector<std::string> kQuestions = {"What?", "Where is it?", "Which way?",
                                             "How many are there?"};
const std::vector<std::string> kAnswers = {
    "a cat", "two dogs", "left", "17", "in the very old house", "yes"};

std::string draw_picture(Dice& dice) {
  return fixture("pictures/" + dice.pick({"square.png", "wide.png", "tall.png"})).string();
}

std::vector<Row> draw_rows(Dice& dice, const DrawnMedia& media) {
  const double text_share = dice.chance(0.3) ? 0.4 : 0;
  const double clip_share = media.clips ? 0.5 : 0;
  std::vector<Row> rows;
  for (int i = 0; i < media.rows; ++i) {
    Row row{.question = dice.pick(kQuestions), .answer = dice.pick(kAnswers)};
    if (dice.chance(clip_share)) {
      const std::string clip = dice.pick({"left", "right", "up", "down"}) + ".mp4";
      row.clips = {(fs::path(VLM_SOURCE_DIR) / "examples/clips" / clip).string()};
    } else if (!dice.chance(text_share)) {
      row.pictures = {draw_picture(dice)};
      if (dice.chance(0.15)) row.pictures.push_back(draw_picture(dice));
    }
    rows.push_back(row);
  }
  return rows;
}

Json messages_of(const Row& row) {
  Json content = Json::array();
  for (std::size_t i = 0; i < row.pictures.size(); ++i) content.push_back({{"type", "image"}});
  for (std::size_t i = 0; i < row.clips.size(); ++i) content.push_back({{"type", "video"}});
  content.push_back({{"type", "text"}, {"text", row.question}});
  return {{{"role", "user"}, {"content", content}},
          {{"role", "assistant"}, {"content", {{{"type", "text"}, {"text", row.answer}}}}}};
}

// A row in one of the layouts of docs/finetuning.md.
Json to_json(const Row& row, const std::string& layout) {
  Json json = Json::object();
  if (layout == "messages") {
    json["messages"] = messages_of(row);
  } else if (layout == "conversations") {
    json["conversations"] = {{{"from", "human"}, {"value", row.question}},
                             {{"from", "gpt"}, {"value", row.answer}}};
  } else if (layout == "prompt_completion") {
    json["prompt"] = row.question;
    json["completion"] = row.answer;
  } else {
    json["question"] = row.question;
    json["answer"] = row.answer;
  }
  if (!row.pictures.empty()) json["images"] = row.pictures;
  if (!row.clips.empty()) json["videos"] = row.clips;
  return json;
}

std::string write_csv(const std::vector<Row>& rows, const fs::path& path) {
  std::ofstream out(path);
  out << "image,question,answer\n";
  for (const Row& row : rows) {
    const std::string picture = row.pictures.empty() ? "" : row.pictures[0];
    out << picture << ",\"" << row.question << "\",\"" << row.answer << "\"\n";
  }
  return path.string();
}

// Pictures beside a metadata.jsonl.
std::string write_folder(const std::vector<Row>& rows, const fs::path& folder) {
  fs::create_directories(folder);
  std::ofstream out(folder / "metadata.jsonl");
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].pictures.empty()) continue;
    const std::string name = "p" + std::to_string(i) + ".png";
    fs::copy_file(rows[i].pictures[0], folder / name);
    const Json json = {
        {"file_name", name}, {"question", rows[i].question}, {"text", rows[i].answer}};
    out << json.dump() << "\n";
  }
  return folder.string();
}

std::string write_json(const std::vector<Row>& rows, const std::string& layout, bool as_list,
                       const fs::path& path) {
  std::ofstream out(path);
  Json list = Json::array();
  for (const Row& row : rows) {
    if (as_list) {
      list.push_back(to_json(row, layout));
    } else {
      out << to_json(row, layout).dump() << "\n";
    }
  }
  if (as_list) out << list.dump(1);
  return path.string();
}

std::string write_file(Dice& dice, const std::vector<Row>& rows, const fs::path& path) {
  bool has_clips = false, has_pictures = false;
  for (const Row& row : rows) {
    has_clips = has_clips || !row.clips.empty();
    has_pictures = has_pictures || !row.pictures.empty();
  }
  const int kind = dice.between(0, 9);
  if (kind == 0 && !has_clips) return write_csv(rows, path.string() + ".csv");
  if (kind == 1 && !has_clips && has_pictures) return write_folder(rows, path);
  const std::string layout =
      dice.pick({"messages", "conversations", "prompt_completion", "query_response"});
  const bool as_list = dice.chance(0.3);
  return write_json(rows, layout, as_list, path.string() + (as_list ? ".json" : ".jsonl"));
}

}  // namespace

Json draw_data_files(Dice& dice, const fs::path& folder, const DrawnMedia& media) {
  fs::create_directories(folder);
  Json files = Json::array();
  const int count = dice.chance(0.3) ? 2 : 1;
  for (int i = 0; i < count; ++i) {
    const std::string name = "part" + std::to_string(i);
    const std::string path = write_file(dice, draw_rows(dice, media), folder / name);
    if (dice.chance(0.2)) {
      files.push_back({{"path", path}, {"weight", dice.pick(std::vector<double>{0.5, 1, 2})}});
    } else {
      files.push_back(path);
    }
  }
  return files;
}

}  // namespace vlm
