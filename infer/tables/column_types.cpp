#include "infer/tables/column_types.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>

namespace vlm::infer {
namespace {

using data::ColumnType;
using Kind = ColumnType::Kind;

constexpr std::size_t kMostFields = 1000;
constexpr int kMostLevels = 16;
constexpr std::int64_t kMostExact = std::int64_t{1} << 53;  // up to here a double holds them all

bool is_scalar(const ColumnType& type) {
  return type.kind != Kind::kList && type.kind != Kind::kObject;
}

void become(ColumnType& type, Kind kind) {
  type = {.kind = kind};
}

ColumnType integer_type(const OrderedJson& value) {
  if (value.is_number_unsigned() &&
      value.get<std::uint64_t>() > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) {
    return {.kind = Kind::kText};
  }
  const auto number = value.get<std::int64_t>();
  return {.kind = Kind::kInteger, .is_large = number > kMostExact || number < -kMostExact};
}

// Of a value that is neither list nor object.
ColumnType scalar_type(const OrderedJson& value) {
  if (value.is_boolean()) return {.kind = Kind::kFlag};
  if (value.is_number_integer()) return integer_type(value);
  return {.kind = value.is_number() ? Kind::kNumber : Kind::kText};
}

void widen_scalar(ColumnType& type, const ColumnType& other) {
  if (type.kind == Kind::kUnknown) {
    type = other;
    return;
  }
  const bool is_large = type.is_large || other.is_large;
  if (type.kind == other.kind) {
    type.is_large = is_large;
    return;
  }
  const bool are_numbers = (type.kind == Kind::kInteger && other.kind == Kind::kNumber) ||
                           (type.kind == Kind::kNumber && other.kind == Kind::kInteger);
  become(type, are_numbers && !is_large ? Kind::kNumber : Kind::kText);
}

void widen_at(ColumnType& type, const OrderedJson& value, int level);

void widen_list(ColumnType& type, const OrderedJson& list, int level) {
  if (type.kind != Kind::kList) {
    ColumnType element = std::exchange(type, {.kind = Kind::kList});
    type.parts.push_back({"", std::move(element)});
  }
  for (const OrderedJson& value : list) widen_at(type.parts[0].second, value, level + 1);
}

// The part's place, looked for at `hint` first; behind the last when there is none.
std::size_t find_part(const ColumnType& type, const std::string& name, std::size_t hint) {
  if (hint < type.parts.size() && type.parts[hint].first == name) return hint;
  const auto part = std::find_if(type.parts.begin(), type.parts.end(),
                                 [&](const auto& field) { return field.first == name; });
  return static_cast<std::size_t>(part - type.parts.begin());
}

void widen_object(ColumnType& type, const OrderedJson& object, int level) {
  if (type.kind == Kind::kUnknown) type.kind = Kind::kObject;
  if (type.kind != Kind::kObject || object.contains("")) return become(type, Kind::kText);
  std::size_t next = 0;  // fields mostly come in the order of those before
  for (const auto& [name, value] : object.items()) {
    const std::size_t place = find_part(type, name, next);
    if (place == type.parts.size()) {
      if (place == kMostFields) return become(type, Kind::kText);
      type.parts.push_back({name, {}});
    }
    widen_at(type.parts[place].second, value, level + 1);
    next = place + 1;
  }
}

void widen_at(ColumnType& type, const OrderedJson& value, int level) {
  if (value.is_null()) return;
  if (level > kMostLevels) return become(type, Kind::kText);
  if (value.is_array()) return widen_list(type, value, level);
  if (type.kind == Kind::kList) return widen_at(type.parts[0].second, value, level + 1);
  if (value.is_object()) return widen_object(type, value, level);
  if (is_scalar(type)) return widen_scalar(type, scalar_type(value));
  become(type, Kind::kText);
}

}  // namespace

void widen(ColumnType& type, const OrderedJson& value) {
  widen_at(type, value, 0);
}

void widen_columns(ColumnType& row, const OrderedJson& values) {
  std::size_t next = 0;
  for (const auto& [name, value] : values.items()) {
    const std::size_t place = find_part(row, name, next);
    if (place == row.parts.size()) row.parts.push_back({name, {}});
    widen(row.parts[place].second, value);
    next = place + 1;
  }
}

ColumnType settled(ColumnType type) {
  const bool says_nothing =
      type.kind == Kind::kUnknown || (type.kind == Kind::kObject && type.parts.empty());
  if (says_nothing) return {.kind = Kind::kText};
  if (is_scalar(type)) return {.kind = type.kind};
  for (auto& [name, part] : type.parts) part = settled(std::move(part));
  return type;
}

}  // namespace vlm::infer
