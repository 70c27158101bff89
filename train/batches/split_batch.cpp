#include "train/batches/split_batch.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <optional>
#include <utility>

namespace vlm::train {
namespace {

struct Range {
  std::int64_t begin = 0, end = 0;
};

// The token of a packed row nearest to its middle where it can be cut; 0: nowhere.
std::int64_t find_cut(const std::vector<Segment>& segments) {
  const std::int64_t total = segments.back().begin + segments.back().length;
  const auto distance = [&](std::int64_t place) { return std::abs(2 * place - total); };
  std::int64_t best = 0;
  for (std::size_t i = 1; i < segments.size(); ++i) {
    const std::int64_t cut = segments[i].begin;
    const bool is_free = std::all_of(segments.begin() + static_cast<std::ptrdiff_t>(i),
                                     segments.end(), [&](const Segment& later) {
                                       return later.prefix_length == 0 || later.prefix_begin >= cut;
                                     });
    if (is_free && (best == 0 || distance(cut) < distance(best))) best = cut;
  }
  return best;
}

std::vector<Segment> segments_in(const std::vector<Segment>& segments, Range range) {
  std::vector<Segment> found;
  for (Segment segment : segments) {
    if (segment.begin < range.begin || segment.begin >= range.end) continue;
    segment.begin -= range.begin;
    if (segment.prefix_length > 0) segment.prefix_begin -= range.begin;
    found.push_back(segment);
  }
  return found;
}

using Ids = std::vector<std::int64_t>;

// Takes over the pictures whose tokens lie in a range of all image tokens.
void take_pictures(const data::Batch& batch, Range image_tokens, data::Batch& part) {
  std::map<std::int64_t, std::int64_t> taken;
  std::int64_t begin = 0;
  for (const std::int64_t i : batch.picture_order) {
    const data::SamplePictures& pictures = batch.pictures[static_cast<std::size_t>(i)];
    if (begin >= image_tokens.begin && begin < image_tokens.end) {
      const auto [found, is_new] =
          taken.emplace(i, static_cast<std::int64_t>(part.pictures.size()));
      if (is_new) part.pictures.push_back(pictures);
      part.picture_order.push_back(found->second);
    }
    begin += pictures.tokens();
  }
}

// `dim`: 0 for rows, 1 for the tokens of a packed row.
data::Batch take_part(const data::Batch& batch, const Ids& media_ids, std::int64_t dim,
                      Range range) {
  data::Batch part;
  const auto cut = [&](const at::Tensor& t) {
    return t.narrow(dim, range.begin, range.end - range.begin).contiguous();
  };
  const auto count_images = [&](const at::Tensor& ids) {
    std::int64_t count = 0;
    for (const std::int64_t id : media_ids) count += ids.eq(id).sum().item<std::int64_t>();
    return count;
  };
  part.inputs.input_ids = cut(batch.inputs.input_ids);
  if (batch.inputs.positions.defined()) {  // [3, B, T]
    part.inputs.positions =
        batch.inputs.positions.narrow(dim + 1, range.begin, range.end - range.begin).contiguous();
  }
  part.labels = cut(batch.labels);
  part.label_count = part.labels.ne(data::kIgnoredLabel).sum().item<std::int64_t>();
  part.token_count = part.inputs.input_ids.numel();
  part.segments = segments_in(batch.segments, range);
  const std::int64_t before = count_images(batch.inputs.input_ids.narrow(dim, 0, range.begin));
  const Range images{before, before + count_images(part.inputs.input_ids)};
  take_pictures(batch, images, part);
  return part;
}

std::optional<std::pair<data::Batch, data::Batch>> halve(const data::Batch& batch,
                                                         const Ids& media_ids) {
  const std::int64_t dim = batch.segments.empty() ? 0 : 1;
  const std::int64_t size = batch.inputs.input_ids.size(dim);
  const std::int64_t cut = dim == 0 ? size / 2 : find_cut(batch.segments);
  if (cut == 0) return std::nullopt;
  return std::pair(take_part(batch, media_ids, dim, {0, cut}),
                   take_part(batch, media_ids, dim, {cut, size}));
}

}  // namespace

std::vector<data::Batch> split_batch(const data::Batch& batch, const Ids& media_ids, int halvings) {
  std::vector<data::Batch> parts = {batch};
  for (; halvings > 0; --halvings) {
    std::vector<data::Batch> smaller;
    for (const data::Batch& part : parts) {
      const auto halves = halve(part, media_ids);
      if (!halves) {
        smaller.push_back(part);
        continue;
      }
      smaller.push_back(halves->first);
      smaller.push_back(halves->second);
    }
    parts = std::move(smaller);
  }
  return parts;
}

}  // namespace vlm::train
