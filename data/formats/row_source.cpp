#include "data/formats/row_source.h"

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

std::unique_ptr<RowSource> open_folder_rows(const fs::path& folder) {
  std::error_code ignored;  // one that is there but can't be opened is told of by who opens it
  const auto holds = [&](const char* name) {
    return fs::symlink_status(folder / name, ignored).type() != fs::file_type::not_found;
  };
  if (holds("metadata.jsonl")) return open_jsonl_rows(folder / "metadata.jsonl");
  if (holds("metadata.csv")) return open_csv_rows(folder / "metadata.csv");
  throw Error(
      {.what = "a picture folder needs metadata.jsonl or metadata.csv", .where = folder.string()});
}

}  // namespace

std::unique_ptr<RowSource> open_rows(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return open_folder_rows(path);
  const std::string start = load_start(path);
  const fs::path suffix = path.extension();
  if (start.starts_with("PAR1")) return open_parquet_rows(path);
  if (suffix == ".arrow" || start.starts_with("ARROW1")) return open_arrow_rows(path);
  if (suffix == ".tar" || (start.size() > 262 && start.compare(257, 5, "ustar") == 0)) {
    return open_tar_rows(path);
  }
  if (suffix == ".csv") return open_csv_rows(path);
  const std::string_view bytes = std::string_view(start).substr(mark_size(start, path.string()));
  const auto first = bytes.find_first_not_of(" \t\r\n");
  const char letter = first == std::string_view::npos ? '\0' : bytes[first];
  if (letter == '[' && suffix != ".jsonl") return open_json_rows(path);
  if (letter == '{' || suffix == ".jsonl") return open_jsonl_rows(path);
  if (suffix == ".json" && letter == '\0') return open_jsonl_rows(path);  // empty
  throw Error(
      {.what = "unknown kind of data file",
       .where = path.string(),
       .wanted =
           "JSONL, a JSON list, .csv, .tar, .parquet, .arrow, or a folder with metadata.jsonl or "
           "metadata.csv"});
}

}  // namespace vlm::data
