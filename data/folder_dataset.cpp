#include "data/folder_dataset.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm::data {
namespace {

namespace fs = std::filesystem;

struct Row {
  std::string file_name;
  std::string text;
  std::string where;
};

std::string field_of(const Json& row, const std::string& key, const std::string& where) {
  const auto found = row.is_object() ? row.find(key) : row.end();
  if (!row.is_object() || found == row.end() || !found->is_string()) {
    throw Error(
        {.what = concat("no text in column '", key, "'"), .where = where, .got = describe(row)});
  }
  return found->get<std::string>();
}

std::vector<Row> read_jsonl(const fs::path& path, const std::string& text_column) {
  std::vector<Row> rows;
  const std::string text = load_text(path);
  std::int64_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    const std::string where = concat(path.string(), ":", ++number);
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const Json row = parse_json(line, where);
    rows.push_back({field_of(row, "file_name", where), field_of(row, text_column, where), where});
  }
  return rows;
}

std::size_t find_column(const std::vector<std::string>& header, const std::string& name,
                        const fs::path& path) {
  const auto found = std::find(header.begin(), header.end(), name);
  if (found != header.end()) return static_cast<std::size_t>(found - header.begin());
  throw Error({.what = concat("no column '", name, "'"),
               .where = path.string(),
               .got = concat("columns ", join(header))});
}

std::vector<Row> read_csv(const fs::path& path, const std::string& text_column) {
  const auto table = parse_csv(load_text(path), path.string());
  if (table.empty()) return {};
  const std::size_t file = find_column(table[0], "file_name", path);
  const std::size_t text = find_column(table[0], text_column, path);
  std::vector<Row> rows;
  for (std::size_t i = 1; i < table.size(); ++i) {
    const std::string where = concat(path.string(), ": row ", i);
    if (table[i].size() != table[0].size()) {
      throw Error({.what = "wrong number of fields",
                   .where = where,
                   .got = concat(table[i].size()),
                   .wanted = concat(table[0].size())});
    }
    rows.push_back({table[i][file], table[i][text], where});
  }
  return rows;
}

class FolderDataset : public Dataset {
 public:
  FolderDataset(fs::path folder, std::vector<Row> rows, std::string prompt)
      : folder_(std::move(folder)), rows_(std::move(rows)), prompt_(std::move(prompt)) {}

  std::int64_t size() const override { return static_cast<std::int64_t>(rows_.size()); }

  Sample at(std::int64_t index) const override {
    const Row& row = rows_.at(static_cast<std::size_t>(index));
    std::vector<ContentPart> question = {{.type = "image"}};
    if (!prompt_.empty()) question.push_back({.type = "text", .text = prompt_});
    return {.messages = {{.role = "user", .content = std::move(question)},
                         {.role = "assistant", .content = {{.type = "text", .text = row.text}}}},
            .images = {folder_ / row.file_name},
            .where = row.where};
  }

 private:
  fs::path folder_;
  std::vector<Row> rows_;
  std::string prompt_;
};

}  // namespace

std::unique_ptr<Dataset> load_folder_dataset(const fs::path& folder, const FolderOptions& options) {
  std::vector<Row> rows;
  if (fs::exists(folder / "metadata.jsonl")) {
    rows = read_jsonl(folder / "metadata.jsonl", options.text_column);
  } else if (fs::exists(folder / "metadata.csv")) {
    rows = read_csv(folder / "metadata.csv", options.text_column);
  } else {
    throw Error({.what = "a picture folder needs metadata.jsonl or metadata.csv",
                 .where = folder.string()});
  }
  return std::make_unique<FolderDataset>(folder, std::move(rows), options.prompt);
}

std::vector<std::vector<std::string>> parse_csv(std::string_view text, const std::string& where) {
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> row;
  std::string field;
  bool quoted = false, any = false;
  const auto end_row = [&] {
    if (!any) return;  // an empty line
    row.push_back(std::move(field));
    rows.push_back(std::move(row));
    row.clear();
    field.clear();
    any = false;
  };
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c != '"') {
        field += c;
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        field += text[++i];
      } else {
        quoted = false;
      }
    } else if (c == '"' && field.empty()) {  // further on it is a character like others: 5" wide
      quoted = any = true;
    } else if (c == ',') {
      row.push_back(std::move(field));
      field.clear();
      any = true;
    } else if (c == '\n') {
      end_row();
    } else if (c != '\r') {
      field += c;
      any = true;
    }
  }
  if (quoted) throw Error({.what = "quote is not closed", .where = where});
  end_row();
  return rows;
}

}  // namespace vlm::data
