#include "data/formats/columns.h"

#include "data/formats/row_format.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

// Our name, and what files call it, best first. text_column is asked before the answers.
const std::vector<std::pair<std::string, std::vector<std::string>>>& usual_names() {
  static const std::vector<std::pair<std::string, std::vector<std::string>>> names = {
      {"messages", {"messages"}},
      {"conversations", {"conversations"}},
      {"prompt", {"prompt"}},
      {"completion", {"completion"}},
      {"images", {"images", "image", "file_names", "file_name"}},
      {"videos", {"videos", "video"}},
      {"system", {"system"}},
      {"query", {"query", "question", "instruction", "prompt"}},
      {"response", {"response", "answer", "answers", "output", "caption", "txt", "cls"}},
      {"references", {"references"}},
  };
  return names;
}

}  // namespace

const std::vector<std::string>& column_names() {
  static const auto names = [] {
    std::vector<std::string> list;
    for (const auto& [name, usual] : usual_names()) list.push_back(name);
    return list;
  }();
  return names;
}

void Columns::fail(const std::string& what, const Json& got, const std::string& wanted) const {
  throw Error({.what = what, .where = row_.where, .got = describe(got), .wanted = wanted});
}

const Json* Columns::value_of(const std::string& column) const {
  const auto found = row_.columns.find(column);
  return found == row_.columns.end() || found->is_null() ? nullptr : &*found;
}

const Json* Columns::find(const std::string& name) const {
  const auto mapped = options_.field_map.find(name);
  if (mapped != options_.field_map.end()) {
    if (const Json* value = value_of(mapped->second)) return value;
    std::vector<std::string> there;
    for (const auto& [column, value] : row_.columns.items()) there.push_back(column);
    throw Error({.what = concat("no column '", mapped->second, "'"),
                 .where = row_.where,
                 .got = concat("columns ", join(there)),
                 .hint = concat("field_map says that it is the ", name)});
  }
  if (name == "response") {
    if (const Json* value = value_of(options_.text_column)) return value;
  }
  for (const auto& [known, usual] : usual_names()) {
    if (known != name) continue;
    for (const std::string& column : usual) {
      if (const Json* value = value_of(column)) return value;
    }
  }
  return nullptr;
}

std::string Columns::text(const std::string& name) const {
  const Json* value = find(name);
  if (!value) return "";
  if (value->is_array() && !value->empty()) value = &value->front();
  return text_of(*value, concat(row_.where, ": ", name));
}

std::string text_of(const Json& value, const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number()) return value.dump();
  throw Error({.what = "wrong type", .where = where, .got = describe(value), .wanted = "text"});
}

}  // namespace vlm::data
