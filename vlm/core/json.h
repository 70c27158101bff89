// JSON values, and text or files → JSON with errors that name the place.
//
// Json sorts its keys (quick lookup in a vocabulary of 50,000); OrderedJson keeps the order in
// which keys were written (configs, result rows). The library is nlohmann/json; include
// <nlohmann/json.hpp> where values are used.
//
// Numbers in rows of data become text in prompts, so "1.10", "-0" and numbers of thirty digits must
// keep their digits, which nlohmann/json would round. Readers of rows therefore ask for
// Numbers::kAsWritten: numbers that would come back changed are then stored as values of type
// binary, which number_text and plain_numbers read.
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

enum class Numbers { kPlain, kAsWritten };

// Throws Error naming `where` and the byte for malformed text, a nesting over kMaxJsonDepth, or a
// key given twice. A byte order mark in front is passed over.
Json parse_json(std::string_view text, const std::string& where, Numbers numbers = Numbers::kPlain);

// The same with the keys in the text's order.
OrderedJson parse_ordered_json(std::string_view text, const std::string& where,
                               Numbers numbers = Numbers::kPlain);

// True for numbers, kept as written or not.
bool is_any_number(const Json& value);

// A number as it was written. The value must be one.
std::string number_text(const Json& value);

// The value with all numbers plain.
Json plain_numbers(Json value);

// The same, but numbers that a double can't hold exactly become strings of their digits, so that
// nothing is rounded.
OrderedJson exact_numbers(OrderedJson value);

// Whole file → Json. Throws Error when it can't be read, or as parse_json.
Json load_json(const std::filesystem::path& path);

// The same with the keys in the file's order.
OrderedJson load_ordered_json(const std::filesystem::path& path);

// Whole file → bytes. Throws Error when it can't be read or is larger than `max_bytes`.
std::string load_text(const std::filesystem::path& path, std::size_t max_bytes = 1ULL << 30);

// Replaces the file durably (durable_file.h): readers never see half a file, also after a power
// cut.
void save_text(const std::filesystem::path& path, std::string_view text);

// A value for error messages: "string \"abc\"", "null", "object".
std::string describe(const Json& value);

}  // namespace vlm
