#include "infer/server/api/body_reader.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

constexpr int kMostDepth = 64;
constexpr std::size_t kMostTextBytes = 4096;  // of one text of a list

bool is_deeper_than(const OrderedJson& value, int levels) {
  if (!value.is_structured()) return false;
  if (levels == 0) return true;
  return std::any_of(value.begin(), value.end(),
                     [&](const OrderedJson& inner) { return is_deeper_than(inner, levels - 1); });
}

}  // namespace

OrderedJson parse_body(std::string_view body) {
  const auto refuse = [](ErrorParts parts) { return ApiError({.code = "invalid_json"}, parts); };
  if (body.empty()) throw refuse({.what = "the request has no body", .wanted = "a JSON object"});
  OrderedJson json;
  try {
    json = parse_ordered_json(body, "the body");
  } catch (const Error& error) {
    ErrorParts parts = error.parts();
    parts.what = concat("the body is no JSON that can be read: ", parts.what);
    throw refuse(parts);
  }
  if (!json.is_object()) {
    throw refuse({.what = "the body is not an object", .got = json.type_name()});
  }
  if (is_deeper_than(json, kMostDepth)) {
    throw refuse({.what = "the body is nested too deeply",
                  .wanted = concat("at most ", kMostDepth, " levels")});
  }
  return json;
}

BodyReader::BodyReader(const OrderedJson& object, std::string place)
    : object_(object), place_(std::move(place)) {
  if (!object.is_object()) throw bad_value(place_, object, "an object");
}

const OrderedJson* BodyReader::find(const std::string& name) {
  known_.insert(name);
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::string BodyReader::path(const std::string& name) const {
  return place_.empty() ? name : concat(place_, ".", name);
}

std::optional<bool> BodyReader::boolean(const std::string& name) {
  const OrderedJson* value = find(name);
  if (!value) return std::nullopt;
  if (!value->is_boolean()) throw bad_value(path(name), *value, "true or false");
  return value->get<bool>();
}

std::optional<std::int64_t> BodyReader::integer(const std::string& name, std::int64_t least,
                                                std::int64_t most) {
  const OrderedJson* value = find(name);
  if (!value) return std::nullopt;
  // 1.0 and 1e2 are whole numbers, too: some clients know only floating point.
  const double number = value->is_number() ? value->get<double>() : 0.5;
  const bool fits = number == std::floor(number) && number >= static_cast<double>(least) &&
                    number <= static_cast<double>(most);
  if (!fits)
    throw bad_value(path(name), *value, concat("a whole number from ", least, " to ", most));
  return value->is_number_float() ? static_cast<std::int64_t>(number) : value->get<std::int64_t>();
}

std::optional<double> BodyReader::number(const std::string& name, double least, double most) {
  const OrderedJson* value = find(name);
  if (!value) return std::nullopt;
  const bool fits =
      value->is_number() && value->get<double>() >= least && value->get<double>() <= most;
  if (!fits) throw bad_value(path(name), *value, concat("a number from ", least, " to ", most));
  return value->get<double>();
}

std::optional<std::string> BodyReader::text(const std::string& name, std::size_t most_bytes) {
  const OrderedJson* value = find(name);
  if (!value) return std::nullopt;
  if (!value->is_string()) throw bad_value(path(name), *value, "a text");
  const auto& text = value->get_ref<const std::string&>();
  if (text.size() > most_bytes) {
    throw bad_value(path(name), concat(text.size(), " bytes"),
                    concat("at most ", most_bytes, " bytes"));
  }
  return text;
}

const OrderedJson* BodyReader::object(const std::string& name) {
  const OrderedJson* value = find(name);
  if (value && !value->is_object()) throw bad_value(path(name), *value, "an object");
  return value;
}

const OrderedJson* BodyReader::array(const std::string& name) {
  const OrderedJson* value = find(name);
  if (value && !value->is_array()) throw bad_value(path(name), *value, "a list");
  return value;
}

std::vector<std::string> BodyReader::texts(const std::string& name, std::size_t most) {
  const OrderedJson* value = find(name);
  if (!value) return {};
  const OrderedJson list = value->is_array() ? *value : OrderedJson::array({*value});
  std::vector<std::string> texts;
  for (const OrderedJson& one : list) {
    const bool fits = one.is_string() && !one.get_ref<const std::string&>().empty() &&
                      one.get_ref<const std::string&>().size() <= kMostTextBytes;
    if (!fits || list.size() > most) {
      throw bad_value(path(name), *value,
                      concat("a text or up to ", most, " of them, none empty or over ",
                             kMostTextBytes, " bytes"));
    }
    texts.push_back(one.get<std::string>());
  }
  return texts;
}

void BodyReader::accept(const std::vector<std::string>& names) {
  known_.insert(names.begin(), names.end());
}

std::vector<std::string> BodyReader::rest() const {
  std::vector<std::string> names;
  for (const auto& [name, value] : object_.items()) {
    if (!value.is_null() && !known_.contains(name)) names.push_back(name);
  }
  return names;
}

}  // namespace vlm::infer
