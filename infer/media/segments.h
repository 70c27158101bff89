// `vlm video --ground`: a long video is cut into segments, which are ranked by how well an answer
// fits.
//
//   range, segment_s ─► split_range ─► segments ─► (each asked by itself) ─► likelihoods ─►
//   rank_segments
#pragma once

#include <vector>

namespace vlm::infer {

struct ChoiceScore;

struct TimeSegment {
  double start_s = 0;
  double end_s = 0;
};

// Segments of segment_s from start_s on. A remainder at the end becomes a segment if it is at least
// half as long, else it is added to the last one. Throws Error for more than 100,000 segments.
std::vector<TimeSegment> split_range(const TimeSegment& range, double segment_s);

struct SegmentScore : TimeSegment {
  double logprob = 0;      // of the answer: the sum over its tokens, or with by_mean their mean
  double probability = 0;  // against the other choices; of the answer itself when there are none
};

// The answer is the first of the choices, of which there is at least one.
SegmentScore score_segment(const TimeSegment& segment, const std::vector<ChoiceScore>& scores,
                           bool by_mean);

// The likeliest first; of equal ones the earlier.
void rank_segments(std::vector<SegmentScore>& segments);

}  // namespace vlm::infer
