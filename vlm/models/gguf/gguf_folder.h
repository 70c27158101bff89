// GGUF files as a checkpoint folder, so that all else reads them as any other model.
//
//   model.gguf, mmproj.gguf ─► a folder in the cache with config.json, tokenizer.json, chat
//   template, …, made of their keys, and links to the files, whose weights are read there
//
// The cache is XDG_CACHE_HOME/vlm/gguf, else ~/.cache/vlm/gguf; a folder takes a few megabytes, and
// is made anew when one of the files changes.
#pragma once

#include <filesystem>
#include <string>

namespace vlm {

// `vision` may be empty; then the one file "mmproj*.gguf" beside the model is taken, if its text
// model has a token for pictures. Throws Error for files that aren't read, and where several could
// be meant.
std::filesystem::path open_gguf_folder(const std::filesystem::path& model,
                                       const std::filesystem::path& vision);

// The folder of a model by whatever names it: a GGUF file, a folder with one, or as
// find_or_pull_model (vlm/io/hub/hub_pull.h). `vision`: a GGUF file, or empty.
std::filesystem::path find_model_folder(const std::string& model, const std::string& vision = "");

// True for folders that open_gguf_folder makes.
bool is_gguf_folder(const std::filesystem::path& folder);

}  // namespace vlm
