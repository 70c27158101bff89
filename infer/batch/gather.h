// Outputs of shards → one output, in the order of the input.
//
//   rows.shard-0-of-2.jsonl (+ .journal), rows.shard-1-of-2.jsonl (+ .journal) ─► rows.jsonl
//
// The journals say which rows there are and where; rows that a file doesn't hold as its journal
// knows them are missing. The others are copied byte for byte.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace vlm::infer {

struct GatherOptions {
  std::filesystem::path output;  // of the whole; the shards' names are made from it
  std::int64_t shards = 0;       // 0: as many as their names say
  bool allows_partial = false;   // writes what is there although something is missing
  bool overwrites = false;       // an output that holds other lines than the shards'
};

struct GatherReport {
  std::int64_t items = 0;                 // of the whole input
  std::int64_t rows = 0;                  // found
  std::int64_t errors = 0;                // of them with an error
  std::vector<std::string> missing = {};  // "shard 2 of 8: no file", "shard 1 of 8: 12 of 40 rows"
  bool is_written = false;
};

// Throws Error when there are no shards, when they were made with different options, when an item
// has two rows, or when the output belongs to a run of its own, is a file of a shard, or holds
// lines that no shard has.
GatherReport gather_shards(const GatherOptions& options);

}  // namespace vlm::infer
