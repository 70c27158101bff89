#include "data/dataset.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "data/conversations/columns.h"
#include "data/conversations/row_format.h"
#include "data/formats/data_files.h"
#include "data/formats/row_source.h"
#include "vlm/core/concat.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

namespace fs = std::filesystem;

class RowDataset : public Dataset {
 public:
  RowDataset(std::unique_ptr<RowSource> rows, DataOptions options)
      : rows_(std::move(rows)), options_(std::move(options)) {}

  std::int64_t size() const override { return rows_->size(); }
  Sample at(std::int64_t index) const override { return read_sample(*rows_, index, options_); }
  std::string where(std::int64_t index) const override { return rows_->where(index); }
  std::vector<RowBlock> blocks() const override { return rows_->blocks(); }

 private:
  std::unique_ptr<RowSource> rows_;
  DataOptions options_;
};

class JoinedDataset : public Dataset {
 public:
  void add(std::unique_ptr<Dataset> part, double weight) {
    size_ += part->size();
    ends_.push_back(size_);
    weights_.push_back({.samples = part->size(), .weight = weight});
    parts_.push_back(std::move(part));
  }

  std::int64_t size() const override { return size_; }

  Sample at(std::int64_t index) const override {
    const auto [part, inside] = find(index);
    return part->at(inside);
  }

  std::string where(std::int64_t index) const override {
    const auto [part, inside] = find(index);
    return part->where(inside);
  }

  std::vector<DatasetPart> parts() const override { return weights_; }

  std::vector<RowBlock> blocks() const override {
    std::vector<RowBlock> blocks;
    bool has_any = false;
    for (const auto& part : parts_) {
      const std::vector<RowBlock> inside = part->blocks();
      has_any = has_any || !inside.empty();
      if (inside.empty()) blocks.push_back({.rows = part->size()});
      blocks.insert(blocks.end(), inside.begin(), inside.end());
    }
    return has_any ? blocks : std::vector<RowBlock>{};
  }

 private:
  std::pair<const Dataset*, std::int64_t> find(std::int64_t index) const {
    const auto part = std::upper_bound(ends_.begin(), ends_.end(), index) - ends_.begin();
    const std::int64_t before = part > 0 ? ends_[static_cast<std::size_t>(part) - 1] : 0;
    return {parts_.at(static_cast<std::size_t>(part)).get(), index - before};
  }

  std::vector<std::unique_ptr<Dataset>> parts_;
  std::vector<DatasetPart> weights_;
  std::vector<std::int64_t> ends_;  // running totals
  std::int64_t size_ = 0;
};

DataFile parse_data_file(const Json& entry, const DataOptions& defaults, const std::string& where) {
  DataFile file{.path = {}, .options = defaults};
  if (entry.is_string()) {
    file.path = entry.get<std::string>();
  } else if (entry.is_object()) {
    Json field_map;
    DataOptions& options = file.options;
    read_fields(entry,
                {{"path", &file.path},
                 {"weight", &file.weight},
                 {"dataset_format", &options.format, "", row_formats()},
                 {"field_map", &field_map},
                 {"text_column", &options.text_column},
                 {"prompt", &options.prompt},
                 {"image_folder", &options.image_folder},
                 {"split", &file.split},
                 {"config_name", &file.config_name},
                 {"revision", &file.revision}},
                UnknownKeys::kRefuse, where);
    if (!field_map.is_null()) options.field_map = parse_field_map(field_map, where + ".field_map");
  } else {
    throw Error({.what = "wrong type",
                 .where = where,
                 .got = describe(entry),
                 .wanted = "a path, or an object with 'path'"});
  }
  if (file.path.empty()) throw Error({.what = "no path", .where = where});
  if (!(file.weight > 0 && file.weight <= 1e6)) {
    throw Error({.what = "value out of range",
                 .where = where + ".weight",
                 .got = concat(file.weight),
                 .wanted = "more than 0, at most 1e6"});
  }
  return file;
}

}  // namespace

std::vector<DataFile> parse_data_files(const Json& files, const DataOptions& defaults,
                                       const std::string& where) {
  if (files.is_null()) return {};
  if (!files.is_array()) {
    throw Error({.what = "wrong type",
                 .where = where,
                 .got = describe(files),
                 .wanted = "a list of files"});
  }
  std::vector<DataFile> parsed;
  for (std::size_t i = 0; i < files.size(); ++i) {
    parsed.push_back(parse_data_file(files[i], defaults, concat(where, "[", i, "]")));
  }
  return parsed;
}

std::vector<DataFile> expand_data_file(const DataFile& file) {
  std::vector<DataFile> files;
  for (const DataPath& found : find_data_files({.path = file.path,
                               .split = file.split,
                               .config_name = file.config_name,
                               .revision = file.revision})) {
    files.push_back({.path = found.path.string(), .weight = file.weight, .options = file.options});
  }
  return files;
}

std::map<std::string, std::string> parse_field_map(const Json& map, const std::string& where) {
  std::map<std::string, std::string> parsed;
  if (map.is_null()) return parsed;
  if (!map.is_object()) {
    throw Error({.what = "wrong type",
                 .where = where,
                 .got = describe(map),
                 .wanted = "an object: our name of a column → the file's"});
  }
  const auto& known = column_names();
  for (const auto& [name, column] : map.items()) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      throw Error(
          {.what = concat("unknown column '", name, "'"), .where = where, .wanted = join(known)});
    }
    const bool is_name = column.is_string() && !column.get_ref<const std::string&>().empty();
    if (!is_name && !column.is_null()) {
      throw Error({.what = "wrong type",
                   .where = concat(where, ".", name),
                   .got = describe(column),
                   .wanted = "the name of a column, or null for none"});
    }
    parsed[name] = is_name ? column.get<std::string>() : "";
  }
  return parsed;
}

Sample read_sample(const RowSource& rows, std::int64_t index, const DataOptions& options) {
  try {
    return parse_row(rows.at(index), options);
  } catch (const Json::exception& error) {  // a type that no reader looked at
    throw Error({.what = "malformed row", .where = rows.where(index), .got = error.what()});
  }
}

std::unique_ptr<RowSource> open_samples(const fs::path& path) {
  if (!fs::exists(path)) throw Error({.what = "no such file or folder", .where = path.string()});
  auto rows = open_rows(path);
  warn_of_left_out(rows->left_out(), path.string());
  if (rows->size() == 0) throw Error({.what = "holds no samples", .where = path.string()});
  return rows;
}

std::unique_ptr<Dataset> load_dataset(const fs::path& path, const DataOptions& options) {
  return std::make_unique<RowDataset>(open_samples(path), options);
}

std::unique_ptr<Dataset> load_datasets(const Json& files, const DataOptions& options) {
  auto joined = std::make_unique<JoinedDataset>();
  for (const DataFile& file : parse_data_files(files, options, "files")) {
    for (const DataFile& expanded : expand_data_file(file)) {
      joined->add(load_dataset(expanded.path, expanded.options), expanded.weight);
    }
  }
  return joined;
}

}  // namespace vlm::data
