// Which files make a checkpoint folder: weights, and what lies beside them.
#pragma once

#include <filesystem>
#include <vector>

namespace vlm {

// Every file of a folder that load_model and load_processor may read, weights first. Throws Error
// as Checkpoint does.
std::vector<std::filesystem::path> model_files(const std::filesystem::path& folder);

// True for the names of what belongs to a checkpoint beside its weights, as transformers names it.
bool is_side_file(const std::filesystem::path& path);

// True for these and for the names of weights, in any format that transformers loads.
bool is_model_file(const std::filesystem::path& path);

}  // namespace vlm
