// Picture folders with metadata.jsonl or metadata.csv; the format is described in dataset.h.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/dataset.h"

namespace vlm::data {

std::unique_ptr<Dataset> load_folder_dataset(const std::filesystem::path& folder,
                                             const FolderOptions& options);

// RFC 4180: quoted fields may hold commas, line breaks and doubled quotes. Throws Error for an
// unclosed quote.
std::vector<std::vector<std::string>> parse_csv(std::string_view text, const std::string& where);

}  // namespace vlm::data
