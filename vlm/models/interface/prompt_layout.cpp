#include "vlm/models/interface/prompt_layout.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {

std::int64_t PromptLayout::medium_at(std::int64_t t) const {
  const auto found = std::find_if(media.begin(), media.end(), [t](const MediumSpan& span) {
    return t >= span.begin && t < span.end;
  });
  return found == media.end() ? -1 : found - media.begin();
}

std::int64_t PromptLayout::position_of(std::int64_t tokens, std::int64_t length) const {
  if (!positions.defined()) return tokens;
  return tokens == length ? next_position : positions[0][tokens].item<std::int64_t>();
}

void PromptLayout::cut(std::int64_t length) {
  if (!positions.defined()) return;
  next_position = position_of(length, positions.size(1));
  positions = positions.narrow(1, 0, length).contiguous();
}

std::vector<MediumSpan> find_media(const std::vector<std::int64_t>& ids,
                                   const std::vector<std::int64_t>& media_ids,
                                   const std::vector<std::int64_t>& counts) {
  std::vector<std::int64_t> places;
  for (std::size_t t = 0; t < ids.size(); ++t) {
    if (std::ranges::find(media_ids, ids[t]) != media_ids.end()) {
      places.push_back(static_cast<std::int64_t>(t));
    }
  }
  std::vector<MediumSpan> spans;
  std::int64_t used = 0;
  for (const std::int64_t count : counts) {
    if (count < 1 || used + count > std::ssize(places)) {
      used = -1;
      break;
    }
    const auto first = places.begin() + used;
    spans.push_back({.begin = *first, .end = *(first + count - 1) + 1});
    used += count;
  }
  if (used == std::ssize(places)) return spans;
  std::int64_t wanted = 0;
  for (const std::int64_t count : counts) wanted += count;
  throw Error({.what = "image tokens in the prompt don't fit the pictures",
               .got = concat(places.size(), " image tokens"),
               .wanted = concat(wanted)});
}

at::Tensor stack_positions(const std::vector<RowPositions>& rows) {
  std::int64_t longest = 0;
  bool has_any = false;
  for (const RowPositions& row : rows) {
    longest = std::max(longest, row.length);
    has_any = has_any || row.positions.defined();
  }
  if (!has_any) return {};
  const at::Tensor stacked = at::zeros({3, std::ssize(rows), longest}, at::kLong);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const at::Tensor place =
        stacked.select(1, static_cast<std::int64_t>(i)).narrow(1, 0, rows[i].length);
    if (rows[i].positions.defined()) {
      place.copy_(rows[i].positions);
    } else {
      place.copy_(at::arange(rows[i].length).expand({3, rows[i].length}));
    }
  }
  return stacked;
}

}  // namespace vlm
