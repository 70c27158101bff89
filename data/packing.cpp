#include "data/packing.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <map>
#include <numeric>

namespace vlm::data {
namespace {

// Examples behind one prefix; a single one has none.
struct Unit {
  std::vector<const Example*> examples;
  std::int64_t prefix = 0;

  std::int64_t tokens() const {
    std::int64_t sum = prefix;
    for (const Example* example : examples) sum += length(*example) - prefix;
    return sum;
  }
  const SamplePictures& pictures() const { return examples.front()->pictures; }
  static std::int64_t length(const Example& example) {
    return static_cast<std::int64_t>(example.ids.size());
  }
};

struct PackedRow {
  std::vector<const Unit*> units;
  std::int64_t tokens = 0;
  std::int64_t units_of_pictures = 0;

  bool shows(const SamplePictures& pictures) const {
    return !pictures.key.empty() && std::any_of(units.begin(), units.end(), [&](const Unit* unit) {
      return unit->pictures().key == pictures.key;
    });
  }
  std::int64_t new_units(const Unit& unit) const {
    return shows(unit.pictures()) ? 0 : unit.pictures().units();
  }
};

// Tokens that `example` has in common with `first` and that may stand in a prefix: the token that
// is predicted first must come after it. 0 when a picture would be cut.
std::int64_t common_prefix(const Example& first, const Example& example) {
  const auto learned = [](const std::vector<std::int64_t>& labels) {
    return std::find_if(labels.begin(), labels.end(),
                        [](std::int64_t label) { return label != kIgnoredLabel; }) -
           labels.begin();
  };
  const auto differs =
      std::mismatch(first.ids.begin(), first.ids.end(), example.ids.begin(), example.ids.end());
  const std::int64_t prefix = std::min<std::int64_t>(
      {differs.first - first.ids.begin(), learned(first.labels) - 1, learned(example.labels) - 1});
  const bool can_share =
      prefix > 0 && first.layout.can_share(prefix) && example.layout.can_share(prefix);
  return can_share ? prefix : 0;
}

// Puts `example` behind the unit's prefix where that fits the budget.
bool join(Unit& unit, const Example& example, const PackOptions& options) {
  const auto is_long = [&](const Example& one) {
    return options.switch_length > 0 && std::ssize(one.ids) > options.switch_length;
  };
  if (is_long(*unit.examples.front()) != is_long(example)) return false;
  const std::int64_t common = common_prefix(*unit.examples.front(), example);
  if (common == 0) return false;
  Unit joined = unit;
  joined.prefix = unit.examples.size() == 1 ? common : std::min(common, unit.prefix);
  joined.examples.push_back(&example);
  if (joined.tokens() > options.max_tokens) return false;
  unit = joined;
  return true;
}

std::vector<Unit> make_units(const std::vector<Example>& examples, const PackOptions& options) {
  std::vector<Unit> units;
  std::map<std::string, std::size_t> open;  // picture key → its unit that still takes examples
  for (const Example& example : examples) {
    const std::string& key = example.pictures.key;
    const bool is_shared = options.share_pictures && !key.empty() && !example.pictures.empty();
    const auto found = open.find(key);
    if (is_shared && found != open.end() && join(units[found->second], example, options)) continue;
    if (is_shared) open[key] = units.size();
    units.push_back({.examples = {&example}});
  }
  return units;
}

std::vector<PackedRow> fill_rows(const std::vector<Unit>& units, const PackOptions& options) {
  std::vector<std::size_t> order(units.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return units[a].tokens() > units[b].tokens();
  });
  std::vector<PackedRow> rows;
  for (const std::size_t i : order) {
    const Unit& unit = units[i];
    const auto fits = [&](const PackedRow& row) {
      return row.tokens + unit.tokens() <= options.max_tokens &&
             (options.max_units == 0 ||
              row.units_of_pictures + row.new_units(unit) <= options.max_units);
    };
    auto row = std::find_if(rows.begin(), rows.end(), fits);
    if (row == rows.end()) row = rows.insert(rows.end(), PackedRow{});
    row->units_of_pictures += row->new_units(unit);
    row->tokens += unit.tokens();
    row->units.push_back(&unit);
  }
  return rows;
}

// Writes examples into a row of ids and labels as segments.
class RowWriter {
 public:
  explicit RowWriter(const PackedRow& row) {
    batch_.inputs.input_ids = at::empty({1, row.tokens}, at::kLong);
    batch_.labels = at::empty({1, row.tokens}, at::kLong);
    batch_.token_count = row.tokens;
    for (const Unit* unit : row.units) write_unit(*unit);
  }
  Batch finish() {
    if (has_positions_) batch_.inputs.positions = at::cat(positions_, 1).unsqueeze(1);
    return std::move(batch_);
  }

 private:
  void write_unit(const Unit& unit) {
    const std::int64_t prefix_begin = place_;
    if (unit.prefix > 0) write(*unit.examples.front(), {0, unit.prefix}, {});
    for (const Example* example : unit.examples) {
      write(*example, {unit.prefix, Unit::length(*example)}, {prefix_begin, unit.prefix});
    }
    add_pictures(unit.pictures(), batch_);
  }

  struct Range {
    std::int64_t begin = 0, end = 0;
  };

  // Tokens of an example become a segment; `prefix` is {begin in the row, length}.
  void write(const Example& example, Range tokens, std::pair<std::int64_t, std::int64_t> prefix) {
    std::int64_t* ids = batch_.inputs.input_ids.mutable_data_ptr<std::int64_t>();
    std::int64_t* labels = batch_.labels.mutable_data_ptr<std::int64_t>();
    batch_.segments.push_back({.begin = place_,
                               .length = tokens.end - tokens.begin,
                               .prefix_begin = prefix.second > 0 ? prefix.first : 0,
                               .prefix_length = prefix.second});
    add_positions(example, tokens);
    const std::int64_t last = Unit::length(example) - 1;
    for (std::int64_t t = tokens.begin; t < tokens.end; ++t, ++place_) {
      const std::int64_t label = t < last ? example.labels[t + 1] : kIgnoredLabel;
      ids[place_] = example.ids[t];
      labels[place_] = label;
      batch_.label_count += label != kIgnoredLabel ? 1 : 0;
    }
  }

  void add_positions(const Example& example, Range tokens) {
    const at::Tensor& given = example.layout.positions;
    has_positions_ = has_positions_ || given.defined();
    const std::int64_t count = tokens.end - tokens.begin;
    positions_.push_back(given.defined() ? given.narrow(1, tokens.begin, count)
                                         : at::arange(tokens.begin, tokens.end).expand({3, count}));
  }

  Batch batch_;
  std::vector<at::Tensor> positions_;  // [3, tokens] of each segment
  bool has_positions_ = false;
  std::int64_t place_ = 0;
};

}  // namespace

std::vector<Batch> pack(const std::vector<Example>& examples, const PackOptions& options) {
  const std::vector<Unit> units = make_units(examples, options);
  std::vector<Batch> batches;
  for (const PackedRow& row : fill_rows(units, options)) batches.push_back(RowWriter(row).finish());
  return batches;
}

}  // namespace vlm::data
