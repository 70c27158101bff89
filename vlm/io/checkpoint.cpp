#include "vlm/io/checkpoint.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/run/stop_signal.h"
#include "vlm/io/convert.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr std::size_t kListed = 10;  // names that an error spells out

std::string list_first(const std::vector<std::string>& items) {
  const std::vector<std::string> first(items.begin(),
                                       items.begin() + std::min(items.size(), kListed));
  const std::size_t omitted = items.size() - first.size();
  return join(first) + (omitted ? concat(" and ", omitted, " more") : "");
}

// What doesn't fit between the files and the model, collected so that one error can tell it all.
struct Mismatch {
  std::vector<std::string> unused, missing, misshapen;

  void raise_if_any(const fs::path& folder) const {
    std::vector<std::string> parts;
    if (!missing.empty()) {
      parts.push_back(
          concat(missing.size(), " parameters not in the files: ", list_first(missing)));
    }
    if (!unused.empty()) {
      parts.push_back(
          concat(unused.size(), " keys the model has no use for: ", list_first(unused)));
    }
    if (!misshapen.empty()) {
      parts.push_back(concat(misshapen.size(), " wrong shapes: ", list_first(misshapen)));
    }
    if (parts.empty()) return;
    throw Error(
        {.what = "weights don't fit the model: " + join(parts, "; "), .where = folder.string()});
  }
};

// Gives every parameter its value. A parameter keeps its identity; only its storage changes.
void fill_all(const std::map<std::string, at::Tensor>& parameters,
              const std::map<std::string, std::string>& key_of, const TensorSource& source,
              const LoadRules& rules) {
  std::vector<Conversion> conversions;
  for (const auto& [name, key] : key_of) {
    const at::Tensor& parameter = parameters.at(name);
    // Storing in few bits takes time, mapping none.
    if (rules.store_quantized || rules.store_codes) throw_if_stopped();
    if (rules.store_codes && rules.store_codes(name, key)) continue;
    const at::Tensor value = source.tensor(key);
    const bool is_mapped = !source.is_decoded(key);
    if (rules.store_quantized && rules.store_quantized(name, value)) {
      if (is_mapped) drop_pages(value);
      continue;
    }
    const at::ScalarType dtype = rules.narrowed.count(name) ? at::kBFloat16 : rules.dtype;
    const bool is_kept = value.scalar_type() == at::kBFloat16 && rules.kept_bfloat16.count(name);
    if (!rules.device.is_cpu()) {
      parameter.set_data(value.to(rules.device, dtype));
      if (is_mapped) drop_pages(value);
    } else if (is_kept || value.scalar_type() == dtype) {
      parameter.set_data(value);
    } else if (!is_mapped) {
      parameter.set_data(value.to(dtype));
    } else {
      conversions.push_back({value, empty_weight(value.sizes(), dtype)});
      parameter.set_data(conversions.back().to);
    }
  }
  convert_mapped(conversions);
}

std::string describe_entry(const std::string& name, const TensorEntry& entry) {
  return concat(name, " ", shape_text(entry.shape));
}

void check_dtype(const std::string& key, const TensorEntry& entry, const fs::path& folder) {
  if (entry.dtype == at::kFloat || entry.dtype == at::kHalf || entry.dtype == at::kBFloat16) return;
  throw Error({.what = "weights have an unsupported dtype",
               .where = concat(folder.string(), ": ", key),
               .got = dtype_text(entry.dtype),
               .wanted = "F32, F16 or BF16"});
}

std::string shard_name(std::size_t number, std::size_t count) {
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", number, count);
  return name;
}

std::vector<NamedTensors> split_shards(const NamedTensors& parameters, std::uint64_t max_bytes) {
  std::vector<NamedTensors> shards(1);
  std::uint64_t bytes = 0;
  for (const auto& item : parameters) {
    if (bytes > 0 && bytes + item.second.nbytes() > max_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().push_back(item);
    bytes += item.second.nbytes();
  }
  return shards;
}

// What an earlier save left there in the same format.
void remove_other_weights(const fs::path& folder, const std::set<std::string>& written) {
  std::vector<fs::path> others;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool is_ours = name == kIndexFile || name.ends_with(".safetensors");
    if (is_ours && is_weights_file(name) && !written.count(name)) others.push_back(entry.path());
  }
  for (const fs::path& other : others) fs::remove(other);
}

}  // namespace

Checkpoint::Checkpoint(const fs::path& folder) : folder_(folder) {
  const fs::path single = folder / kSingleFile;
  const fs::path index = folder / kIndexFile;
  if (fs::exists(single)) {
    files_.push_back(std::make_unique<SafetensorsFile>(single));
    for (const auto& [key, entry] : files_.back()->entries()) file_of_[key] = files_.back().get();
  } else if (fs::exists(index)) {
    open_sharded(index);
  } else {
    const bool pickled = fs::exists(folder / "pytorch_model.bin");
    throw Error(
        {.what = "no weights in the folder",
         .where = folder.string(),
         .wanted = "model.safetensors or model.safetensors.index.json",
         .hint = pickled ? "pytorch_model.bin is a pickle and is never read; convert it" : ""});
  }
}

