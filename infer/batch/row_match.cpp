#include "infer/batch/row_match.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "vlm/io/list_digest.h"

namespace vlm::infer {
namespace {

constexpr std::uint64_t kLongestRow = 1 << 30;

std::string with_line_end(std::string_view line, const std::string& line_end) {
  if (line.ends_with('\n')) line.remove_suffix(1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return std::string(line) + line_end;
}

class Matcher {
 public:
  Matcher(const Journal& journal, std::int64_t items, const RowFile& output,
          const std::string& line_end)
      : records_(journal.records),
        unbroken_(journal.unbroken),
        line_end_(line_end),
        reader_(output),
        size_(output.is_open() ? output.size() : 0),
        is_used_(static_cast<std::size_t>(items), false) {}

  RowMatch run() {
    const std::size_t first = match_in_place();
    if (first < records_.size()) match_by_content(first);
    if (match_.end < size_ && match_.is_in_place) add_foreign_lines();
    return std::move(match_);
  }

 private:
  // Each item counts once, whatever a journal says.
  bool use(const RowRecord& record) {
    if (!record.is_row()) return !std::exchange(has_preamble_, true);
    if (record.ordinal >= is_used_.size() || is_used_[record.ordinal]) return false;
    return is_used_[record.ordinal] = true;
  }

  void add(const RowRecord& record, std::uint64_t begin, std::uint64_t size) {
    match_.rows.push_back(
        {record.ordinal, record.digest, begin, static_cast<std::uint32_t>(size), record.flags});
    match_.end = begin + size;
  }

  // Returns the first record whose row isn't at its place.
  std::size_t match_in_place() {
    std::uint64_t begin = 0;
    for (std::size_t i = 0; i < unbroken_; ++i) {
      const RowRecord& record = records_[i];
      const std::uint64_t size = record.end - begin;
      if (size > kLongestRow || record.end > size_) return i;
      if (digest_of(reader_.at(begin, size)) != record.digest || !use(record)) return i;
      add(record, begin, size);
      begin = record.end;
    }
    return unbroken_;
  }

  void match_by_content(std::size_t first) {
    match_.is_in_place = false;
    std::uint64_t before = match_.end;
    for (std::size_t i = first; i < records_.size(); ++i) {
      const RowRecord& record = records_[i];
      wanted_.emplace(record.digest, &record);
      const bool has_length = i < unbroken_ && record.end - before <= kLongestRow;
      longest_ = std::max<std::uint64_t>(longest_, has_length ? record.end - before : 1 << 20);
      before = record.end;
    }
    for (std::uint64_t at = match_.end; at < size_;) {
      const std::string_view text = reader_.at(at, longest_ + 2);
      const std::uint64_t size = match_lines(text, at);
      if (size > 0) {
        at += size;
        continue;
      }
      const std::uint64_t line = line_size(at);
      add_foreign(at, at + line);
      at += line;
    }
    match_.lost += static_cast<std::int64_t>(
        std::count_if(wanted_.begin(), wanted_.end(), [this](const auto& candidate) {
          return candidate.second->is_row() && use(*candidate.second);
        }));
  }

  // Takes the row that begins with the text, when a record knows it. Rows of CSV may hold line
  // ends, between quotes. Returns its size in the file, or 0.
  std::uint64_t match_lines(std::string_view text, std::uint64_t at) {
    bool is_quoted = false;
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find('\n', begin), text.size() - 1) + 1;
      const std::string_view line = text.substr(begin, end - begin);
      is_quoted = is_quoted != (std::count(line.begin(), line.end(), '"') % 2 == 1);
      begin = end;
      if (is_quoted && line_end_ == "\r\n") continue;
      const auto [from, to] =
          wanted_.equal_range(digest_of(with_line_end(text.substr(0, end), line_end_)));
      for (auto candidate = from; candidate != to; ++candidate) {
        if (!use(*candidate->second)) continue;
        add(*candidate->second, at, end);
        wanted_.erase(candidate);
        return end;
      }
      return 0;
    }
    return 0;
  }

  // Of the line that begins there, its end with it.
  std::uint64_t line_size(std::uint64_t at) {
    std::uint64_t size = 0;
    while (at + size < size_) {
      const std::string_view text = reader_.at(at + size, 1 << 16);
      const std::size_t end = text.find('\n');
      if (end != std::string_view::npos) return size + end + 1;
      if (text.empty()) return size_ - at;  // it is being cut meanwhile
      size += text.size();
    }
    return size;
  }

  void add_foreign(std::uint64_t begin, std::uint64_t end) {
    const std::string_view start = reader_.at(begin, std::min<std::uint64_t>(end - begin, 4096));
    if (start.find_first_not_of('\0') == std::string_view::npos) return;  // never written
    if (!match_.foreign.empty() && match_.foreign.back().end == begin) {
      match_.foreign.back().end = end;
    } else {
      match_.foreign.push_back({begin, end});
    }
  }

  // What stands behind the last record: whole lines. What has no line end was being written.
  void add_foreign_lines() {
    for (std::uint64_t at = match_.end; at < size_;) {
      const std::uint64_t line = line_size(at);
      if (reader_.at(at + line - 1, 1) == "\n") add_foreign(at, at + line);
      at += line;
    }
  }

  const std::vector<RowRecord>& records_;
  const std::size_t unbroken_;
  const std::string& line_end_;
  RowReader reader_;
  const std::uint64_t size_;
  std::vector<bool> is_used_;
  bool has_preamble_ = false;
  std::unordered_multimap<std::uint64_t, const RowRecord*> wanted_;  // by the row's digest
  std::uint64_t longest_ = 0;
  RowMatch match_;
};

}  // namespace

RowMatch match_rows(const Journal& journal, std::int64_t items, const RowFile& output,
                    const std::string& line_end) {
  return Matcher(journal, items, output, line_end).run();
}

std::string read_row(RowReader& reader, const MatchedRow& row, const std::string& line_end) {
  const std::string_view bytes = reader.at(row.begin, row.size);
  if (digest_of(bytes) == row.digest) return std::string(bytes);
  return with_line_end(bytes, line_end);
}

}  // namespace vlm::infer
