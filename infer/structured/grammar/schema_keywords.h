// The keywords of JSON Schema, and what becomes of each in an answer's grammar.
#pragma once

#include <string>

#include "vlm/core/json.h"

namespace vlm::infer {

enum class KeywordKind {
  kKept,     // the grammar keeps it exactly
  kRefused,  // it says something about a value that no grammar can keep
  kSilent,   // it says nothing about a value: title, description, $defs, unknown names
};

KeywordKind kind_of_keyword(const std::string& name);

// Throws Error naming `where`, which is the schema's place, and the keyword: for one that is
// refused, and for an unknown name that is nearly a known one.
void check_keywords(const OrderedJson& schema, const std::string& where);

// The pattern of a format ("date", "uuid", …) that strings are held to. Throws Error naming the
// format where there is none.
std::string pattern_of_format(const std::string& format, const std::string& where);

}  // namespace vlm::infer
