#include "infer/media/segments.h"

#include <algorithm>
#include <cmath>

#include "infer/search/choices.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {

std::vector<TimeSegment> split_range(const TimeSegment& range, double segment_s) {
  constexpr double kMost = 100'000;
  const double count = std::max(1.0, std::round((range.end_s - range.start_s) / segment_s));
  if (!(count <= kMost)) {
    throw Error({.what = "too many segments",
                 .where = "--segment-s",
                 .got = concat(count),
                 .wanted = concat("at most ", kMost)});
  }
  std::vector<TimeSegment> segments;
  for (int i = 0; i < static_cast<int>(count); ++i) {
    segments.push_back({range.start_s + i * segment_s, range.start_s + (i + 1) * segment_s});
  }
  segments.back().end_s = range.end_s;
  return segments;
}

SegmentScore score_segment(const TimeSegment& segment, const std::vector<ChoiceScore>& scores,
                           bool by_mean) {
  const ChoiceScore& answer = scores.front();
  SegmentScore score{segment};
  score.logprob = by_mean ? answer.logprob / static_cast<double>(answer.tokens) : answer.logprob;
  score.probability =
      scores.size() > 1 ? choice_probabilities(scores, by_mean).front() : std::exp(score.logprob);
  return score;
}

void rank_segments(std::vector<SegmentScore>& segments) {
  std::stable_sort(segments.begin(), segments.end(), [](const auto& a, const auto& b) {
    if (a.probability != b.probability) return a.probability > b.probability;
    return a.start_s < b.start_s;
  });
}

}  // namespace vlm::infer
