#include "vlm/core/config/fields.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

template <typename T>
struct IsOptional : std::false_type {};
template <typename T>
struct IsOptional<std::optional<T>> : std::true_type {};

std::string type_name(bool*) {
  return "true or false";
}
std::string type_name(std::int64_t*) {
  return "integer";
}
std::string type_name(double*) {
  return "number";
}
std::string type_name(std::string*) {
  return "string";
}
std::string type_name(std::vector<std::string>*) {
  return "list of strings";
}
std::string type_name(std::vector<std::int64_t>*) {
  return "list of integers";
}
std::string type_name(std::vector<double>*) {
  return "list of numbers";
}
std::string type_name(Names*) {
  return "list of names, or one regular expression";
}
std::string type_name(Json*) {
  return "JSON";
}
std::string type_name(OrderedJson*) {
  return "JSON";
}
std::string type_name(Fields*) {
  return "object";
}
template <typename T>
std::string type_name(std::optional<T>*) {
  return type_name(static_cast<T*>(nullptr)) + " or null";
}

// Each from_json returns false when the value has the wrong type. `J` is Json or OrderedJson.
template <typename J>
bool from_json(const J& value, bool& out) {
  if (!value.is_boolean()) return false;
  out = value.template get<bool>();
  return true;
}

template <typename J>
bool from_json(const J& value, std::int64_t& out) {
  if (value.is_number_unsigned() && value.template get<std::uint64_t>() >
                                        std::uint64_t(std::numeric_limits<std::int64_t>::max())) {
    return false;
  }
  if (value.is_number_float()) {  // 1e3 and 8.0 are integers to people
    const double number = value.template get<double>();
    if (!(std::abs(number) < 9e15) || number != static_cast<double>(std::int64_t(number))) {
      return false;
    }
    out = static_cast<std::int64_t>(number);
    return true;
  }
  if (!value.is_number_integer()) return false;
  out = value.template get<std::int64_t>();
  return true;
}

template <typename J>
bool from_json(const J& value, double& out) {
  if (!value.is_number()) return false;
  out = value.template get<double>();
  return true;
}

template <typename J>
bool from_json(const J& value, std::string& out) {
  if (!value.is_string()) return false;
  out = value.template get<std::string>();
  return true;
}

template <typename J, typename T>
bool from_json(const J& value, std::vector<T>& out) {
  if (!value.is_array()) return false;
  std::vector<T> items(value.size());
  for (std::size_t i = 0; i < value.size(); ++i) {
    if (!from_json(value[i], items[i])) return false;
  }
  out = std::move(items);
  return true;
}

template <typename J>
bool from_json(const J& value, Names& out) {
  if (value.is_string()) {
    out = value.template get<std::string>();
    return true;
  }
  std::vector<std::string> names;
  if (!from_json(value, names)) return false;
  out = std::move(names);
  return true;
}

template <typename J>
bool from_json(const J& value, Json& out) {
  out = value;
  return true;
}

template <typename J>
bool from_json(const J& value, OrderedJson& out) {
  out = value;
  return true;
}

template <typename J, typename T>
bool from_json(const J& value, std::optional<T>& out) {
  if (value.is_null()) {
    out.reset();
    return true;
  }
  T inner;
  if (!from_json(value, inner)) return false;
  out = std::move(inner);
  return true;
}

template <typename T>
OrderedJson to_json(const T& value) {
  if constexpr (IsOptional<T>::value) {
    return value ? OrderedJson(*value) : OrderedJson(nullptr);
  } else if constexpr (std::is_same_v<T, Names>) {
    return std::visit([](const auto& names) { return OrderedJson(names); }, value);
  } else {
    return OrderedJson(value);
  }
}

std::string path_of(const std::string& where, const std::string& key) {
  return where.empty() ? key : where + ": " + key;
}

std::vector<std::string> names_of(const Fields& fields) {
  std::vector<std::string> names;
  for (const Field& field : fields) names.push_back(field.name);
  return names;
}

Error unknown_key(const std::string& key, const Fields& fields, const std::string& where) {
  const auto names = names_of(fields);
  const auto nearest = nearest_name(key, names);
  return Error({.what = concat("unknown key '", key, "'"),
                .where = where,
                .hint = nearest ? concat("did you mean '", *nearest, "'?")
                                : concat("known keys: ", join(names))});
}

template <typename J>
void check_choice(const Field& field, const J& value, const std::string& where) {
  if (field.choices.empty() || value.is_null()) return;
  const std::string text = value.is_string() ? value.template get<std::string>() : value.dump();
  if (std::find(field.choices.begin(), field.choices.end(), text) != field.choices.end()) return;
  throw Error({.what = "unknown value",
               .where = path_of(where, field.name),
               .got = concat("'", text, "'"),
               .wanted = join(field.choices)});
}

