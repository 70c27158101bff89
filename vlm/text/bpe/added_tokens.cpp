#include "vlm/text/bpe/added_tokens.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "vlm/core/error.h"
#include "vlm/core/json_access.h"
#include "vlm/text/bpe/bpe_pattern.h"
#include "vlm/text/unicode/unicode.h"

namespace vlm {
namespace {

// Begin of the character that ends at `end`.
std::size_t previous_character(std::string_view text, std::size_t end) {
  do {
    --end;
  } while ((static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  return end;
}

bool word_ends_at(std::string_view text, std::size_t end) {
  if (end == 0) return false;
  std::size_t at = previous_character(text, end);
  return is_word_character(next_code_point(text, at));
}

bool word_begins_at(std::string_view text, std::size_t at) {
  return at < text.size() && is_word_character(next_code_point(text, at));
}

// Begin of the white space that ends at `end`.
std::size_t space_before(std::string_view text, std::size_t end) {
  while (end > 0) {
    const std::size_t begin = previous_character(text, end);
    std::size_t at = begin;
    if (!is_whitespace(next_code_point(text, at))) break;
    end = begin;
  }
  return end;
}

// End of the white space that begins at `begin`.
std::size_t space_after(std::string_view text, std::size_t begin) {
  std::size_t at = begin;
  while (at < text.size() && is_whitespace(next_code_point(text, at))) begin = at;
  return begin;
}

}  // namespace

AddedToken parse_added_token(const Json& json, const std::string& where) {
  return {.content = get_string(json, "content", where),
          .single_word = get_bool(json, "single_word", where, false),
          .lstrip = get_bool(json, "lstrip", where, false),
          .rstrip = get_bool(json, "rstrip", where, false),
          .normalized = get_bool(json, "normalized", where, true),
          .special = get_bool(json, "special", where, false)};
}

AddedTokens::Trie::Trie() : nodes_(1) {
  first_.fill(-1);
}

void AddedTokens::Trie::insert(std::string_view text, std::int32_t value) {
  if (text.empty()) return;
  std::int32_t node = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    auto& children = nodes_[static_cast<std::size_t>(node)].children;
    const auto child = std::find_if(children.begin(), children.end(),
                                    [byte](const auto& entry) { return entry.first == byte; });
    if (child != children.end()) {
      node = child->second;
      continue;
    }
    const auto added = static_cast<std::int32_t>(nodes_.size());
    children.emplace_back(byte, added);
    if (node == 0) first_[byte] = added;
    nodes_.emplace_back();
    node = added;
  }
  std::int32_t& slot = nodes_[static_cast<std::size_t>(node)].value;
  if (slot < 0) slot = value;
}

std::pair<std::size_t, std::int32_t> AddedTokens::Trie::longest_at(std::string_view text,
                                                                   std::size_t at) const {
  std::pair<std::size_t, std::int32_t> best{0, -1};
  std::int32_t node = first_[static_cast<unsigned char>(text[at])];
  std::size_t length = 1;
  while (node >= 0) {
    const Node& current = nodes_[static_cast<std::size_t>(node)];
    if (current.value >= 0) best = {length, current.value};
    if (at + length == text.size()) break;
    const auto byte = static_cast<unsigned char>(text[at + length]);
    const auto child = std::find_if(current.children.begin(), current.children.end(),
                                    [byte](const auto& entry) { return entry.first == byte; });
    node = child == current.children.end() ? -1 : child->second;
    ++length;
  }
  return best;
}

AddedTokens::AddedTokens() = default;

AddedTokens::AddedTokens(std::vector<AddedToken> tokens,
                         const std::function<std::string(std::string_view)>& normalize)
    : tokens_(std::move(tokens)) {
  std::stable_partition(tokens_.begin(), tokens_.end(),
                        [](const AddedToken& token) { return token.special; });
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    by_content_.emplace(token.content, i);
    const Stage stage = token.normalized ? Stage::kNormalized : Stage::kRaw;
    const std::string form = token.normalized ? normalize(token.content) : token.content;
    tries_[static_cast<std::size_t>(stage)].insert(form, static_cast<std::int32_t>(i));
    forms_[token.id] = {.text = form};
  }
  for (auto& [id, form] : forms_) {
    const AddedToken* same = find(form.text);
    form.skipped = same != nullptr && same->special;
  }
}

std::vector<AddedTokens::Segment> AddedTokens::split(std::string_view text, Stage stage) const {
  const Trie& trie = tries_[static_cast<std::size_t>(stage)];
  std::vector<Segment> result;
  std::size_t done = 0;
  std::size_t at = 0;
  while (at < text.size()) {
    const auto [length, index] = trie.longest_at(text, at);
    if (length == 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<std::size_t>(index)];
    std::size_t begin = at;
    std::size_t end = at + length;
    at = end;  // also when the match is refused, or swallows more on its right
    if (token.single_word && (word_ends_at(text, begin) || word_begins_at(text, end))) continue;
    if (token.lstrip) begin = std::max(space_before(text, begin), done);
    if (token.rstrip) end = space_after(text, end);
    if (done < begin) result.push_back({.text = text.substr(done, begin - done)});
    result.push_back({.id = token.id, .text = {}});
    done = end;
  }
  if (done != text.size()) result.push_back({.text = text.substr(done)});
  return result;
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

const AddedTokens::Form* AddedTokens::find_form(std::int64_t id) const {
  const auto found = forms_.find(id);
  return found == forms_.end() ? nullptr : &found->second;
}

}  // namespace vlm
