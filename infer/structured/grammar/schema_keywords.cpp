#include "infer/structured/grammar/schema_keywords.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "vlm/core/concat.h"
#include "vlm/core/config/fields.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

const std::vector<std::string> kKept = {"type",
                                        "enum",
                                        "const",
                                        "anyOf",
                                        "oneOf",
                                        "allOf",
                                        "$ref",
                                        "minimum",
                                        "maximum",
                                        "multipleOf",
                                        "minLength",
                                        "maxLength",
                                        "pattern",
                                        "format",
                                        "items",
                                        "prefixItems",
                                        "minItems",
                                        "maxItems",
                                        "properties",
                                        "required",
                                        "minProperties",
                                        "maxProperties",
                                        "propertyNames",
                                        "additionalProperties",
                                        "uniqueItems",
                                        "exclusiveMinimum",
                                        "exclusiveMaximum",
                                        "patternProperties"};
const std::vector<std::string> kRefused = {"not",
                                           "if",
                                           "then",
                                           "else",
                                           "contains",
                                           "minContains",
                                           "maxContains",
                                           "dependentRequired",
                                           "dependencies",
                                           "dependentSchemas",
                                           "$anchor",
                                           "$dynamicRef",
                                           "$dynamicAnchor",
                                           "$recursiveRef",
                                           "additionalItems",
                                           "unevaluatedProperties",
                                           "unevaluatedItems",
                                           "nullable"};
const std::vector<std::string> kSilent = {"title",
                                          "description",
                                          "default",
                                          "examples",
                                          "example",
                                          "deprecated",
                                          "readOnly",
                                          "writeOnly",
                                          "$comment",
                                          "$schema",
                                          "$id",
                                          "$defs",
                                          "definitions",
                                          "id",
                                          "$vocabulary",
                                          "strict",
                                          "contentEncoding",
                                          "contentMediaType",
                                          "contentSchema",
                                          "$recursiveAnchor"};

bool holds(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

const std::map<std::string, std::string>& hints() {
  static const std::map<std::string, std::string> texts = {
      {"nullable", "\"type\": [\"string\", \"null\"] says so"},
      {"contains", "items says what every item is"},
      {"additionalItems", "items behind prefixItems says so"},
      {"if", "anyOf of the cases, each with its const, often says the same"},
      {"not", "an enum of what is allowed often says the same"}};
  return texts;
}

// Of one of the year's days; the 29th of February in leap years alone.
constexpr const char* kDate =
    "(\\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|"
    "02-(0[1-9]|1\\d|2[0-8]))|(\\d\\d(0[48]|[2468][048]|[13579][26])|"
    "([02468][048]|[13579][26])00)-02-29)";
constexpr const char* kTime =
    "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)";
constexpr const char* kLabel = "[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?";
constexpr const char* kByte = "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";

std::map<std::string, std::string> make_formats() {
  const std::string host = concat(kLabel, "(\\.", kLabel, "){0,6}");
  return {
      {"date", kDate},
      {"time", kTime},
      {"date-time", concat(kDate, "T", kTime)},
      {"uuid", "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"},
      {"ipv4", concat(kByte, "(\\.", kByte, "){3}")},
      {"hostname", host},
      {"email", concat("[A-Za-z0-9_+-]{1,32}(\\.[A-Za-z0-9_+-]{1,32}){0,3}@", host)},
      {"uri", concat("[a-z][a-z0-9+.-]{1,15}://", host,
                     "(:\\d{1,4})?(/[A-Za-z0-9._~-]{0,64}){0,8}(\\?[A-Za-z0-9._~=&-]{0,128})?")},
      {"duration",
       "P(\\d{1,4}W|\\d{1,4}Y(\\d{1,4}M(\\d{1,4}D)?)?|\\d{1,4}M(\\d{1,4}D)?|\\d{1,4}D|"
       "T(\\d{1,4}H(\\d{1,4}M(\\d{1,4}S)?)?|\\d{1,4}M(\\d{1,4}S)?|\\d{1,4}S))"}};
}

const std::map<std::string, std::string>& formats() {
  static const std::map<std::string, std::string> known = make_formats();
  return known;
}

}  // namespace

KeywordKind kind_of_keyword(const std::string& name) {
  if (holds(kKept, name)) return KeywordKind::kKept;
  return holds(kRefused, name) ? KeywordKind::kRefused : KeywordKind::kSilent;
}

void check_keywords(const OrderedJson& schema, const std::string& where) {
  for (const auto& [key, value] : schema.items()) {
    const KeywordKind kind = kind_of_keyword(key);
    // Objects are closed anyway, and arrays end with the items that are named.
    const bool says_nothing =
        (key == "unevaluatedProperties" || key == "unevaluatedItems") && value.is_boolean();
    const bool may_repeat =
        key == "uniqueItems" && value == true && schema.value("maxItems", 2) > 1;
    if (may_repeat || (kind == KeywordKind::kRefused && !says_nothing)) {
      const auto hint = hints().find(key);
      throw Error({.what = "the schema can't be kept exactly",
                   .where = where,
                   .got = concat("'", key, "'"),
                   .hint = hint == hints().end() ? "" : hint->second});
    }
    if (kind != KeywordKind::kSilent || holds(kSilent, key)) continue;
    std::vector<std::string> known = kKept;
    known.insert(known.end(), kRefused.begin(), kRefused.end());
    const auto nearest = nearest_name(key, known);
    if (nearest && key.size() > 4 && key[0] == nearest->front()) {
      throw Error({.what = "unknown keyword",
                   .where = where,
                   .got = concat("'", key, "'"),
                   .hint = concat("did you mean '", *nearest, "'?")});
    }
  }
}

std::string pattern_of_format(const std::string& format, const std::string& where) {
  const auto found = formats().find(format);
  if (found != formats().end()) return "^(" + found->second + ")$";
  std::vector<std::string> names;
  for (const auto& [name, pattern] : formats()) names.push_back(name);
  throw Error({.what = "the schema can't be kept exactly",
               .where = where,
               .got = concat("'format' ", format),
               .wanted = join(names),
               .hint = "a pattern says what strings look like"});
}

}  // namespace vlm::infer
