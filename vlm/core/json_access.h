// Reading foreign JSON (tokenizer.json) member by member, with errors that name the place.
//
// `where` is the place of `object` itself ("…/tokenizer.json: decoder"); the member's name is added
// to it. Absent and null members count as missing.
#pragma once

#include <cstdint>
#include <string>

#include "vlm/core/json.h"

namespace vlm {

// The member `key`, or null when it is missing. Throws Error when `object` is not an object.
const Json* find_member(const Json& object, const std::string& key, const std::string& where);

// As find_member, but a missing member is an Error.
const Json& get_member(const Json& object, const std::string& key, const std::string& where);

// Members of one type; a wrong type is an Error. The forms with a default accept missing members.
std::string get_string(const Json& object, const std::string& key, const std::string& where);
std::string get_string(const Json& object, const std::string& key, const std::string& where,
                       const std::string& missing);
bool get_bool(const Json& object, const std::string& key, const std::string& where, bool missing);
const Json& get_array(const Json& object, const std::string& key, const std::string& where);

// Token ids are integers from 0 to kMaxTokenId.
inline constexpr std::int64_t kMaxTokenId = 16'000'000;
std::int64_t to_token_id(const Json& value, const std::string& where);

// "where.key" and "where[3]".
std::string inside(const std::string& where, const std::string& key);
std::string inside(const std::string& where, std::size_t index);

// The Error for a component (normalizer, decoder, …) of a type that is not supported.
[[noreturn]] void refuse_component(const std::string& type, const std::string& where,
                                   const std::string& supported);

}  // namespace vlm
