#include "infer/commands/row_flags.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "data/conversations/columns.h"
#include "data/conversations/row_format.h"
#include "data/dataset.h"
#include "vlm/core/concat.h"
#include "vlm/core/config/bounds.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

constexpr const char* kFieldMap = "--field-map";

// "OURS=THEIRS", or "OURS=" for a column that is left out.
std::map<std::string, std::string> parse_field(const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos) {
    throw Error({.what = "not a column's name",
                 .where = kFieldMap,
                 .got = concat("'", text, "'"),
                 .wanted = "OURS=THEIRS, such as query=frage"});
  }
  const std::string column = text.substr(equals + 1);
  const Json name = column.empty() ? Json() : Json(column);
  return data::parse_field_map({{text.substr(0, equals), name}}, kFieldMap);
}

std::string field_error(const std::string& text) {
  try {
    parse_field(text);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace

void RowFlags::declare(CLI::App& command, bool has_ids) {
  command
      .add_option(kFieldMap, field_map_,
                  concat("Rows: OURS=THEIRS, which of the file's columns is ours; may be repeated; "
                         "nothing behind = leaves it out. Ours: ",
                         join(data::column_names())))
      ->allow_extra_args(false)
      ->check(field_error);
  command
      .add_option("--dataset-format", rows_.data.format,
                  "Rows: what their columns mean; auto: told by their names")
      ->check(CLI::IsMember(data::row_formats()))
      ->capture_default_str();
  command
      .add_option("--image-folder", rows_.data.image_folder,
                  "Rows: where relative paths begin (default: at the file)")
      ->check(not_empty());
  if (has_ids) {
    command.add_option("--id-column", rows_.id_column,
                       "Rows: the column with their ids; '' for none, file and line then name them "
                       "(default: id or custom_id)");
  }
  const std::string of_hub = "Data sets of the hub: ";
  command.add_option("--split", rows_.split, of_hub + "the split, or all (default: train)")
      ->check(not_empty());
  command
      .add_option("--config-name", rows_.config_name,
                  of_hub + "the config (default: the data set's)")
      ->check(not_empty());
  command
      .add_option("--revision", rows_.revision, of_hub + "branch, tag or commit (default: main)")
      ->check(not_empty());
}

RowOptions RowFlags::options() const {
  RowOptions options = rows_;
  for (const std::string& text : field_map_) options.data.field_map.merge(parse_field(text));
  return options;
}

}  // namespace vlm::infer
