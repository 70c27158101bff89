#include "data/formats/data_files.h"

#include <algorithm>
#include <set>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/io/hub/hub_pull.h"

namespace vlm::data {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kHub = "hf://";
constexpr std::string_view kHubDatasets = "hf://datasets/";

bool is_pattern(const std::string& path) {
  return path.find_first_of("*?[") != std::string::npos;
}

// The part of a pattern without wildcards, as a folder: where a walk begins.
fs::path fixed_folder(const std::string& pattern) {
  fs::path folder;
  for (const fs::path& part : fs::path(pattern).parent_path()) {
    if (is_pattern(part.string())) break;
    folder /= part;
  }
  return folder.empty() ? fs::path(".") : folder;
}

std::vector<fs::path> match_files(const std::string& pattern) {
  if (fs::exists(pattern)) return {pattern};  // a name that has brackets of its own
  const fs::path folder = fixed_folder(pattern);
  const bool is_relative = folder == "." && !pattern.starts_with("./");
  std::vector<fs::path> files;
  std::error_code error;
  const auto options = fs::directory_options::follow_directory_symlink |
                       fs::directory_options::skip_permission_denied;
  const bool is_deep = pattern.find("**") != std::string::npos;
  const std::string fixed = folder == "." ? "" : folder.string() + "/";
  const auto levels =
      std::count(pattern.begin(), pattern.end(), '/') - std::count(fixed.begin(), fixed.end(), '/');
  constexpr int kDeepest = 64;  // of a folder that links to one above it
  for (auto entry = fs::recursive_directory_iterator(folder, options, error);
       !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    if (entry.depth() >= (is_deep ? kDeepest : levels)) entry.disable_recursion_pending();
    std::string path = entry->path().string();
    if (is_relative) path.erase(0, 2);
    if (!entry->is_directory(error) && matches_glob(path, pattern)) files.emplace_back(path);
  }
  std::sort(files.begin(), files.end());
  if (files.empty()) {
    throw Error({.what = "no file matches the pattern", .where = pattern});
  }
  return files;
}

// Rows of a folder with metadata.jsonl are read through the folder; its pictures aren't rows.
std::vector<fs::path> readable(const HubDataset& dataset) {
  std::set<fs::path> folders;
  for (const std::string& file : dataset.files) {
    const fs::path path = dataset.folder / file;
    if (path.filename() == "metadata.jsonl" || path.filename() == "metadata.csv") {
      folders.insert(path.parent_path());
    }
  }
  if (!folders.empty()) return {folders.begin(), folders.end()};
  std::vector<fs::path> files;
  for (const std::string& file : dataset.files) files.push_back(dataset.folder / file);
  return files;
}

struct HubPlace {
  HubName name;
  std::string inside;  // a file or pattern of the repository; empty: as the card says
};

// "hf://datasets/org/name[@revision][/file]"
HubPlace parse_hub_place(const DataName& data) {
  std::string text = data.path.substr(std::min(kHubDatasets.size(), data.path.size()));
  while (text.ends_with('/')) text.pop_back();
  const auto org_end = text.find('/');
  const auto name_end = org_end == std::string::npos ? org_end : text.find('/', org_end + 1);
  std::string repository = text.substr(0, name_end);
  const bool names_revision = repository.find('@') != std::string::npos;
  if (!data.revision.empty() && !names_revision) repository += "@" + data.revision;
  const auto name = parse_hub_name(repository);
  if (!data.path.starts_with(kHubDatasets) || !name || (names_revision && !data.revision.empty())) {
    throw Error({.what = "not the name of a data set on a hub",
                 .where = data.path,
                 .wanted = "hf://datasets/org/name, with a revision once at most"});
  }
  HubPlace place{.name = *name, .inside = {}};
  place.name.type = HubType::kDataset;
  if (name_end != std::string::npos) place.inside = text.substr(name_end + 1);
  return place;
}

std::vector<DataPath> find_hub_files(const DataName& data) {
  const HubPlace place = parse_hub_place(data);
  DatasetChoice choice{.config = data.config_name, .files = place.inside};
  if (!data.split.empty()) choice.split = data.split;
  try {
    const HubDataset dataset = find_or_pull_dataset(place.name, choice, hub_options());
    std::vector<DataPath> files;
    for (const fs::path& path : readable(dataset)) {
      const fs::path name =
          fs::path(place.name.repository()) / path.lexically_relative(dataset.folder);
      files.push_back({path, concat(kHubDatasets, name.lexically_normal().string())});
    }
    return files;
  } catch (const Error& error) {
    if (error.parts().where.starts_with(kHub)) throw;
    throw located(error, data.path);
  }
}

}  // namespace

bool is_hub_data(const std::string& path) {
  return path.starts_with(kHub);
}

std::vector<DataPath> find_data_files(const DataName& data) {
  if (is_hub_data(data.path)) return find_hub_files(data);
  if (!data.split.empty() || !data.config_name.empty() || !data.revision.empty()) {
    throw Error({.what = "split, config_name and revision belong to data sets of a hub",
                 .where = data.path,
                 .wanted = "hf://datasets/org/name"});
  }
  if (!is_pattern(data.path)) return {{data.path, data.path}};
  std::vector<DataPath> files;
  for (const fs::path& path : match_files(data.path)) files.push_back({path, path.string()});
  return files;
}

}  // namespace vlm::data
