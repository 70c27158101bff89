// report.html: one page about a run that needs no other file and no network.
//
//   RunRecord, pictures of held-out items ─► make_report ─► HTML
//
// In this order: each metric before and after training with the interval of the difference;
// held-out items with their pictures, the question, the answers before and after, and the wanted
// one; curves (the loss on a logarithmic axis where it spans decades); length, speed and memory of
// the run; the configuration, folded.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "train/report/run_record.h"

namespace vlm::train {

struct ReportOptions {
  std::int64_t samples = 8;  // held-out items that are shown, evenly spaced over the evaluation set
  // Pictures of the evaluation set's item `index`, as data URIs. Empty: no pictures are shown.
  std::function<std::vector<std::string>(std::int64_t index)> pictures = {};
};

std::string make_report(const RunRecord& record, const ReportOptions& options);

}  // namespace vlm::train
