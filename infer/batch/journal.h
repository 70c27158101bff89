// The journal beside an output: which items have a row there, and where each row ends.
//
//   output.jsonl          row row row …
//   output.jsonl.journal  one JSON line (JournalHeader), then RowRecords of 32 bytes
//
// A row is written before its record, so that after a kill at any moment every valid record
// describes a whole row. A record has a digest (XXH3-64) of its row and a checksum of itself. A
// journal alone proves nothing: row_match.h compares it with the output.
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
  OrderedJson options;  // option → value, of everything that rows depend on (fingerprint.h)
};

struct RowRecord {
  enum Flag : std::uint32_t {
    kError = 1,     // the row holds an error
    kPreamble = 2,  // not a row but the text before all rows, such as CSV's header
  };

  std::uint64_t ordinal = 0;
  std::uint64_t end = 0;  // offset in the output of the row's end; it begins at the end before

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
  std::size_t unbroken = 0;        // records from the start without a gap between them
  std::uint64_t size = 0;          // bytes of header and unbroken records
};

std::filesystem::path journal_path(const std::filesystem::path& output);

std::string to_line(const JournalHeader& header);

// True when the file begins like a journal, of any version.
bool is_journal(const std::filesystem::path& path);

// Reads the header and the valid records. Returns nothing when the file is missing or ends inside
// its header. Throws Error when it can't be read, is no journal, or has another version.
std::optional<Journal> read_journal(const std::filesystem::path& path);

}  // namespace vlm::infer
