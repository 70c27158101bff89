#include "infer/batch/fingerprint.h"

#include <algorithm>
#include <set>

#include "infer/items/digest.h"
#include "vlm/core/concat.h"
#include "vlm/io/safetensors.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kEnd = 2048;  // bytes looked at from each end of a tensor

bool is_description(const fs::path& path) {
  const std::string suffix = path.extension();
  return suffix == ".json" || suffix == ".jinja" || suffix == ".model" || suffix == ".txt";
}

void add_weights(const fs::path& path, Digest& digest) {
  const SafetensorsFile file(path);
  for (const auto& [name, entry] : file.entries()) {
    const at::Tensor tensor = file.tensor(name);
    const auto* bytes = static_cast<const char*>(tensor.const_data_ptr());
    const auto size = static_cast<std::int64_t>(tensor.nbytes());
    const auto count = static_cast<std::size_t>(std::min(size, kEnd));
    digest.add(name);
    digest.add(static_cast<std::uint64_t>(entry.dtype));
    digest.add(entry.begin);
    digest.add(entry.end);
    if (size == 0) continue;
    digest.add(std::string_view(bytes, count));
    digest.add(std::string_view(bytes + size - static_cast<std::int64_t>(count), count));
  }
}

// What a value is compared by.
const OrderedJson& core_of(const OrderedJson& value) {
  return value.is_object() && value.contains("digest") ? value["digest"] : value;
}

std::string text_of(const OrderedJson& value) {
  if (value.is_null()) return "nothing";
  if (value.is_object() && value.contains("digest")) {
    return concat(value.value("name", ""), " (digest ", value.value("digest", ""), ")");
  }
  if (value.is_string()) return concat("'", value.get<std::string>(), "'");
  return value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace

OrderedJson identify_folder(const std::string& name, const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  Digest digest;
  for (const fs::path& path : files) {
    const bool is_weights = path.extension() == ".safetensors";
    if (!is_weights && !is_description(path)) continue;
    digest.add(path.filename().string());
    if (is_weights) {
      add_weights(path, digest);
    } else {
      digest.add(load_text(path));
    }
  }
  return {{"name", name}, {"digest", digest.hex()}};
}

OptionChange compare(const OrderedJson& before, const OrderedJson& now) {
  static const std::set<std::string> kFatal = {"inputs", "--output-format", "--shard", "columns"};
  OptionChange change;
  std::vector<std::string> names;
  for (const auto& [name, value] : now.items()) names.push_back(name);
  for (const auto& [name, value] : before.items()) {
    if (!now.contains(name)) names.push_back(name);
  }
  const OrderedJson none;
  for (const std::string& name : names) {
    const OrderedJson& old_value = before.contains(name) ? before[name] : none;
    const OrderedJson& new_value = now.contains(name) ? now[name] : none;
    if (core_of(old_value) == core_of(new_value)) continue;
    if (change.names.empty()) {
      change.got = text_of(new_value);
      change.wanted = text_of(old_value);
    }
    change.names.push_back(name);
    change.is_fatal = change.is_fatal || kFatal.count(name) > 0;
  }
  return change;
}

}  // namespace vlm::infer
