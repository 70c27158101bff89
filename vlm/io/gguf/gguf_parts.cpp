#include "vlm/io/gguf/gguf_parts.h"

#include <algorithm>
#include <charconv>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kDigits = 5;
const std::string kOf = "-of-";

std::optional<std::int64_t> parse_digits(const std::string& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool is_number = text.size() == kDigits && error == std::errc() &&
                         end == text.data() + text.size() && value > 0;
  return is_number ? std::optional(value) : std::nullopt;
}

std::string five_digits(std::int64_t value) {
  const std::string digits = concat(value);
  return std::string(kDigits - std::min(kDigits, digits.size()), '0') + digits;
}

fs::path part_path(const fs::path& first, const GgufPartName& name, std::int64_t number) {
  return first.parent_path() /
         concat(name.model, "-", five_digits(number), kOf, five_digits(name.count), ".gguf");
}

}  // namespace

std::optional<GgufPartName> parse_gguf_part(const fs::path& path) {
  constexpr std::size_t kEnd = 1 + kDigits + 4 + kDigits;  // -00001-of-00003
  const std::string stem = path.stem().string();
  if (path.extension() != ".gguf" || stem.size() <= kEnd) return std::nullopt;
  const std::string end = stem.substr(stem.size() - kEnd);
  const auto number = parse_digits(end.substr(1, kDigits));
  const auto count = parse_digits(end.substr(kEnd - kDigits));
  if (end[0] != '-' || end.substr(1 + kDigits, kOf.size()) != kOf || !number || !count) {
    return std::nullopt;
  }
  return GgufPartName{stem.substr(0, stem.size() - kEnd), *number, *count};
}

std::vector<fs::path> other_gguf_parts(const fs::path& first, const GgufHeader& header) {
  const std::int64_t count = header.number(kPartCount);
  const auto name = parse_gguf_part(first);
  if (!name || name->count != count) {
    throw Error({.what = "the name of a part of a model doesn't tell which it is",
                 .where = first.string(),
                 .got = concat("part ", header.number("split.no", 0) + 1, " of ", count),
                 .wanted = concat("a name that ends in -00001-of-", five_digits(count), ".gguf"),
                 .hint = "the others are found by their names"});
  }
  if (name->number != 1 || header.number("split.no", 0) != 0) {
    throw Error({.what = "is not the first part of its model",
                 .where = first.string(),
                 .got = concat("part ", header.number("split.no", 0) + 1, " of ", count),
                 .wanted = part_path(first, *name, 1).filename().string()});
  }
  std::vector<fs::path> others;
  for (std::int64_t number = 2; number <= count; ++number) {
    others.push_back(part_path(first, *name, number));
    if (fs::exists(others.back())) continue;
    throw Error({.what = "a part of the model is missing",
                 .where = others.back().string(),
                 .wanted = concat(count, " parts beside each other")});
  }
  return others;
}

void check_gguf_part(const GgufHeader& header, std::int64_t number, std::int64_t count) {
  const std::int64_t got_number = header.number("split.no", 0) + 1;
  const std::int64_t got_count = header.number(kPartCount, 1);
  if (got_number == number && got_count == count) return;
  throw Error({.what = "file is another part than its name says",
               .where = header.where,
               .got = concat("part ", got_number, " of ", got_count),
               .wanted = concat("part ", number, " of ", count)});
}

}  // namespace vlm
