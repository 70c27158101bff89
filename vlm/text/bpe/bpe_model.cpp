#include "vlm/text/bpe/bpe_model.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json_access.h"
#include "vlm/text/unicode/unicode.h"

namespace vlm {
namespace {

constexpr std::size_t kMaxRemembered = 1 << 16;  // pieces
constexpr std::size_t kMaxRememberedBytes = 64;  // of one piece
constexpr std::int32_t kMerged = -1;             // id of a symbol that was merged away
constexpr std::int32_t kNone = -1;               // no neighbour

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
}

bool by_id(const std::pair<std::int32_t, const std::string*>& a,
           const std::pair<std::int32_t, const std::string*>& b) {
  return a.first < b.first;
}

std::string byte_token(std::size_t byte) {
  char text[8];
  std::snprintf(text, sizeof text, "<0x%02X>", static_cast<unsigned>(byte));
  return text;
}

// Entry `rank` of the list `where`: "a b" or ["a", "b"]; the views are into `json`.
std::pair<std::string_view, std::string_view> parse_merge(const Json& json, std::size_t rank,
                                                          const std::string& where) {
  if (json.is_array() && json.size() == 2 && json[0].is_string() && json[1].is_string()) {
    return {json[0].get_ref<const std::string&>(), json[1].get_ref<const std::string&>()};
  }
  if (json.is_string()) {
    const std::string_view text = json.get_ref<const std::string&>();
    const auto space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  throw Error({.what = "not a merge",
               .where = inside(where, rank),
               .got = describe(json),
               .wanted = "\"left right\" or [\"left\", \"right\"]"});
}

}  // namespace

// What encoding writes to, and the pieces encoded before.
struct BpeWorkspace {
  struct Symbol {
    std::int32_t id;
    std::int32_t previous;
    std::int32_t next;
  };

  std::vector<Symbol> symbols;
  std::vector<std::uint64_t> queue;  // rank << 32 | position, a heap with the least on top
  std::vector<std::int64_t> ids;     // of the piece in work
  std::unordered_map<std::string, std::vector<std::int64_t>, StringHash, std::equal_to<>> memory;
};

MergeTable::MergeTable(std::size_t count) {
  const std::size_t slots = std::bit_ceil(std::max<std::size_t>(count * 2, 16));
  slots_.resize(slots);
  shift_ = 64 - std::countr_zero(slots);
}

std::size_t MergeTable::slot_of(std::uint64_t key) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t slot = (key * 0x9E3779B97F4A7C15ULL) >> shift_;
  while (slots_[slot].key != key && slots_[slot].key != kEmpty) slot = (slot + 1) & mask;
  return slot;
}

bool MergeTable::insert(std::int32_t left, std::int32_t right, Merge merge) {
  const std::uint64_t key = pair_key(left, right);
  Slot& slot = slots_[slot_of(key)];
  const bool added = slot.key == kEmpty;
  slot = {key, merge};
  return added;
}

const MergeTable::Merge* MergeTable::find(std::int32_t left, std::int32_t right) const {
  const Slot& slot = slots_[slot_of(pair_key(left, right))];
  return slot.key == kEmpty ? nullptr : &slot.merge;
}

BpeModel::BpeModel(const Json& json, const std::string& where) {
  const std::string type = get_string(json, "type", where, "BPE");
  if (type != "BPE") refuse_component(type, inside(where, "type"), "BPE");
  read_vocabulary(get_member(json, "vocab", where), inside(where, "vocab"));
  read_options(json, where);
  read_merges(get_array(json, "merges", where), inside(where, "merges"));
}

BpeModel::~BpeModel() = default;

void BpeModel::read_options(const Json& json, const std::string& where) {
  const Json* dropout = find_member(json, "dropout", where);
  if (dropout != nullptr && *dropout != 0) {
    throw Error({.what = "option is not supported",
                 .where = inside(where, "dropout"),
                 .got = describe(*dropout),
                 .wanted = "null"});
  }
  options_.prefix = get_string(json, "continuing_subword_prefix", where, "");
  options_.suffix = get_string(json, "end_of_word_suffix", where, "");
  options_.fuse_unk = get_bool(json, "fuse_unk", where, false);
  options_.byte_fallback = get_bool(json, "byte_fallback", where, false);
  options_.ignore_merges = get_bool(json, "ignore_merges", where, false);
  const std::string unk = get_string(json, "unk_token", where, "");
  if (unk.empty()) return;
  options_.unk_id = symbol_id(unk);
  if (!options_.unk_id) {
    throw Error({.what = "token is not in the vocabulary",
                 .where = inside(where, "unk_token"),
                 .got = concat("\"", unk, "\"")});
  }
}

