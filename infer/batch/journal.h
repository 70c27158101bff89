// The journal beside an output: which items have a row there, and where each row ends.
//
//   output.jsonl          row row row …
//   output.jsonl.journal  one JSON line (JournalHeader), then RowRecords of 32 bytes
//
// A row is in the file before its record is, so whatever moment a run is killed at, the valid
// records describe whole rows. Every record carries a digest (XXH3-64) of its row and one of
// itself. A journal is never believed by itself: row_match.h compares it with the output.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "vlm/core/json.h"

namespace vlm::infer {

// Part `index` of `count`, 0-based as ranks are.
struct Shard {
  std::int64_t index = 0;
  std::int64_t count = 1;
};

struct JournalHeader {
  std::int64_t items = 0;        // of the whole input
  std::int64_t shard_items = 0;  // of this shard
  Shard shard = {};
  OrderedJson options;  // option → value: everything that a row depends on
};

struct RowRecord {
  enum Flag : std::uint32_t {
    kError = 1,     // the row holds an error
    kPreamble = 2,  // no row but what stands in front of all rows
  };

  std::uint64_t ordinal = 0;
  std::uint64_t end =
      0;  // offset in the output behind the row; the row before it ends where it begins
  std::uint64_t digest = 0;  // of the row's bytes
  std::uint32_t flags = 0;
  std::uint32_t check = 0;  // of the record itself, set by seal()

  bool is_row() const { return (flags & kPreamble) == 0; }
  bool is_error() const { return (flags & kError) != 0; }
  void seal();
  bool is_whole() const;
};
static_assert(sizeof(RowRecord) == 32);

struct Journal {
  JournalHeader header;
  std::vector<RowRecord> records;  // valid ones
  std::size_t unbroken = 0;        // of them from the start; between later ones some are lost
  std::uint64_t size = 0;          // bytes of header and unbroken records
};

std::filesystem::path journal_path(const std::filesystem::path& output);

std::string to_line(const JournalHeader& header);

// Whether the file begins as a journal does, of whatever version.
bool is_journal(const std::filesystem::path& path);

// Reads header and valid records; nothing when there is no file, or one that was cut off before its
// header was whole. Throws Error when it can't be read, is no journal, or one of another version.
std::optional<Journal> read_journal(const std::filesystem::path& path);

}  // namespace vlm::infer
