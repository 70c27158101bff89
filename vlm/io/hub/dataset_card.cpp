#include "vlm/io/hub/dataset_card.h"

#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"
#include "vlm/core/config/config_text.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

using Names = std::vector<std::string>;
using Splits = std::map<std::string, Names>;  // split → patterns

struct Config {
  std::string name;
  bool is_default = false;
  Splits patterns;
};

// Between the two lines "---" at the beginning; "" without them.
std::string header_of(const std::string& card) {
  if (!card.starts_with("---")) return "";
  const auto begin = card.find('\n');
  const auto end = card.find("\n---", begin == std::string::npos ? card.size() : begin);
  return end == std::string::npos ? "" : card.substr(begin + 1, end - begin);
}

Names strings_of(const OrderedJson& value) {
  Names names;
  if (value.is_string()) names.push_back(value.get<std::string>());
  if (value.is_array()) {
    for (const OrderedJson& entry : value) {
      if (entry.is_string()) names.push_back(entry.get<std::string>());
    }
  }
  return names;
}

void add_patterns(Splits& splits, const std::string& split, const OrderedJson& paths,
                  const std::string& folder) {
  for (std::string pattern : strings_of(paths)) {
    if (pattern.starts_with("./")) pattern.erase(0, 2);
    splits[split].push_back(folder.empty() ? pattern : concat(folder, "/", pattern));
  }
}

// data_files: a pattern, a list of them, a map of splits, or a list of {split, path}.
Splits read_data_files(const OrderedJson& files, const std::string& folder) {
  Splits splits;
  if (files.is_object()) {
    for (const auto& [split, paths] : files.items()) add_patterns(splits, split, paths, folder);
    return splits;
  }
  add_patterns(splits, "train", files, folder);
  if (!files.is_array()) return splits;
  for (const OrderedJson& entry : files) {
    if (!entry.is_object() || !entry.contains("path")) continue;
    const Names split = strings_of(entry.value("split", OrderedJson("train")));
    add_patterns(splits, split.empty() ? "train" : split[0], entry["path"], folder);
  }
  return splits;
}

std::vector<Config> read_configs(const std::string& card, const std::string& where) {
  const std::string header = header_of(card);
  if (header.empty()) return {};
  const OrderedJson values = parse_yaml(header, concat(where, "/", kDatasetCard)).values;
  if (!values.is_object() || !values.contains("configs") || !values["configs"].is_array()) {
    return {};
  }
  std::vector<Config> configs;
  for (const OrderedJson& entry : values["configs"]) {
    if (!entry.is_object()) continue;
    const Names name = strings_of(entry.value("config_name", OrderedJson("default")));
    const Names folder = strings_of(entry.value("data_dir", OrderedJson()));
    Config config{.name = name.empty() ? "default" : name[0], .patterns = {}};
    config.is_default = entry.value("default", OrderedJson(false)) == true;
    std::string below = folder.empty() ? "" : folder[0];
    while (below.ends_with('/')) below.pop_back();
    if (entry.contains("data_files")) {
      config.patterns = read_data_files(entry["data_files"], below);
    } else if (!below.empty()) {
      config.patterns["train"] = {below + "/**"};
    }
    configs.push_back(std::move(config));
  }
  return configs;
}

const Config& choose_config(const std::vector<Config>& configs, const std::string& wanted,
                            const std::string& where) {
  Names names;
  for (const Config& config : configs) {
    names.push_back(config.name);
    if (config.name == wanted) return config;
  }
  if (wanted.empty()) {
    for (const Config& config : configs) {
      if (config.is_default) return config;
    }
    for (const Config& config : configs) {
      if (config.name == "default") return config;
    }
    if (configs.size() == 1) return configs[0];
  }
  throw Error({.what = wanted.empty() ? "the data set has several configs"
                                      : concat("no config '", wanted, "' in the data set"),
               .where = where,
               .wanted = concat("config_name, one of ", join(names))});
}

// The kinds of files that rows are read from, in the order in which a repository is searched.
constexpr std::array kEndings = {".parquet", ".arrow", ".jsonl", ".json", ".csv", ".tar"};

bool has_ending(const std::string& name, std::string_view ending) {
  return std::string_view(name).ends_with(ending);
}

// Files that describe the data set, not its rows.
bool is_description(const std::string& name) {
  const std::string file = name.substr(name.rfind('/') + 1);
  return file == "dataset_infos.json" || file == "dataset_info.json" || file == "state.json" ||
         file.starts_with('.');
}

// "data/train-00000-of-00002-a1b2.parquet" → train.
std::string sharded_split(const std::string& name) {
  const std::string file = name.substr(name.rfind('/') + 1);
  const auto at = file.find("-of-");
  if (at == std::string::npos || at < 7) return "";
  const auto dash = file.rfind('-', at - 1);
  return dash == std::string::npos ? "" : file.substr(0, dash);
}