void BpeModel::read_vocabulary(const Json& vocab, const std::string& where) {
  if (!vocab.is_object()) {
    throw Error({.what = "wrong type", .where = where, .got = describe(vocab), .wanted = "object"});
  }
  ids_.reserve(vocab.size());
  tokens_.reserve(vocab.size());
  for (const auto& [token, value] : vocab.get_ref<const Json::object_t&>()) {
    const bool plain = value.is_number_unsigned() && value.get<std::uint64_t>() <= kMaxTokenId;
    const auto id =
        plain ? value.get<std::int32_t>()
              : static_cast<std::int32_t>(to_token_id(value, inside(where, token)));  // throws
    tokens_.emplace_back(id, &ids_.emplace(token, id).first->first);
  }
  std::stable_sort(tokens_.begin(), tokens_.end(), by_id);
  const auto twice =
      std::adjacent_find(tokens_.begin(), tokens_.end(),
                         [](const auto& a, const auto& b) { return a.first == b.first; });
  if (twice != tokens_.end()) {
    throw Error({.what = "id given to two tokens",
                 .where = where,
                 .got = concat(twice->first, " for \"", *twice->second, "\" and \"",
                               *std::next(twice)->second, "\"")});
  }
  for (std::size_t c = 0; c < low_symbols_.size(); ++c) {
    low_symbols_[c] = symbol_id(to_utf8(static_cast<char32_t>(c))).value_or(-1);
  }
  for (std::size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    byte_ids_[byte] = symbol_id(byte_token(byte)).value_or(-1);
  }
}

void BpeModel::read_merges(const Json& merges, const std::string& where) {
  merges_ = std::make_unique<MergeTable>(merges.size());
  for (std::size_t i = 0; i < merges.size(); ++i) add_merge(merges[i], i, where);
}

void BpeModel::add_merge(const Json& json, std::size_t rank, const std::string& where) {
  const auto [left, right] = parse_merge(json, rank, where);
  const auto get_id = [&](std::string_view token) {
    const auto id = symbol_id(token);
    if (id) return *id;
    throw Error({.what = "merge names a token that is not in the vocabulary",
                 .where = inside(where, rank),
                 .got = concat("\"", token, "\"")});
  };
  if (right.size() < options_.prefix.size()) {
    throw Error({.what = "right side is shorter than continuing_subword_prefix",
                 .where = inside(where, rank),
                 .got = concat("\"", right, "\"")});
  }
  const std::string joined = std::string(left).append(right.substr(options_.prefix.size()));
  merges_->insert(get_id(left), get_id(right),
                  {.rank = static_cast<std::uint32_t>(rank), .id = get_id(joined)});
}

