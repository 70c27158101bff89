#include "infer/kept/kept_prefixes.h"

#include <algorithm>
#include <iterator>

namespace vlm::infer {
namespace {

// Rows of features that two prompts share at their beginning.
std::int64_t count_same_rows(const PrefixSource& a, const PrefixSource& b) {
  std::int64_t rows = 0;
  for (std::size_t i = 0; i < std::min(a.parts.size(), b.parts.size()); ++i) {
    if (a.parts[i] != b.parts[i]) break;
    rows += a.parts[i].second;
  }
  return rows;
}

// Tokens at the beginning of both whose keys and values are the same.
std::int64_t count_same_tokens(const PrefixSource& a, const PrefixSource& b) {
  const std::size_t most = std::min(a.ids.size(), b.ids.size());
  std::int64_t rows = count_same_rows(a, b);
  std::size_t same = 0;
  for (; same < most && a.ids[same] == b.ids[same]; ++same) {
    if (a.is_media[same] && rows-- == 0) break;
  }
  const auto tokens = static_cast<std::int64_t>(same);
  if (a.positions.defined() != b.positions.defined()) return 0;
  if (!a.positions.defined()) return tokens;
  const at::Tensor is_other =
      a.positions.narrow(1, 0, tokens).ne(b.positions.narrow(1, 0, tokens)).any(0);  // [tokens]
  const bool* first = is_other.const_data_ptr<bool>();
  return std::find(first, first + tokens, true) - first;
}

}  // namespace

void KeptPrefixes::set_bound(std::int64_t bytes) {
  most_bytes_ = bytes;
  while (bytes_ > most_bytes_) drop(std::prev(entries_.end()));
}

KeptPrefixes::Found KeptPrefixes::find(const PrefixSource& source, std::int64_t piece) {
  ++queries_;
  auto best = entries_.end();
  std::int64_t tokens = 0;
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
    const std::int64_t same = std::min({count_same_tokens(source, entry->source),
                                        entry->prefix.tokens, std::ssize(source.ids) - 1});
    if (same / piece * piece <= tokens) continue;
    tokens = same / piece * piece;
    best = entry;
  }
  if (best == entries_.end()) return {};
  ++hits_;
  entries_.splice(entries_.begin(), entries_, best);
  return {&entries_.front().prefix, tokens};
}

bool KeptPrefixes::wants(const PrefixSource& source, std::int64_t piece) const {
  const std::int64_t whole = std::ssize(source.ids) / piece * piece;
  return is_keeping() && whole > 0 && std::ranges::none_of(entries_, [&](const Entry& entry) {
           return std::min(count_same_tokens(source, entry.source), entry.prefix.tokens) >= whole;
         });
}

void KeptPrefixes::keep(PrefixSource source, KvPrefix prefix) {
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    const auto next = std::next(entry);
    if (count_same_tokens(source, entry->source) >= entry->prefix.tokens &&
        prefix.tokens >= entry->prefix.tokens) {
      drop(entry);
    }
    entry = next;
  }
  const std::int64_t bytes = prefix.bytes();
  if (bytes > most_bytes_) return;
  while (bytes_ + bytes > most_bytes_) drop(std::prev(entries_.end()));
  entries_.push_front({std::move(source), std::move(prefix)});
  bytes_ += bytes;
}

void KeptPrefixes::drop(std::list<Entry>::iterator entry) {
  bytes_ -= entry->prefix.bytes();
  entries_.erase(entry);
}

}  // namespace vlm::infer
