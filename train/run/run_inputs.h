// The files that a run reads, recorded so that it is never resumed with other files: base model,
// starting adapter, data files, and media that rows name.
//
//   config, data sets ─► find_inputs ─► digest_inputs ─► inputs.json
//   inputs.json of the checkpoint, the files as they are ─► check_inputs ─► an Error that names one
//
// Data files, weights, tokenizer and the like are compared by their whole content (XXH3-128), and
// of each data set the media of up to kMediaRows rows, evenly spread: files up to kWholeMedia bytes
// whole, longer ones by size, ends and some blocks between. A file whose stamp (size, times, inode)
// is unchanged isn't read again, so resuming usually reads nothing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "train/config/train_config.h"

namespace vlm::train {

inline constexpr const char* kInputsFile = "inputs.json";
inline constexpr std::int64_t kMediaRows = 1000;
inline constexpr std::int64_t kWholeMedia = 8 << 20;

struct InputFile {
  std::string role;  // "model", "adapter", "train_files", "eval_files" or "media"
  std::filesystem::path path;
  std::string stamp = {};   // of vlm/io/file_digest.h; empty: there is no such file
  std::string digest = {};  // empty: not computed yet, or no regular file

  // Identifies the file when lists are compared: the name below the folder of model or adapter,
  // which may be moved, else the path.
  std::string key() const;
};

using InputFiles = std::vector<InputFile>;

// Lists the files with their stamps, without reading them. `model` is the base's folder; `datasets`
// are those of the config's data files (null: none).
InputFiles find_inputs(const TrainConfig& config, const std::filesystem::path& model,
                       const std::vector<const data::Dataset*>& datasets);

// Computes the missing digests, until `stop` is requested. A file that can't be read gets none; for
// one that changes meanwhile a warning is logged.
void digest_inputs(InputFiles& files, const std::stop_token& stop = {});

// Throws Error naming the first file that differs between `current` and `recorded`, or is missing
// in one of them. Digests are copied from `recorded` where stamps agree; other files are read.
void check_inputs(InputFiles& current, const InputFiles& recorded);

// The text of inputs.json.
std::string to_text(const InputFiles& files);
// Throws Error naming `path` for a malformed file.
InputFiles load_inputs(const std::filesystem::path& path);

}  // namespace vlm::train
