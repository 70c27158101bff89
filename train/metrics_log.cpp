#include "train/metrics_log.h"

#include <nlohmann/json.hpp>
#include <sstream>

#include "vlm/core/error.h"

namespace vlm::train {
namespace {

// Whole rows up to `last_step`; a torn last line is dropped.
std::string rows_up_to(const std::string& text, std::int64_t last_step) {
  std::string kept;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    const Json row = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (row.is_object() && row.value("step", last_step + 1) <= last_step) kept += line + "\n";
  }
  return kept;
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& path, std::int64_t last_step) {
  const bool keep = last_step > 0 && std::filesystem::exists(path);
  save_text(path, keep ? rows_up_to(load_text(path), last_step) : "");
  out_.open(path, std::ios::app);
  if (!out_) throw Error({.what = "can't write the file", .where = path.string()});
}

void MetricsLog::write(const OrderedJson& row) {
  out_ << row.dump() << std::endl;
}

}  // namespace vlm::train