template <typename J>
void read_members(const J& object, const Fields& fields, UnknownKeys unknown,
                  const std::string& where);

template <typename J>
void read_field(const J& value, const Field& field, UnknownKeys unknown, const std::string& where) {
  if (auto* nested = std::get_if<Fields*>(&field.target)) {
    if (value.is_null()) return;
    return read_members(value, **nested, unknown, path_of(where, field.name));
  }
  check_choice(field, value, where);
  const bool read = std::visit(
      [&](auto* target) {
        if constexpr (std::is_same_v<decltype(target), Fields*>) {
          return true;
        } else {
          return from_json(value, *target);
        }
      },
      field.target);
  if (read || (value.is_null() && unknown == UnknownKeys::kIgnore)) return;
  throw Error({.what = "wrong type",
               .where = path_of(where, field.name),
               .got = describe(Json(value)),
               .wanted = std::visit([](auto* target) { return type_name(target); }, field.target)});
}

const Field& find_field(const Fields& fields, const std::string& name, const std::string& where) {
  for (const Field& field : fields) {
    if (field.name == name) return field;
  }
  throw unknown_key(name, fields, where);
}

template <typename J>
void read_members(const J& object, const Fields& fields, UnknownKeys unknown,
                  const std::string& where) {
  if (!object.is_object()) {
    throw Error(
        {.what = "wrong type", .where = where, .got = describe(Json(object)), .wanted = "object"});
  }
  if (unknown == UnknownKeys::kRefuse) {
    for (const auto& [key, value] : object.items()) find_field(fields, key, where);
  }
  for (const Field& field : fields) {
    const auto found = object.find(field.name);
    if (found != object.end()) read_field(*found, field, unknown, where);
  }
}

// The value of an assignment: JSON, or bare text where it is none or the field holds text.
OrderedJson parse_value(const std::string& text, const Field& field, const std::string& where) {
  const bool is_text = std::holds_alternative<std::string*>(field.target) ||
                       std::holds_alternative<std::optional<std::string>*>(field.target);
  if (Json::accept(text)) {
    OrderedJson parsed = parse_ordered_json(text, where);
    if (!is_text || parsed.is_string() || parsed.is_null()) return parsed;
  }
  OrderedJson bare = text;
  try {
    bare.dump();  // as the effective config will be
  } catch (const Json::exception&) {
    throw Error({.what = "value is not UTF-8", .where = where});
  }
  return bare;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

void read_fields(const Json& object, const Fields& fields, UnknownKeys unknown,
                 const std::string& where) {
  read_members(object, fields, unknown, where);
}

void read_fields(const OrderedJson& object, const Fields& fields, UnknownKeys unknown,
                 const std::string& where) {
  read_members(object, fields, unknown, where);
}

OrderedJson write_fields(const Fields& fields) {
  OrderedJson object = OrderedJson::object();
  for (const Field& field : fields) {
    object[field.name] = std::visit(
        [](auto* target) -> OrderedJson {
          if constexpr (std::is_same_v<decltype(target), Fields*>) {
            return write_fields(*target);
          } else {
            return to_json(*target);
          }
        },
        field.target);
  }
  return object;
}

void set_field(const Fields& fields, std::string_view assignment, const std::string& where) {
  const auto equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    throw Error({.what = "not an assignment",
                 .where = where,
                 .got = concat("'", assignment, "'"),
                 .wanted = "key=value"});
  }
  const std::string path(assignment.substr(0, equals));
  const std::string text(assignment.substr(equals + 1));
  const auto dot = path.find('.');
  const Field& field = find_field(fields, path.substr(0, dot), where);
  if (dot != std::string::npos) {
    auto* nested = std::get_if<Fields*>(&field.target);
    if (nested) return set_field(**nested, std::string(assignment).substr(dot + 1), where);
    throw unknown_key(path, fields, where);
  }
  read_field(parse_value(text, field, path_of(where, path)), field, UnknownKeys::kRefuse, where);
}

std::string describe_fields(const Fields& fields, const std::string& prefix) {
  std::string text;
  for (const Field& field : fields) {
    if (auto* nested = std::get_if<Fields*>(&field.target)) {
      text += describe_fields(**nested, prefix + field.name + ".");
      continue;
    }
    const std::string type =
        std::visit([](auto* target) { return type_name(target); }, field.target);
    const OrderedJson value = write_fields({field})[field.name];
    text += concat("  ", prefix, field.name, "  (", type, ", default ", value.dump(), ")\n      ",
                   field.help);
    if (!field.choices.empty()) text += concat(" [", join(field.choices, " | "), "]");
    text += "\n";
  }
  return text;
}

std::optional<std::string> nearest_name(std::string_view name,
                                        const std::vector<std::string>& candidates) {
  std::optional<std::string> best;
  std::size_t best_distance = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace vlm