void Checkpoint::open_sharded(const fs::path& index) {
  const Json parsed = load_json(index);
  const auto map = parsed.is_object() ? parsed.find("weight_map") : parsed.end();
  if (!parsed.is_object() || map == parsed.end() || !map->is_object()) {
    throw Error({.what = "no weight_map", .where = index.string(), .wanted = "an object"});
  }
  std::map<std::string, const SafetensorsFile*> opened;
  for (const auto& [key, value] : map->items()) {
    const std::string where = index.string() + ": " + key;
    if (!value.is_string() || value.get<std::string>().find('/') != std::string::npos ||
        !value.get<std::string>().ends_with(".safetensors")) {
      throw Error({.what = "not a shard of this folder", .where = where, .got = describe(value)});
    }
    const std::string name = value.get<std::string>();
    if (!opened.count(name)) {
      if (!fs::exists(folder_ / name)) {
        throw Error({.what = "missing shard", .where = where, .got = concat("no file ", name)});
      }
      files_.push_back(std::make_unique<SafetensorsFile>(folder_ / name));
      opened[name] = files_.back().get();
    }
    if (!opened[name]->entries().count(key)) {
      throw Error({.what = "shard lacks the tensor", .where = where, .got = name});
    }
    file_of_[key] = opened[name];
  }
  for (const auto& file : files_) {
    for (const auto& [key, entry] : file->entries()) {
      if (file_of_.count(key)) continue;
      throw Error(
          {.what = "tensor is not in the index", .where = file->path().string(), .got = key});
    }
  }
}

std::vector<fs::path> Checkpoint::paths() const {
  std::vector<fs::path> paths;
  const fs::path index = folder_ / kIndexFile;
  if (files_.front()->path().filename() != kSingleFile) paths.push_back(index);
  for (const auto& file : files_) paths.push_back(file->path());
  return paths;
}

std::vector<std::string> Checkpoint::keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, file] : file_of_) keys.push_back(key);
  return keys;
}

const TensorEntry& Checkpoint::entry(const std::string& key) const {
  const auto found = file_of_.find(key);
  if (found == file_of_.end()) {
    throw Error({.what = concat("no tensor '", key, "'"), .where = folder_.string()});
  }
  return found->second->entries().at(key);
}

at::Tensor Checkpoint::tensor(const std::string& key) const {
  entry(key);  // names the folder when the key is unknown
  return file_of_.at(key)->tensor(key);
}

void load_weights(const NamedTensors& parameters, const TensorSource& source,
                  const LoadRules& rules) {
  const std::map<std::string, at::Tensor> wanted(parameters.begin(), parameters.end());
  std::map<std::string, std::string> key_of;  // parameter → key in the files
  Mismatch mismatch;
  for (const std::string& key : source.keys()) {
    const std::string name = rules.rename ? rules.rename(key) : key;
    const TensorEntry& entry = source.entry(key);
    const auto found = wanted.find(name);
    if (found == wanted.end()) {
      if (!rules.is_ignorable || !rules.is_ignorable(name)) {
        mismatch.unused.push_back(describe_entry(key, entry));
      }
      continue;
    }
    check_dtype(key, entry, source.place());
    if (found->second.sizes() != at::IntArrayRef(entry.shape)) {
      mismatch.misshapen.push_back(
          concat(describe_entry(key, entry), " instead of ", shape_text(found->second.sizes())));
    }
    if (!key_of.emplace(name, key).second) {
      throw Error({.what = "two keys for one parameter",
                   .where = source.place().string(),
                   .got = concat(key_of[name], " and ", key)});
    }
  }
  for (const auto& [name, parameter] : parameters) {
    const auto tied = rules.tied.find(name);
    if (key_of.count(name) || (tied != rules.tied.end() && key_of.count(tied->second))) continue;
    mismatch.missing.push_back(concat(name, " ", shape_text(parameter.sizes())));
  }
  mismatch.raise_if_any(source.place());

  fill_all(wanted, key_of, source, rules);
  for (const auto& [name, source] : rules.tied) {
    if (!key_of.count(name)) wanted.at(name).set_data(wanted.at(source));
  }
}

bool is_weights_file(const fs::path& path) {
  const std::string name = path.filename().string();
  const auto is_part = [&](const char* begin, const char* suffix) {
    return name.starts_with(begin) && name.ends_with(suffix);
  };
  return name == kSingleFile || name == kIndexFile || is_part("model-", ".safetensors") ||
         is_part("pytorch_model", ".bin") || name == "pytorch_model.bin.index.json" ||
         is_part("tf_model", ".h5") || name == "tf_model.h5.index.json" ||
         is_part("flax_model", ".msgpack") || name == "flax_model.msgpack.index.json";
}

void save_weights(const fs::path& folder, const NamedTensors& parameters,
                  std::uint64_t max_shard_bytes) {
  const auto shards = split_shards(parameters, max_shard_bytes);
  std::set<std::string> written;
  OrderedJson index;
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shards.size() == 1 ? kSingleFile : shard_name(i + 1, shards.size());
    save_safetensors(folder / name, shards[i]);
    written.insert(name);
    for (const auto& [key, tensor] : shards[i]) {
      index["weight_map"][key] = name;
      total += tensor.nbytes();
    }
  }
  if (shards.size() > 1) {
    index["metadata"]["total_size"] = total;
    save_text(folder / kIndexFile, index.dump(2) + "\n");
    written.insert(kIndexFile);
  }
  remove_other_weights(folder, written);
}

}  // namespace vlm
