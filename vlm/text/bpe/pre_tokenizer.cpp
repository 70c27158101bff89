#include "vlm/text/bpe/pre_tokenizer.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "vlm/core/error.h"
#include "vlm/core/json_access.h"
#include "vlm/text/bpe/byte_level.h"
#include "vlm/text/unicode/unicode.h"

namespace vlm {
namespace {

constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// A stretch of a piece: a match of the delimiter, or what lies between two matches.
struct Stretch {
  Span span;
  bool is_match = false;
};

// What happens to matches and to what lies between them.
enum class Behavior { kRemoved, kIsolated, kContiguous, kMergedWithPrevious, kMergedWithNext };

Behavior parse_behavior(const std::string& name, const std::string& where) {
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "Contiguous") return Behavior::kContiguous;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  throw Error({.what = "unknown behavior",
               .where = where,
               .got = "\"" + name + "\"",
               .wanted = "Removed, Isolated, Contiguous, MergedWithPrevious or MergedWithNext"});
}

// Matches and the gaps between them, in order, over [0, size).
void fill_gaps(const std::vector<Span>& matches, std::size_t size, std::vector<Stretch>& result) {
  result.clear();
  std::size_t done = 0;
  for (const Span& match : matches) {
    if (done != match.begin) result.push_back({{done, match.begin}, false});
    result.push_back({match, true});
    done = match.end;
  }
  if (done != size) result.push_back({{done, size}, false});
}

// Joins neighbours in place; `joins(stretch, previous_was_match)` says whether a stretch belongs to
// the group before it.
template <typename Joins>
void join_neighbours(std::vector<Stretch>& stretches, const Joins& joins) {
  std::size_t kept = 0;
  bool previous_was_match = false;
  for (const Stretch& stretch : stretches) {
    const Stretch current = stretch;
    if (kept > 0 && joins(current, previous_was_match)) {
      Span& group = stretches[kept - 1].span;
      group = {std::min(group.begin, current.span.begin), std::max(group.end, current.span.end)};
    } else {
      stretches[kept++].span = current.span;
    }
    previous_was_match = current.is_match;
  }
  stretches.resize(kept);
}

void apply_behavior(Behavior behavior, std::vector<Stretch>& stretches) {
  const auto merges = [](const Stretch& stretch, bool previous_was_match) {
    return stretch.is_match && !previous_was_match;
  };
  switch (behavior) {
    case Behavior::kIsolated:
      return;
    case Behavior::kRemoved:
      std::erase_if(stretches, [](const Stretch& stretch) { return stretch.is_match; });
      return;
    case Behavior::kContiguous:
      return join_neighbours(stretches, [](const Stretch& stretch, bool previous_was_match) {
        return stretch.is_match == previous_was_match;
      });
    case Behavior::kMergedWithPrevious:
      return join_neighbours(stretches, merges);
    case Behavior::kMergedWithNext:
      std::reverse(stretches.begin(), stretches.end());
      join_neighbours(stretches, merges);
      std::reverse(stretches.begin(), stretches.end());
  }
}

// Splits every piece; `find` replaces its second argument by the matches in a text.
template <typename Find>
void split_pieces(Pieces& pieces, const Find& find, Behavior behavior, bool invert) {
  std::vector<Span> result;
  std::vector<Span> matches;
  std::vector<Stretch> stretches;
  for (std::size_t i = 0; i < pieces.spans.size(); ++i) {
    const std::string_view piece = pieces[i];
    const std::size_t begin = pieces.spans[i].begin;
    find(piece, matches);
    fill_gaps(matches, piece.size(), stretches);
    if (invert) {
      for (Stretch& stretch : stretches) stretch.is_match = !stretch.is_match;
    }
    apply_behavior(behavior, stretches);
    for (const auto& [span, is_match] : stretches) {
      if (span.begin != span.end) result.push_back({begin + span.begin, begin + span.end});
    }
  }
  pieces.spans = std::move(result);
}

void find_digits(std::string_view text, std::vector<Span>& matches) {
  matches.clear();
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t begin = at;
    if (is_numeric(next_code_point(text, at))) matches.push_back({begin, at});
  }
}

