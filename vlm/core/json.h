// JSON values, and text or files → JSON with errors that name the place.
//
// Json sorts its keys (quick lookup in a vocabulary of 50,000); OrderedJson keeps the order in
// which keys were written (configs, result rows). The library is nlohmann/json; include
// <nlohmann/json.hpp> where values are used.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace vlm {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

// Largest nesting that is accepted, so that a hostile file can't exhaust the stack of later
// readers.
inline constexpr int kMaxJsonDepth = 200;

// Throws Error naming `where` and the byte for malformed text, a nesting over kMaxJsonDepth, or a
// key given twice.
Json parse_json(std::string_view text, const std::string& where);

// The same with the keys in the text's order.
OrderedJson parse_ordered_json(std::string_view text, const std::string& where);

// Whole file → Json. Throws Error when it can't be read, or as parse_json.
Json load_json(const std::filesystem::path& path);

// The same with the keys in the file's order.
OrderedJson load_ordered_json(const std::filesystem::path& path);

// Whole file → bytes. Throws Error when it can't be read or is larger than `max_bytes`.
std::string load_text(const std::filesystem::path& path, std::size_t max_bytes = 1ULL << 30);

// Writes `text` to a temporary file beside `path`, then renames it over: readers never see half a
// file.
void save_text(const std::filesystem::path& path, std::string_view text);

// A value of the wrong type as people write it: "string \"abc\"", "null", "object".
std::string describe(const Json& value);

}  // namespace vlm
