#include "infer/server/page/training_log.h"

#include <sys/stat.h>

#include <charconv>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

constexpr std::int64_t kMostRead = 1 << 20;  // at once

// The bytes of the file from there on, up to the end of the last whole line.
std::string read_lines(const std::filesystem::path& path, std::int64_t from) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes(static_cast<std::size_t>(kMostRead), '\0');
  file.seekg(from);
  file.read(bytes.data(), kMostRead);
  if (!file && !file.eof()) throw Error({.what = "the training's metrics.jsonl can't be read"});
  bytes.resize(static_cast<std::size_t>(file.gcount()));
  const bool is_endless =
      static_cast<std::int64_t>(bytes.size()) == kMostRead && bytes.find('\n') == std::string::npos;
  if (is_endless) throw Error({.what = "the training's metrics.jsonl has a line over 1 MB"});
  bytes.resize(bytes.rfind('\n') + 1);  // npos + 1 = 0
  return bytes;
}

bool is_behind_line(const std::filesystem::path& path, std::int64_t place) {
  std::ifstream file(path, std::ios::binary);
  file.seekg(place - 1);
  return file.get() == '\n';
}

}  // namespace

TrainingPlace parse_training_place(const std::string& query) {
  TrainingPlace place;
  for (std::size_t at = 0; at < query.size();) {
    const std::size_t end = std::min(query.find('&', at), query.size());
    const std::string_view part = std::string_view(query).substr(at, end - at);
    if (part.starts_with("file=")) place.file = part.substr(5);
    if (part.starts_with("from=")) {
      std::from_chars(part.data() + 5, part.data() + part.size(), place.byte);
    }
    at = end + 1;
  }
  return place;
}

OrderedJson read_training(const std::string& folder, const TrainingPlace& place) {
  const std::filesystem::path path = std::filesystem::path(folder) / "metrics.jsonl";
  OrderedJson answer = {
      {"file", ""}, {"from", 0}, {"next", 0}, {"size", 0}, {"rows", OrderedJson::array()}};
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0) return answer;
  if (!S_ISREG(status.st_mode)) throw Error({.what = "the training's metrics.jsonl is no file"});
  answer["file"] = std::to_string(status.st_ino);
  answer["size"] = status.st_size;
  const bool goes_on = place.file == answer["file"] && place.byte > 0 &&
                       place.byte <= status.st_size && is_behind_line(path, place.byte);
  const std::int64_t from = goes_on ? place.byte : 0;
  const std::string lines = read_lines(path, from);
  answer["from"] = from;
  answer["next"] = from + static_cast<std::int64_t>(lines.size());
  for (std::size_t at = 0; at < lines.size();) {
    const std::size_t end = lines.find('\n', at);
    OrderedJson row = OrderedJson::parse(lines.substr(at, end - at), nullptr, false);
    if (row.is_object()) answer["rows"].push_back(std::move(row));
    at = end + 1;
  }
  return answer;
}

}  // namespace vlm::infer
