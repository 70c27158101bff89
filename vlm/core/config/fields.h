// Config fields: one declaration a field, from which reading, writing, overriding and help all
// come.
//
// A config struct lists its fields once:
//     Fields fields() { return {{"r", &r, "Rank of the adapters"}, {"bias", &bias, "…", {"none",
//     "all"}}}; }
// A Field points into the struct it was made from, so make the list where it is used and don't keep
// it. Unknown keys are an error that names the nearest field (our own files) or are left alone
// (Hugging Face's files).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "vlm/core/json.h"

namespace vlm {

struct Field;
using Fields = std::vector<Field>;

// A list of names, or one regular expression (PEFT's target_modules).
using Names = std::variant<std::string, std::vector<std::string>>;

// Points at a field's value. An empty std::optional stands for null. An OrderedJson keeps the order
// of the keys when it is read from an OrderedJson.
using FieldTarget =
    std::variant<bool*, std::int64_t*, double*, std::string*, std::optional<bool>*,
                 std::optional<std::int64_t>*, std::optional<double>*, std::optional<std::string>*,
                 std::vector<std::string>*, std::vector<std::int64_t>*, std::vector<double>*,
                 Names*, Json*, OrderedJson*, Fields*>;

struct Field {
  std::string name;
  FieldTarget target;
  std::string help = {};
  std::vector<std::string> choices = {};  // allowed values of a string; empty: any
};

enum class UnknownKeys { kRefuse, kIgnore };

// Reads `object` into the fields. Keys that are absent keep the field's value; null is accepted by
// optional fields, and by every field when unknown keys are ignored (Hugging Face's files write
// null for "default"). Throws Error naming `where`, the key, the type found and the type wanted.
void read_fields(const Json& object, const Fields& fields, UnknownKeys unknown,
                 const std::string& where);
void read_fields(const OrderedJson& object, const Fields& fields, UnknownKeys unknown,
                 const std::string& where);

// All fields in their order, nested ones as objects.
OrderedJson write_fields(const Fields& fields);

// Sets one field from "path.to.name=value"; the value is JSON, or a bare string.
void set_field(const Fields& fields, std::string_view assignment, const std::string& where);

// One line a field: name, type, current value, meaning. Nested fields carry their path.
std::string describe_fields(const Fields& fields, const std::string& prefix = "");

// The candidate with the least edit distance to `name`, when it is near enough to be a misspelling.
std::optional<std::string> nearest_name(std::string_view name,
                                        const std::vector<std::string>& candidates);

}  // namespace vlm
