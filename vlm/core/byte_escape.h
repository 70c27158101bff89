// Bytes that may not be UTF-8 (names of files) as UTF-8 text (for rows, messages, prompts): every
// byte that isn't part of valid UTF-8 becomes "\xHH".
//
// unescape_bytes reverses it, so different names stay different: a backslash in front of "x" and
// two hex digits, which would read as an escape, becomes "\x5c". Everything else in a valid UTF-8
// name stays as it is.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "vlm/core/json.h"

namespace vlm {

std::string escape_bytes(std::string_view text);
// The text itself when it is valid UTF-8, else escape_bytes of it. For messages, which nobody turns
// back into bytes.
std::string as_utf8(std::string text);
// The bytes that escape_bytes was given.
std::string unescape_bytes(std::string_view text);

// One line of JSON; texts in it that aren't UTF-8 are escaped.
std::string dump_text(const OrderedJson& json);

}  // namespace vlm
