#include "data/formats/row_source.h"

#include <set>

#include "data/formats/file_bytes.h"
#include "vlm/core/error.h"
#include "vlm/core/text_file.h"

namespace vlm::data {
namespace {

namespace fs = std::filesystem;

// The first bytes; a tar's mark lies at 257.
std::string load_start(const fs::path& path) {
  std::string start(4096, '\0');
  start.resize(FileBytes(path.string()).read_some(0, start.data(), start.size()));
  return start;
}

// One that is there but can't be opened is told of by who opens it.
bool holds(const fs::path& folder, const char* name) {
  std::error_code unknown;
  return fs::symlink_status(folder / name, unknown).type() != fs::file_type::not_found;
}

std::unique_ptr<RowSource> open_folder_rows(const fs::path& folder) {
  if (holds(folder, "metadata.jsonl")) return open_jsonl_rows(folder / "metadata.jsonl");
  if (holds(folder, "metadata.csv")) return open_csv_rows(folder / "metadata.csv");
  throw Error(
      {.what = "a picture folder needs metadata.jsonl or metadata.csv", .where = folder.string()});
}

}  // namespace

bool has_rows_suffix(const fs::path& path) {
  static const std::set<std::string> kSuffixes = {".jsonl", ".ndjson",  ".json", ".csv",
                                                  ".tar",   ".parquet", ".arrow"};
  return kSuffixes.contains(path.extension().string());
}

bool is_rows_folder(const fs::path& path) {
  const auto has = [&](const char* name) {
    std::error_code unknown;  // of a locked folder
    const fs::file_type type = fs::symlink_status(path / name, unknown).type();
    return type != fs::file_type::not_found && type != fs::file_type::none;
  };
  return has("metadata.jsonl") || has("metadata.csv");
}

std::unique_ptr<RowSource> open_rows(const fs::path& path, TarTexts texts) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return open_folder_rows(path);
  const std::string start = load_start(path);
  const fs::path suffix = path.extension();
  if (start.starts_with("PAR1")) return open_parquet_rows(path);
  if (suffix == ".arrow" || start.starts_with("ARROW1")) return open_arrow_rows(path);
  if (suffix == ".tar" || (start.size() > 262 && start.compare(257, 5, "ustar") == 0)) {
    return open_tar_rows(path, texts);
  }
  if (suffix == ".csv") return open_csv_rows(path);
  const std::string_view bytes = std::string_view(start).substr(mark_size(start, path.string()));
  const auto first = bytes.find_first_not_of(" \t\r\n");
  const char letter = first == std::string_view::npos ? '\0' : bytes[first];
  const bool is_jsonl = suffix == ".jsonl" || suffix == ".ndjson";
  if (letter == '[' && !is_jsonl) return open_json_rows(path);
  if (letter == '{' || is_jsonl) return open_jsonl_rows(path);
  if (suffix == ".json" && letter == '\0') return open_jsonl_rows(path);  // empty
  throw Error(
      {.what = "unknown kind of data file",
       .where = path.string(),
       .wanted =
           "JSONL, a JSON list, .csv, .tar, .parquet, .arrow, or a folder with metadata.jsonl or "
           "metadata.csv"});
}

}  // namespace vlm::data
