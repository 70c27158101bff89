// What `vlm video --ground` found as one HTML page that needs nothing beside it.
//
//   rows (as report_answer makes them by segment) ─► SegmentPage ─► a time line a clip and question
//
// A bar stands where its segment lies, as high as the answer is likely there beside the likeliest.
// The best segment, which may be chosen by another score, is dark.
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
