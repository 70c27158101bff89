// report.html: one page about a run that needs no other file and no network.
//
//   RunRecord, media of held-out items ─► make_report ─► HTML
//
// In this order: each metric before and after training with the interval of the difference;
// held-out items with their pictures and frames of their clips, the question, the answers before
// and after, and the wanted one; curves (the loss on a logarithmic axis where it spans decades);
// length, speed and memory of the run; the configuration, folded.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/media/media_ref.h"
#include "train/report/run_record.h"

namespace vlm::train {

struct ReportOptions {
  std::int64_t samples = 8;  // held-out items that are shown, evenly spaced over the evaluation set
  // Pictures and clips of the evaluation set's item `index`, of which small copies are shown. May
  // throw Error. Empty: none are shown.
  std::function<std::vector<data::MediaRef>(std::int64_t index)> media = {};
};

// A picture or clip that can't be read costs its place in the page, which says why, and a warning.
std::string make_report(const RunRecord& record, const ReportOptions& options);

}  // namespace vlm::train
