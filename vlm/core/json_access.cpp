#include "vlm/core/json_access.h"

#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

[[noreturn]] void wrong_type(const Json& value, const std::string& where,
                             const std::string& wanted) {
  throw Error({.what = "wrong type", .where = where, .got = describe(value), .wanted = wanted});
}

}  // namespace

const Json* find_member(const Json& object, const std::string& key, const std::string& where) {
  if (!object.is_object()) wrong_type(object, where, "object");
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

const Json& get_member(const Json& object, const std::string& key, const std::string& where) {
  const Json* member = find_member(object, key, where);
  if (member == nullptr) throw Error({.what = concat("\"", key, "\" is missing"), .where = where});
  return *member;
}

std::string get_string(const Json& object, const std::string& key, const std::string& where) {
  const Json& member = get_member(object, key, where);
  if (!member.is_string()) wrong_type(member, inside(where, key), "string");
  return member.get<std::string>();
}

std::string get_string(const Json& object, const std::string& key, const std::string& where,
                       const std::string& missing) {
  return find_member(object, key, where) == nullptr ? missing : get_string(object, key, where);
}

bool get_bool(const Json& object, const std::string& key, const std::string& where, bool missing) {
  const Json* member = find_member(object, key, where);
  if (member == nullptr) return missing;
  if (!member->is_boolean()) wrong_type(*member, inside(where, key), "boolean");
  return member->get<bool>();
}

const Json& get_array(const Json& object, const std::string& key, const std::string& where) {
  const Json& member = get_member(object, key, where);
  if (!member.is_array()) wrong_type(member, inside(where, key), "array");
  return member;
}

std::int64_t to_token_id(const Json& value, const std::string& where) {
  if (!value.is_number_integer()) wrong_type(value, where, "token id");
  const bool too_large = value.is_number_unsigned() &&
                         value.get<std::uint64_t>() > static_cast<std::uint64_t>(kMaxTokenId);
  if (too_large || value.get<std::int64_t>() < 0) {
    throw Error({.what = "token id is out of range",
                 .where = where,
                 .got = value.dump(),
                 .wanted = concat("0 to ", kMaxTokenId)});
  }
  return value.get<std::int64_t>();
}

std::string inside(const std::string& where, const std::string& key) {
  return concat(where, ".", key);
}

std::string inside(const std::string& where, std::size_t index) {
  return concat(where, "[", index, "]");
}

void refuse_component(const std::string& type, const std::string& where,
                      const std::string& supported) {
  throw Error({.what = "component is not supported",
               .where = where,
               .got = concat("\"", type, "\""),
               .wanted = supported});
}

}  // namespace vlm
