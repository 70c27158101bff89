// report.html: one page about a run that needs no other file and no network.
//
//   RunRecord, pictures of the samples ─► make_report ─► curves, comparison with the untuned model,
//   memory and time, held-out samples (picture, question, before, after, reference), configuration
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "train/report/run_record.h"

namespace vlm::train {

struct ReportOptions {
  std::int64_t samples = 8;
  // Data URIs of the pictures of an item of the evaluation set.
  std::function<std::vector<std::string>(std::int64_t index)> pictures = {};
};

std::string make_report(const RunRecord& record, const ReportOptions& options);

}  // namespace vlm::train
