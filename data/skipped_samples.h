// Counts the samples that a run can't use, against max_bad_samples.
//
// A sample counts once, however often it is read. Each new one is logged as a warning and, where a
// file is given, written to it as a row {"sample", "kind", "reason"}; a resumed run reads that
// file, so that the bound holds for the whole run. Thread-safe; one process writes a file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <set>
#include <string>

#include "vlm/core/error.h"

namespace vlm::data {

class SkippedSamples {
 public:
  // `max_bad` bounds the malformed ones; those too long for length_policy skip have no bound.
  explicit SkippedSamples(std::int64_t max_bad = 0) : max_bad_(max_bad) {}
  // Keeps `file` as well; its rows count when `goes_on`, otherwise it is begun anew. Throws Error
  // when they are more than the bound.
  SkippedSamples(std::int64_t max_bad, std::filesystem::path file, bool goes_on);

  bool contains(const std::string& sample) const;

  // Throws `reason` itself when no bad sample is allowed, or an Error with it when there are more
  // than the bound.
  void add_bad(const std::string& sample, const Error& reason);
  void add_long(const std::string& sample, const Error& reason);

  std::int64_t bad_count() const;
  std::int64_t long_count() const;

 private:
  void add(const std::string& sample, const Error& reason, bool is_bad);

  std::int64_t max_bad_ = 0;
  std::filesystem::path file_;
  mutable std::mutex mutex_;
  std::set<std::string> bad_, long_;
};

}  // namespace vlm::data
