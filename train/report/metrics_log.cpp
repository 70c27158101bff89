#include "train/report/metrics_log.h"

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include "vlm/core/error.h"

namespace vlm::train {
namespace {

// False for a torn row, and for what someone else wrote.
bool has_step(const Json& row) {
  return row.is_object() && row.contains("step") && row["step"].is_number_integer();
}

// Whole rows up to `last_step`, byte for byte; a torn last line is dropped.
std::string rows_up_to(const std::string& text, std::int64_t last_step,
                       std::int64_t last_evaluation) {
  std::string kept;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    const Json row = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!has_step(row)) continue;
    const std::int64_t last = row.contains("eval_loss") ? last_evaluation : last_step;
    if (row["step"] <= last) kept += line + "\n";
  }
  return kept;
}

Error write_error(const std::filesystem::path& path) {
  return Error(
      {.what = "can't write the file", .where = path.string(), .got = std::strerror(errno)});
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& path, std::int64_t last_step,
                       std::int64_t last_evaluation, std::unique_ptr<TensorboardLog> tensorboard)
    : path_(path), tensorboard_(std::move(tensorboard)) {
  if (path_.empty()) return;
  const bool keep = last_step > 0 && std::filesystem::exists(path);
  save_text(path, keep ? rows_up_to(load_text(path), last_step, last_evaluation) : "");
  out_.open(path, std::ios::app);
  if (!out_) throw write_error(path_);
}

void MetricsLog::write(const OrderedJson& row) {
  if (path_.empty()) return;
  out_ << row.dump() << std::endl;
  if (!out_) throw write_error(path_);
  if (tensorboard_) tensorboard_->add_row(row);
}

std::vector<Json> read_metrics(const std::filesystem::path& path) {
  std::vector<Json> rows;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    Json row = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (has_step(row)) rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace vlm::train
