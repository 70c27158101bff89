// Bytes → a tokenizer.json and a text: an Error, or a tokenizer that keeps its promises.
//
// The input is the JSON, a zero byte, and the text (which may be any bytes). Ids must be known to
// the tokenizer, broken UTF-8 must count as its repaired form, and decoded text must be UTF-8,
// piece by piece.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/text/bpe_tokenizer.h"
#include "vlm/text/unicode/unicode.h"

namespace {

using Ids = std::vector<std::int64_t>;

void demand(bool holds) {
  if (!holds) std::abort();
}

void decode(const vlm::Tokenizer& tokenizer, const Ids& ids, bool skip_special_tokens) {
  vlm::StreamDecoder stream(tokenizer, skip_special_tokens);
  std::string joined;
  for (const std::int64_t id : ids) {
    const std::string piece = stream.add(id);
    demand(vlm::is_valid_utf8(piece));
    joined += piece;
  }
  joined += stream.finish();
  demand(vlm::is_valid_utf8(joined));
  demand(joined == tokenizer.decode(ids, skip_special_tokens));
}

void use(const vlm::Tokenizer& tokenizer, std::string_view text) {
  const Ids ids = tokenizer.encode(text);
  demand(tokenizer.encode(vlm::to_valid_utf8(text)) == ids);
  for (const std::int64_t id : ids) demand(id >= 0 && tokenizer.id_to_token(id).has_value());
  decode(tokenizer, ids, false);
  decode(tokenizer, tokenizer.encode(text, true), true);
  // The text's bytes as ids: orders of tokens that no text gives, and unknown ids.
  decode(tokenizer, Ids(text.begin(), text.end()), false);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t end = std::min(input.find('\0'), size);
  try {
    const vlm::BpeTokenizer tokenizer(vlm::parse_json(input.substr(0, end), "fuzz"), "fuzz");
    use(tokenizer, input.substr(std::min(end + 1, size)));
  } catch (const vlm::Error&) {
  }
  return 0;
}
