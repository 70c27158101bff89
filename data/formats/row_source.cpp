#include "data/formats/row_source.h"

#include <fstream>

#include "vlm/core/error.h"

namespace vlm::data {
namespace {

namespace fs = std::filesystem;

// The first bytes; a tar's mark lies at 257.
std::string load_start(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Error({.what = "can't open the file", .where = path.string()});
  std::string start(4096, '\0');
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  start.resize(static_cast<std::size_t>(in.gcount()));
  return start;
}

std::unique_ptr<RowSource> open_folder_rows(const fs::path& folder) {
  if (fs::exists(folder / "metadata.jsonl")) return open_jsonl_rows(folder / "metadata.jsonl");
  if (fs::exists(folder / "metadata.csv")) return open_csv_rows(folder / "metadata.csv");
  throw Error(
      {.what = "a picture folder needs metadata.jsonl or metadata.csv", .where = folder.string()});
}

}  // namespace

std::unique_ptr<RowSource> open_rows(const fs::path& path) {
  if (fs::is_directory(path)) return open_folder_rows(path);
  const std::string start = load_start(path);
  const fs::path suffix = path.extension();
  if (start.starts_with("PAR1")) return open_parquet_rows(path);
  if (suffix == ".arrow" || start.starts_with("ARROW1")) return open_arrow_rows(path);
  if (suffix == ".tar" || (start.size() > 262 && start.compare(257, 5, "ustar") == 0)) {
    return open_tar_rows(path);
  }
  if (suffix == ".csv") return open_csv_rows(path);
  const std::string_view bytes = start;
  const auto first = bytes.find_first_not_of(
      bytes.starts_with("\xEF\xBB\xBF") ? "\xEF\xBB\xBF \t\r\n" : " \t\r\n");
  const char letter = first == std::string_view::npos ? '\0' : bytes[first];
  if (letter == '[' && suffix != ".jsonl") return open_json_rows(path);
  if (letter == '{' || suffix == ".jsonl") return open_jsonl_rows(path);
  if (suffix == ".json" && letter == '\0') return open_jsonl_rows(path);  // empty
  throw Error({.what = "unknown kind of data file",
               .where = path.string(),
               .wanted = "JSONL, a JSON list, .csv, .tar, .parquet, .arrow, or a folder with metadata.jsonl or "
                         "metadata.csv"});
}

}  // namespace vlm::data
