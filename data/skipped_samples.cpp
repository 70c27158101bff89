#include "data/skipped_samples.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"

namespace vlm::data {

SkippedSamples::SkippedSamples(std::int64_t max_bad, std::filesystem::path file, bool goes_on)
    : max_bad_(max_bad), file_(std::move(file)) {
  std::error_code ignored;
  if (!goes_on) std::filesystem::remove(file_, ignored);
  std::ifstream in(file_);
  for (std::string line; std::getline(in, line);) {
    const Json row = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!row.is_object()) continue;  // torn by a kill: the sample will be met again
    (row.value("kind", "") == "bad" ? bad_ : long_).insert(row.value("sample", ""));
  }
}

bool SkippedSamples::contains(const std::string& sample) const {
  const std::lock_guard lock(mutex_);
  return bad_.count(sample) > 0 || long_.count(sample) > 0;
}

void SkippedSamples::add_bad(const std::string& sample, const Error& reason) {
  if (max_bad_ == 0) throw reason;
  add(sample, reason, true);
}

void SkippedSamples::add_long(const std::string& sample, const Error& reason) {
  add(sample, reason, false);
}

std::int64_t SkippedSamples::bad_count() const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::int64_t>(bad_.size());
}

std::int64_t SkippedSamples::long_count() const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::int64_t>(long_.size());
}

void SkippedSamples::add(const std::string& sample, const Error& reason, bool is_bad) {
  const std::lock_guard lock(mutex_);
  auto& known = is_bad ? bad_ : long_;
  if (!known.insert(sample).second) return;
  log_warning(concat("skips a sample: ", reason.what()));
  if (!file_.empty()) {
    const OrderedJson row = {
        {"sample", sample}, {"kind", is_bad ? "bad" : "long"}, {"reason", reason.what()}};
    std::ofstream out(file_, std::ios::app);
    out << row.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) << std::endl;
    if (!out) throw Error({.what = "can't write the file", .where = file_.string()});
  }
  if (is_bad && static_cast<std::int64_t>(bad_.size()) > max_bad_) {
    throw Error({.what = "too many bad samples",
                 .got = concat(bad_.size()),
                 .wanted = concat("at most max_bad_samples = ", max_bad_),
                 .hint = concat("the last one: ", reason.what())});
  }
}

}  // namespace vlm::data
