// The result of `vlm video --ground` as one HTML page without other files.
//
//   rows (as report_answer makes them by segment) ─► SegmentPage ─► a time line a clip and question
//
// Each segment is a bar at its time. Its height is the answer's probability in it, relative to the
// highest. The best segment (ranked by --choice-score) is dark.
#pragma once

#include <string>

#include "vlm/core/json.h"

namespace vlm::infer {

class SegmentPage {
 public:
  void add(const OrderedJson& row);
  std::string text() const;

 private:
  std::string rows_;
};

}  // namespace vlm::infer
