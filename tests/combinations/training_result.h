// What a drawn training left: its own files and nothing else, finite, the same as another run's.
// Each check throws DrawFailed.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "vlm/core/json.h"

namespace vlm {

// Every file in the folder is one that a training writes, and none is half made.
void expect_owned_files(const std::filesystem::path& output, const Json& config);

// Every number in the folder's tensors and metrics is finite.
void expect_finite(const std::filesystem::path& output);

// Weights, optimizer states, answers, and metrics but for times and memory.
void expect_same_results(const std::filesystem::path& whole, const std::filesystem::path& parts);

// All files of the folder and their bytes.
std::map<std::string, std::string> read_folder(const std::filesystem::path& folder);

}  // namespace vlm
