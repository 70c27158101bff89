#include "data/skipped_samples.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"

namespace vlm::data {
namespace {

std::string text_at(const Json& row, const char* key) {
  const auto found = row.is_object() ? row.find(key) : row.end();
  return found != row.end() && found->is_string() ? found->get<std::string>() : "";
}

}  // namespace

SkippedSamples::SkippedSamples(std::int64_t max_bad, std::filesystem::path file, bool goes_on)
    : max_bad_(max_bad), file_(std::move(file)) {
  std::error_code ignored;
  if (!goes_on) std::filesystem::remove(file_, ignored);
  std::ifstream in(file_);
  for (std::string line; std::getline(in, line);) {
    const Json row = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    const std::string sample = text_at(row, "sample");
    if (sample.empty()) continue;  // torn by a kill, or someone else's: it will be met again
    (text_at(row, "kind") == "bad" ? bad_ : long_).insert(sample);
  }
  if (static_cast<std::int64_t>(bad_.size()) > max_bad_) {
    throw Error({.what = "the run has passed over more bad samples",
                 .where = file_.string(),
                 .got = concat(bad_.size()),
                 .wanted = concat("at most max_bad_samples = ", max_bad_)});
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
  if (known.count(sample)) return;
  // One too many isn't noted: a run that goes on with the same bound meets it again.
  if (is_bad && static_cast<std::int64_t>(bad_.size()) >= max_bad_) {
    throw Error({.what = "too many bad samples",
                 .got = concat(bad_.size() + 1),
                 .wanted = concat("at most max_bad_samples = ", max_bad_),
                 .hint = concat("the last one: ", reason.what(),
                                "; a higher max_bad_samples lets the run go on")});
  }
  known.insert(sample);
  log_warning(concat("skips a sample: ", reason.what()));
  if (!file_.empty()) {
    const OrderedJson row = {
        {"sample", sample}, {"kind", is_bad ? "bad" : "long"}, {"reason", reason.what()}};
    std::ofstream out(file_, std::ios::app);
    out << row.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) << std::endl;
    if (!out) throw Error({.what = "can't write the file", .where = file_.string()});
  }
}

}  // namespace vlm::data
