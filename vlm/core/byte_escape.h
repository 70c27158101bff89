// Texts that must be UTF-8 (rows, messages, prompts) out of bytes that need not be (names of
// files): every byte that isn't part of valid UTF-8 becomes "\xHH".
//
// Reversible, and different names stay different: a backslash that would read as such an escape
// becomes "\x5c". Names that are UTF-8 stay as they are but for that.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "vlm/core/json.h"

namespace vlm {

std::string escape_bytes(std::string_view text);
// The text itself when it is UTF-8, else escaped: for what is no name of its own, as messages.
std::string as_utf8(std::string text);
// What was escaped, back.
std::string unescape_bytes(std::string_view text);

// One line of JSON; texts in it that aren't UTF-8 are escaped.
std::string dump_text(const OrderedJson& json);

}  // namespace vlm
