// The files that a run is made of, so that it never goes on with others: base model, starting
// adapter, data files, and media that rows name.
//
//   config, data sets ─► find_inputs ─► digest_inputs ─► inputs.json
//   inputs.json of the checkpoint, the files as they are ─► check_inputs ─► an Error that names one
//
// Data files, weights, tokenizer and the like are compared by their whole content (XXH3-128), the
// media of a data set by those of up to kMediaRows rows, evenly spread: whole up to kWholeMedia
// bytes, longer ones by size, ends and blocks between. A file whose stamp (size, times, inode) is
// what it was isn't read again, so going on reads nothing unless something was touched.
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
  std::string digest = {};  // empty: not read yet, or nothing to read

  // What it is compared by: the name within model and adapter, which may move, else the path.
  std::string key() const;
};

using InputFiles = std::vector<InputFile>;

// Lists and stamps them; reads none. `model` is the base's folder, `datasets` what the config's
// data files became (null: none).
InputFiles find_inputs(const TrainConfig& config, const std::filesystem::path& model,
                       const std::vector<const data::Dataset*>& datasets);

// Reads what has no digest yet, until told to stop. A file that can't be read keeps none; one that
// changes meanwhile is warned about.
void digest_inputs(InputFiles& files, const std::stop_token& stop = {});

// Throws Error naming the first file of `now` that isn't what it was in `then`, or is missing in
// one of them. Digests come from `then` where stamps agree, else the files are read.
void check_inputs(InputFiles& now, const InputFiles& then);

// The text of inputs.json.
std::string to_text(const InputFiles& files);
// Throws Error naming `path` for a malformed file.
InputFiles load_inputs(const std::filesystem::path& path);

}  // namespace vlm::train
