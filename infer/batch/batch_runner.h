// Folders of pictures → JSONL rows, one an item: batched, in order, safe to interrupt and start
// again.
//
//   items ─► (pictures decoded and processed ahead in threads) ─► Generator, batch by batch ─► rows
//
// A row is {"id", "path", "question" where asked, "text", "mean_logprob", "finish_reason"} or
// {"id", …, "error"}: a picture that can't be read costs its own row, never the run. Rows are
// written whole and in the order of the items, so the rows already there tell where to go on; a
// torn last line is cut off and done again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "infer/generator.h"
#include "infer/items/item.h"

namespace vlm::infer {

struct BatchOptions {
  std::filesystem::path output;
  std::int64_t batch_size = 8;
  std::int64_t workers = 2;  // threads that decode and process pictures
  GenerationOptions generation;
};

struct BatchResult {
  std::int64_t rows = 0;    // written by this run
  std::int64_t errors = 0;  // of them with an error
  bool is_interrupted = false;
};

// Throws Error when the output can't be written or holds rows of another list of items.
BatchResult run_batch(Generator& generator, const std::vector<BatchItem>& items,
                      const BatchOptions& options);

// Picture files of the paths: files as they are, folders recursively and sorted by path, each file
// once. Throws Error for a path that doesn't exist or a folder without pictures.
std::vector<std::filesystem::path> list_pictures(const std::vector<std::string>& paths);

}  // namespace vlm::infer