// The split that a word of the path says; files go before folders, the last folder first.
std::string named_split(const std::string& name) {
  static const std::map<std::string, std::string> splits = {
      {"train", "train"},      {"training", "train"}, {"validation", "validation"},
      {"valid", "validation"}, {"dev", "validation"}, {"val", "validation"},
      {"test", "test"},        {"testing", "test"},   {"eval", "test"},
      {"evaluation", "test"}};
  std::string word;
  for (std::size_t i = name.size() + 1; i-- > 0;) {
    if (i > 0 && is_letter(name[i - 1])) {
      word.insert(word.begin(), name[i - 1]);
      continue;
    }
    if (const auto found = splits.find(ascii_lower(word)); found != splits.end())
      return found->second;
    word.clear();
  }
  return "";
}

// Splits by names alone. A folder of media with metadata.jsonl or .csv is taken whole.
Splits splits_by_name(const Names& listed) {
  const bool has_metadata = std::any_of(listed.begin(), listed.end(), [](const auto& name) {
    return has_ending("/" + name, "/metadata.jsonl") || has_ending("/" + name, "/metadata.csv");
  });
  Names files;
  for (const char* ending : kEndings) {
    if (!files.empty() || has_metadata) break;
    std::copy_if(listed.begin(), listed.end(), std::back_inserter(files), [&](const auto& name) {
      return has_ending(name, ending) && !is_description(name);
    });
  }
  if (has_metadata) {
    std::copy_if(listed.begin(), listed.end(), std::back_inserter(files),
                 [](const auto& name) { return name != kDatasetCard && !is_description(name); });
  }
  Splits splits;
  for (const std::string& file : files) {
    std::string split = sharded_split(file);
    if (split.empty()) split = named_split(file);
    splits[split].push_back(file);
  }
  // Without a name that says a split, everything is train; with one, other files aren't read.
  if (splits.size() == 1 && splits.count("") > 0) splits = {{"train", files}};
  splits.erase("");
  return splits;
}

Names match_files(const Names& listed, const std::string& pattern, const std::string& where) {
  Names files;
  for (const std::string& file : listed) {
    if (file == pattern || matches_glob(file, pattern)) files.push_back(file);
  }
  if (files.empty()) {
    throw Error({.what = "no such file in the repository", .where = where, .got = pattern});
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

bool matches_glob(std::string_view path, std::string_view pattern) {
  const auto slash = pattern.find('/');
  const std::string_view part = pattern.substr(0, slash);
  const std::string_view behind =
      slash == std::string_view::npos ? std::string_view() : pattern.substr(slash + 1);
  if (part == "**") {
    if (slash == std::string_view::npos) return !path.empty();
    for (;;) {  // ** stands for no folder, or for one more
      if (matches_glob(path, behind)) return true;
      const auto next = path.find('/');
      if (next == std::string_view::npos) return false;
      path.remove_prefix(next + 1);
    }
  }
  const auto end = path.find('/');
  if ((end == std::string_view::npos) != (slash == std::string_view::npos)) return false;
  const std::string name(path.substr(0, end)), shell(part);
  if (::fnmatch(shell.c_str(), name.c_str(), FNM_PERIOD) != 0) return false;
  return slash == std::string_view::npos || matches_glob(path.substr(end + 1), behind);
}

Names choose_data_files(const std::string& card, const Names& listed, const DatasetChoice& choice,
                        const std::string& where) {
  if (!choice.files.empty()) return match_files(listed, choice.files, where);
  const std::vector<Config> configs = read_configs(card, where);
  Splits splits;
  if (!configs.empty()) {
    const Config& config = choose_config(configs, choice.config, where);
    for (const auto& [split, patterns] : config.patterns) {
      for (const std::string& file : listed) {
        const bool is_match = std::any_of(patterns.begin(), patterns.end(), [&](const auto& glob) {
          return matches_glob(file, glob);
        });
        if (is_match && file != kDatasetCard) splits[split].push_back(file);
      }
    }
    // Files that the names alone would choose are of another config, or of none.
    if (splits.empty() && !config.patterns.empty()) {
      Names patterns;
      for (const auto& [split, globs] : config.patterns) {
        patterns.insert(patterns.end(), globs.begin(), globs.end());
      }
      throw Error({.what = concat("no files of config '", config.name, "' in the repository"),
                   .where = where,
                   .wanted = concat("files that match ", join(patterns))});
    }
  } else if (!choice.config.empty() && choice.config != "default") {
    throw Error({.what = concat("no config '", choice.config, "' in the data set"),
                 .where = where,
                 .hint = "its card names none"});
  }
  if (splits.empty()) splits = splits_by_name(listed);
  if (splits.empty()) {
    throw Error({.what = "no data files in the repository",
                 .where = where,
                 .wanted = join(Names(kEndings.begin(), kEndings.end())) +
                           ", or a folder of "
                           "pictures with metadata.jsonl"});
  }
  std::set<std::string> chosen;
  Names names;
  for (const auto& [split, files] : splits) {
    names.push_back(split);
    if (choice.split == split || choice.split == "all") chosen.insert(files.begin(), files.end());
  }
  if (chosen.empty()) {
    throw Error({.what = concat("no split '", choice.split, "' in the data set"),
                 .where = where,
                 .wanted = concat("split, one of ", join(names), ", or all")});
  }
  return {chosen.begin(), chosen.end()};
}

}  // namespace vlm
