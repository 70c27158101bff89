// Outputs of shards → one output, in the order of the input.
//
//   rows.shard-0-of-2.jsonl (+ .journal), rows.shard-1-of-2.jsonl (+ .journal) ─► rows.jsonl
//
// The journals say which rows there are and where. Rows are copied byte for byte; a row that
// differs from its journal's digest counts as missing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace vlm::infer {

struct GatherOptions {
  std::filesystem::path output;  // the joined file; the shards' names are made from it
  std::int64_t shards = 0;       // 0: the number in their names
  bool allows_partial = false;   // writes the rows there are although some are missing
  bool overwrites = false;       // replaces an output that holds lines of no shard
};

struct GatherReport {
  std::int64_t items = 0;                 // of the whole input
  std::int64_t rows = 0;                  // that were found
  std::int64_t errors = 0;                // rows with an error, of those
  std::vector<std::string> missing = {};  // "shard 2 of 8: no file", "shard 1 of 8: 12 of 40 rows"
  bool is_written = false;
};

// Throws Error when there are no shards, when they were made with different options, when an item
// has two rows, or when the output belongs to another run, is a shard's file, or holds lines of no
// shard.
GatherReport gather_shards(const GatherOptions& options);

}  // namespace vlm::infer
