// Which files belong to a checkpoint folder: weights, configs, tokenizer and the like.
#pragma once

#include <filesystem>
#include <vector>

namespace vlm {

// Every file of a folder that load_model and load_processor may read, weights first. A folder
// without weights has none of them (a training may begin with random ones); otherwise throws Error
// as Checkpoint does.
std::vector<std::filesystem::path> model_files(const std::filesystem::path& folder);

// True for the names that transformers gives to files of a checkpoint other than weights.
bool is_side_file(const std::filesystem::path& path);

// True for is_side_file names and for names of weights in any format that transformers loads.
bool is_model_file(const std::filesystem::path& path);

}  // namespace vlm
