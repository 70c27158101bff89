#include "vlm/models/gguf/gguf_tokens.h"

#include <set>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {

std::vector<GgufToken> list_gguf_tokens(const GgufHeader& header) {
  const Json& tokens = header.list(kGgufTokenizer + "tokens");
  const bool has_types = header.find(kGgufTokenizer + "token_type") != nullptr;
  const Json types = has_types ? header.list(kGgufTokenizer + "token_type") : Json::array();
  if (has_types && types.size() != tokens.size()) {
    throw Error({.what = "as many kinds as tokens are wanted",
                 .where = concat(header.where, ": ", kGgufTokenizer, "token_type"),
                 .got = concat(types.size()),
                 .wanted = concat(tokens.size())});
  }
  std::vector<GgufToken> listed;
  std::set<std::string_view> seen;
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    const std::string place = concat(header.where, ": ", kGgufTokenizer, "tokens[", id, "]");
    if (!tokens[id].is_string()) throw Error({.what = "is no text", .where = place});
    const auto& text = tokens[id].get_ref<const std::string&>();
    const std::int64_t kind = has_types && types[id].is_number_integer() ? types[id].get<int>() : 1;
    listed.push_back({text, static_cast<GgufTokenKind>(kind)});
    if (listed.back().kind == GgufTokenKind::kUnused || seen.insert(text).second) continue;
    throw Error({.what = "token given twice", .where = place, .got = concat("\"", text, "\"")});
  }
  return listed;
}

std::optional<std::string> gguf_token_at(const GgufHeader& header, const std::string& key,
                                         std::int64_t missing) {
  const Json& tokens = header.list(kGgufTokenizer + "tokens");
  const std::int64_t id = header.number(kGgufTokenizer + key, missing);
  if (id < 0) return std::nullopt;
  if (id < std::ssize(tokens) && tokens[id].is_string()) return tokens[id].get<std::string>();
  throw Error({.what = "there is no such token",
               .where = concat(header.where, ": ", kGgufTokenizer, key),
               .got = concat(id),
               .wanted = concat("one of ", tokens.size())});
}

}  // namespace vlm