// Adds a space in front of each piece that has none, and splits at GPT-2's pattern where asked.
class ByteLevel {
 public:
  ByteLevel(const Json& json, const std::string& where)
      : add_prefix_space_(get_bool(json, "add_prefix_space", where, true)) {
    if (get_bool(json, "use_regex", where, true)) {
      pattern_ = std::make_shared<Pattern>(Pattern::from_regex(kGpt2Pattern, where));
    }
  }

  void operator()(Pieces& pieces) const {
    if (add_prefix_space_) add_prefix_spaces(pieces);
    if (pattern_) {
      const auto find = [this](std::string_view text, std::vector<Span>& matches) {
        pattern_->find_all(text, matches);
      };
      split_pieces(pieces, find, Behavior::kIsolated, false);
    }
    Pieces result;
    result.text.reserve(pieces.text.size() + pieces.text.size() / 2);
    result.spans.reserve(pieces.spans.size());
    for (std::size_t i = 0; i < pieces.spans.size(); ++i) {
      const std::size_t begin = result.text.size();
      append_byte_symbols(pieces[i], result.text);
      result.spans.push_back({begin, result.text.size()});
    }
    pieces = std::move(result);
  }

 private:
  static void add_prefix_spaces(Pieces& pieces) {
    Pieces result;
    for (std::size_t i = 0; i < pieces.spans.size(); ++i) {
      const std::size_t begin = result.text.size();
      if (pieces[i][0] != ' ') result.text += ' ';
      result.text += pieces[i];
      result.spans.push_back({begin, result.text.size()});
    }
    pieces = std::move(result);
  }

  bool add_prefix_space_;
  std::shared_ptr<const Pattern> pattern_;
};

std::function<void(Pieces&)> make_split(const Json& json, const std::string& where) {
  const Behavior behavior =
      parse_behavior(get_string(json, "behavior", where), inside(where, "behavior"));
  const bool invert = get_bool(json, "invert", where, false);
  const auto pattern = std::make_shared<const Pattern>(
      parse_pattern(get_member(json, "pattern", where), inside(where, "pattern")));
  return [behavior, invert, pattern](Pieces& pieces) {
    const auto find = [&pattern](std::string_view text, std::vector<Span>& matches) {
      pattern->find_all(text, matches);
    };
    split_pieces(pieces, find, behavior, invert);
  };
}

}  // namespace

PreTokenizer::PreTokenizer(const Json* json, const std::string& where) {
  if (json != nullptr) add_steps(*json, where);
}

void PreTokenizer::add_steps(const Json& json, const std::string& where) {
  const std::string type = get_string(json, "type", where);
  if (type == "Sequence") {
    const Json& parts = get_array(json, "pretokenizers", where);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      add_steps(parts[i], inside(inside(where, "pretokenizers"), i));
    }
  } else if (type == "Digits") {
    const bool individual = get_bool(json, "individual_digits", where, false);
    const Behavior behavior = individual ? Behavior::kIsolated : Behavior::kContiguous;
    steps_.emplace_back(
        [behavior](Pieces& pieces) { split_pieces(pieces, find_digits, behavior, false); });
  } else if (type == "Split") {
    steps_.push_back(make_split(json, where));
  } else if (type == "ByteLevel") {
    steps_.emplace_back(ByteLevel(json, where));
  } else {
    refuse_component(type, inside(where, "type"), "Sequence, Digits, Split or ByteLevel");
  }
}

Pieces PreTokenizer::apply(std::string_view text) const {
  Pieces pieces{.text = std::string(text), .spans = {}};
  if (!text.empty()) pieces.spans.push_back({0, text.size()});
  for (const auto& step : steps_) step(pieces);
  return pieces;
}

}  // namespace vlm