std::optional<std::int32_t> BpeModel::symbol_id(std::string_view symbol) const {
  const auto found = ids_.find(symbol);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<std::int64_t> BpeModel::token_to_id(std::string_view token) const {
  return symbol_id(token);
}

const std::string* BpeModel::id_to_token(std::int64_t id) const {
  if (id < 0 || id > kMaxTokenId) return nullptr;
  const std::pair<std::int32_t, const std::string*> wanted(static_cast<std::int32_t>(id), nullptr);
  const auto found = std::lower_bound(tokens_.begin(), tokens_.end(), wanted, by_id);
  return found == tokens_.end() || found->first != id ? nullptr : found->second;
}

BpeModel::Encoder::Encoder(const BpeModel& model) : model_(model) {
  const std::lock_guard lock(model.mutex_);
  if (model.free_.empty()) {
    workspace_ = std::make_unique<BpeWorkspace>();
  } else {
    workspace_ = std::move(model.free_.back());
    model.free_.pop_back();
  }
}

BpeModel::Encoder::~Encoder() {
  const std::lock_guard lock(model_.mutex_);
  model_.free_.push_back(std::move(workspace_));
}

void BpeModel::Encoder::add(std::string_view piece, std::vector<std::int64_t>& ids) {
  auto& memory = workspace_->memory;
  const bool short_enough = piece.size() <= kMaxRememberedBytes;
  if (short_enough) {
    const auto known = memory.find(piece);
    if (known != memory.end()) {
      ids.insert(ids.end(), known->second.begin(), known->second.end());
      return;
    }
  }
  model_.encode_piece(piece, *workspace_);
  ids.insert(ids.end(), workspace_->ids.begin(), workspace_->ids.end());
  if (!short_enough) return;
  if (memory.size() >= kMaxRemembered) memory.clear();
  memory.emplace(piece, workspace_->ids);
}

void BpeModel::encode_piece(std::string_view piece, BpeWorkspace& workspace) const {
  workspace.ids.clear();
  if (options_.ignore_merges) {
    if (const auto whole = symbol_id(piece)) {
      workspace.ids.push_back(*whole);
      return;
    }
  }
  append_symbols(piece, workspace);
  merge_symbols(workspace);
  for (const BpeWorkspace::Symbol& symbol : workspace.symbols) {
    if (symbol.id != kMerged) workspace.ids.push_back(symbol.id);
  }
}

void BpeModel::append_symbols(std::string_view piece, BpeWorkspace& workspace) const {
  workspace.symbols.clear();
  const bool plain = options_.prefix.empty() && options_.suffix.empty();
  bool last_is_unknown = false;
  std::size_t at = 0;
  while (at < piece.size()) {
    const std::size_t begin = at;
    const char32_t c = next_code_point(piece, at);
    const std::string_view character = piece.substr(begin, at - begin);
    if (plain && c < low_symbols_.size() && low_symbols_[c] >= 0) {
      workspace.symbols.push_back({low_symbols_[c], 0, 0});
      last_is_unknown = false;
      continue;
    }
    std::string symbol = begin == 0 ? "" : options_.prefix;
    symbol += character;
    if (at == piece.size()) symbol += options_.suffix;
    if (const auto id = symbol_id(symbol)) {
      workspace.symbols.push_back({*id, 0, 0});
      last_is_unknown = false;
    } else {
      append_unknown(symbol, last_is_unknown, workspace);
    }
  }
}

void BpeModel::append_unknown(std::string_view symbol, bool& last_is_unknown,
                              BpeWorkspace& workspace) const {
  const auto id_of = [this](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
  const bool has_bytes =
      std::all_of(symbol.begin(), symbol.end(), [&](char byte) { return id_of(byte) >= 0; });
  if (options_.byte_fallback && has_bytes) {
    for (const char byte : symbol) workspace.symbols.push_back({id_of(byte), 0, 0});
    last_is_unknown = false;
  } else if (options_.unk_id && !(options_.fuse_unk && last_is_unknown)) {
    workspace.symbols.push_back({*options_.unk_id, 0, 0});
    last_is_unknown = true;
  }
}

void BpeModel::merge_symbols(BpeWorkspace& workspace) const {
  auto& symbols = workspace.symbols;
  auto& queue = workspace.queue;
  queue.clear();
  const auto push = [&](std::int32_t left, std::int32_t right) {
    const auto* merge = merges_->find(symbols[static_cast<std::size_t>(left)].id,
                                      symbols[static_cast<std::size_t>(right)].id);
    if (merge == nullptr) return;
    queue.push_back(static_cast<std::uint64_t>(merge->rank) << 32 |
                    static_cast<std::uint32_t>(left));
    std::push_heap(queue.begin(), queue.end(), std::greater<>());
  };
  const auto count = static_cast<std::int32_t>(symbols.size());
  for (std::int32_t i = 0; i < count; ++i) {
    symbols[static_cast<std::size_t>(i)].previous = i - 1;
    symbols[static_cast<std::size_t>(i)].next = i + 1 < count ? i + 1 : kNone;
    if (i > 0) push(i - 1, i);
  }
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), std::greater<>());
    const std::uint64_t top = queue.back();
    queue.pop_back();
    const auto position = static_cast<std::int32_t>(top & 0xFFFFFFFF);
    BpeWorkspace::Symbol& left = symbols[static_cast<std::size_t>(position)];
    if (left.id == kMerged || left.next == kNone) continue;
    BpeWorkspace::Symbol& right = symbols[static_cast<std::size_t>(left.next)];
    // An entry whose pair has changed since is stale.
    const auto* merge = merges_->find(left.id, right.id);
    if (merge == nullptr || merge->rank != top >> 32) continue;
    left.id = merge->id;
    left.next = right.next;
    right.id = kMerged;
    if (left.next != kNone) {
      symbols[static_cast<std::size_t>(left.next)].previous = position;
      push(position, left.next);
    }
    if (left.previous != kNone) push(left.previous, position);
  }
}

}  // namespace vlm
