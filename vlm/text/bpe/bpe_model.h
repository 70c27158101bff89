// tokenizer.json's "model" of type BPE: a piece of text → ids, by merging symbols.
//
//   "Ġlow" ─► symbols Ġ l o w ─► merges, lowest rank first, leftmost first ─► ids
//
// Options: unk_token, fuse_unk, byte_fallback, ignore_merges, continuing_subword_prefix,
// end_of_word_suffix; dropout must be null or 0. A symbol that the vocabulary doesn't know is
// dropped silently when there is no unk_token (SmolVLM2 lacks 21 byte symbols). Merging takes
// O(n log n) for a piece of n symbols; short pieces are remembered. Reference: models/bpe of the
// `tokenizers` package.
//
// Immutable after loading and safe to use from several threads: what encoding writes to is a
// Workspace, which belongs to one call at a time.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "vlm/core/json.h"

namespace vlm {

// Hash for maps from strings that are looked up by string_view.
struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const noexcept {
    return std::hash<std::string_view>{}(text);
  }
};

// (left id, right id) → (rank, id of both together). Open addressing, which is twice as quick as
// std::unordered_map; merging spends its time in these look-ups.
class MergeTable {
 public:
  struct Merge {
    std::uint32_t rank = 0;
    std::int32_t id = 0;
  };

  explicit MergeTable(std::size_t count);
  // False when the pair is there already (its merge is replaced).
  bool insert(std::int32_t left, std::int32_t right, Merge merge);
  const Merge* find(std::int32_t left, std::int32_t right) const;

 private:
  struct Slot {
    std::uint64_t key = kEmpty;
    Merge merge = {};
  };
  static constexpr std::uint64_t kEmpty = ~0ULL;  // ids are never negative

  std::size_t slot_of(std::uint64_t key) const;

  std::vector<Slot> slots_;
  int shift_;
};

struct BpeWorkspace;  // bpe_model.cpp

class BpeModel {
 public:
  // Throws Error naming what is missing, of the wrong type, or contradicts itself.
  BpeModel(const Json& json, const std::string& where);
  ~BpeModel();

  // Encodes pieces one by one, appending to `ids`; lives for one call of the tokenizer.
  class Encoder {
   public:
    explicit Encoder(const BpeModel& model);
    ~Encoder();
    Encoder(const Encoder&) = delete;
    Encoder& operator=(const Encoder&) = delete;
    void add(std::string_view piece, std::vector<std::int64_t>& ids);

   private:
    const BpeModel& model_;
    std::unique_ptr<BpeWorkspace> workspace_;
  };

  std::optional<std::int64_t> token_to_id(std::string_view token) const;
  const std::string* id_to_token(std::int64_t id) const;

  // Number of tokens in the vocabulary.
  std::int64_t size() const { return static_cast<std::int64_t>(ids_.size()); }

 private:
  struct Options {
    std::string prefix;  // continuing_subword_prefix
    std::string suffix;  // end_of_word_suffix
    std::optional<std::int32_t> unk_id;
    bool fuse_unk = false;
    bool byte_fallback = false;
    bool ignore_merges = false;
  };

  void read_options(const Json& json, const std::string& where);
  void read_vocabulary(const Json& vocab, const std::string& where);
  void read_merges(const Json& merges, const std::string& where);
  void add_merge(const Json& json, std::size_t rank, const std::string& where);

  void encode_piece(std::string_view piece, BpeWorkspace& workspace) const;
  void append_symbols(std::string_view piece, BpeWorkspace& workspace) const;
  void append_unknown(std::string_view symbol, bool& last_is_unknown,
                      BpeWorkspace& workspace) const;
  void merge_symbols(BpeWorkspace& workspace) const;
  std::optional<std::int32_t> symbol_id(std::string_view symbol) const;

  Options options_;
  std::unordered_map<std::string, std::int32_t, StringHash, std::equal_to<>> ids_;
  std::vector<std::pair<std::int32_t, const std::string*>> tokens_;  // by id; keys of ids_
  std::array<std::int32_t, 0x180> low_symbols_;  // id of each character below U+0180, or -1
  std::array<std::int32_t, 256> byte_ids_;       // id of "<0x00>" … "<0xFF>", or -1
  std::unique_ptr<MergeTable> merges_;

  mutable std::mutex mutex_;  // guards free_
  mutable std::vector<std::unique_ptr<BpeWorkspace>> free_;
};

}  // namespace vlm
