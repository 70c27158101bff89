#include "train/run/run_inputs.h"

#include <algorithm>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "vlm/core/concat.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/io/checkpoint.h"
#include "vlm/io/file_digest.h"
#include "vlm/models/model_files.h"

namespace vlm::train {
namespace {

namespace fs = std::filesystem;

void add(InputFiles& files, const std::string& role, const fs::path& path) {
  files.push_back({.role = role, .path = path, .stamp = stamp_file(path)});
}

void add_model(InputFiles& files, const TrainConfig& config, const fs::path& folder) {
  for (const fs::path& path : model_files(folder)) {
    const bool is_used = config.init_weights != "random" || !is_weights_file(path);
    if (is_used) add(files, "model", path);
  }
}

void add_data(InputFiles& files, const std::string& role, const Json& entries) {
  for (const data::DataFile& entry : data::parse_data_files(entries, {}, role)) {
    for (const data::DataFile& file : data::expand_data_file(entry)) {
      if (!fs::is_directory(file.path)) {
        add(files, role, file.path);
        continue;
      }
      for (const char* name : {"metadata.jsonl", "metadata.csv"}) {
        const fs::path metadata = fs::path(file.path) / name;
        if (fs::exists(metadata)) add(files, role, metadata);
      }
    }
  }
}

// The rows whose media are looked at: spread evenly, or where rows are read in blocks, spread over
// a few of them, as each costs a block.
std::vector<std::int64_t> choose_rows(const data::Dataset& dataset) {
  constexpr std::int64_t kBlocks = 8;
  const std::int64_t size = dataset.size(), count = std::min(size, kMediaRows);
  const std::int64_t stretch = dataset.blocks().empty() ? 1 : (count + kBlocks - 1) / kBlocks;
  std::vector<std::int64_t> rows;
  for (std::int64_t first = 0; first < count; first += stretch) {
    const std::int64_t end = std::min(first + stretch, count);
    for (std::int64_t i = first; i < end; ++i) rows.push_back(first * size / count + i - first);
  }
  return rows;
}

void add_media(InputFiles& files, const data::Dataset& dataset, std::set<std::string>& known) {
  for (const std::int64_t row : choose_rows(dataset)) {
    try {
      for (const data::MediaRef& medium : dataset.at(row).media) {
        if (medium.is_file() && known.insert(medium.name).second) add(files, "media", medium.name);
      }
    } catch (const Error&) {
      // A malformed row is told when a step wants it.
    }
  }
}

std::string read_digest(const InputFile& file, const std::stop_token& stop = {}) {
  if (file.stamp.empty()) return "";
  try {
    const bool is_medium = file.role == "media";
    return digest_content(file.path,
                          is_medium ? kWholeMedia : std::numeric_limits<std::int64_t>::max(), stop);
  } catch (const Error& error) {
    log_warning(concat("going on won't notice changes of a file: ", error.what()));
    return "";
  }
}

Error changed(const InputFile& file, const std::string& what, const std::string& got,
              const std::string& wanted) {
  return Error({.what = what,
                .where = file.path.string(),
                .got = got,
                .wanted = wanted,
                .hint = "the run began with it: put it back, use another output_dir, or --restart "
                        "to begin anew"});
}

// "1234 bytes" of a stamp.
std::string size_text(const std::string& stamp) {
  return stamp.empty() ? "no file" : stamp.substr(0, stamp.find(' ')) + " bytes";
}

void check_same(InputFile& current, const InputFile& recorded) {
  if (current.stamp == recorded.stamp) {
    current.digest = recorded.digest;
    return;
  }
  current.digest = read_digest(current);
  if (current.digest == recorded.digest && !current.digest.empty()) return;
  const std::string got = size_text(current.stamp), wanted = size_text(recorded.stamp);
  const std::string other = got == wanted ? "other content" : got;
  throw changed(current, "the file isn't what it was when the run began", other, wanted);
}

}  // namespace

std::string InputFile::key() const {
  const bool may_move = role == "model" || role == "adapter";
  const Json name = may_move ? path.filename().string() : path.string();
  // As inputs.json has it, which holds no bytes that aren't UTF-8.
  return concat(role, " ", name.dump(-1, ' ', false, Json::error_handler_t::replace));
}

InputFiles find_inputs(const TrainConfig& config, const fs::path& model,
                       const std::vector<const data::Dataset*>& datasets) {
  InputFiles files;
  add_model(files, config, model);
  if (config.adapter) {
    for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) {
      add(files, "adapter", fs::path(*config.adapter) / name);
    }
  }
  add_data(files, "train_files", config.train_files);
  for (const Stage& stage : config.parse_stages()) {
    add_data(files, "train_files", stage.train_files);
  }
  add_data(files, "eval_files", config.eval_files);
  std::set<std::string> known;
  for (const data::Dataset* dataset : datasets) {
    if (dataset) add_media(files, *dataset, known);
  }
  return files;
}

void digest_inputs(InputFiles& files, const std::stop_token& stop) {
  for (InputFile& file : files) {
    if (!file.digest.empty() || stop.stop_requested()) continue;
    file.digest = read_digest(file, stop);
    if (stamp_file(file.path) == file.stamp) continue;
    log_warning(concat(file.path.string(), " changes while the run reads it"));
  }
}

void check_inputs(InputFiles& current, const InputFiles& recorded) {
  std::map<std::string, const InputFile*> wanted;
  for (const InputFile& file : recorded) wanted.emplace(file.key(), &file);
  for (InputFile& file : current) {
    const auto found = wanted.find(file.key());
    if (found == wanted.end()) {
      throw changed(file, "the file wasn't there when the run began", size_text(file.stamp),
                    "no file");
    }
    check_same(file, *found->second);
  }
  std::set<std::string> present;
  for (const InputFile& file : current) present.insert(file.key());
  for (const InputFile& file : recorded) {
    if (present.count(file.key())) continue;
    throw changed(file, "the run doesn't read the file any more", "no file", size_text(file.stamp));
  }
}

std::string to_text(const InputFiles& files) {
  OrderedJson list = OrderedJson::array();
  for (const InputFile& file : files) {
    list.push_back({{"role", file.role},
                    {"path", file.path.string()},
                    {"digest", file.digest},
                    {"stamp", file.stamp}});
  }
  const OrderedJson json = {{"files", list}};
  return json.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

InputFiles load_inputs(const fs::path& path) {
  const Json json = load_json(path);
  const auto list = json.is_object() ? json.find("files") : json.end();
  if (!json.is_object() || list == json.end() || !list->is_array()) {
    throw Error({.what = "not a list of inputs", .where = path.string(), .wanted = "'files'"});
  }
  InputFiles files;
  for (const Json& row : *list) {
    InputFile file;
    std::string place;
    read_fields(
        row,
        {{"role", &file.role}, {"path", &place}, {"digest", &file.digest}, {"stamp", &file.stamp}},
        UnknownKeys::kIgnore, path.string());
    file.path = place;
    files.push_back(std::move(file));
  }
  return files;
}

}  // namespace vlm::train
