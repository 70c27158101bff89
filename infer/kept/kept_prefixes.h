// Keys and values of the beginnings of recent prompts, for prompts that begin alike: the next turn
// of a conversation, or another question about the same pictures.
//
//   ids and pictures of a prompt ─► find ─► how many tokens are there, and theirs
//
// Only whole pieces, as serving computes prompts, are used again: what follows is then computed by
// the same passes as if the whole prompt were, and no answer changes by a bit. Holds at most so
// many bytes; what was used longest ago leaves first. For the model's thread only.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <list>
#include <string>
#include <utility>
#include <vector>

#include "vlm/nn/kv_cache.h"

namespace vlm::infer {

// What the keys and values of a prompt's tokens depend on.
struct PrefixSource {
  std::vector<std::int64_t> ids;
  std::vector<bool> is_media;  // of each id: a row of features stands in its place
  at::Tensor positions;        // [3, T]; undefined: counted
  // Of each part of the pictures: its digest, and its rows of features.
  std::vector<std::pair<std::string, std::int64_t>> parts;
};

class KeptPrefixes {
 public:
  // 0: keeps nothing.
  void set_bound(std::int64_t bytes);
  bool is_keeping() const { return most_bytes_ > 0; }

  struct Found {
    const KvPrefix* prefix = nullptr;  // valid until the next call; null: none
    std::int64_t tokens = 0;           // of it, those that both begin with
  };
  // `piece` divides the tokens found, which are fewer than those asked for.
  Found find(const PrefixSource& source, std::int64_t piece);
  // Whether keep would add something.
  bool wants(const PrefixSource& source, std::int64_t piece) const;
  // `prefix` holds the first tokens of the source. Takes the place of those that it begins with.
  void keep(PrefixSource source, KvPrefix prefix);

  std::int64_t bytes() const { return bytes_; }
  std::int64_t hits() const { return hits_; }
  std::int64_t queries() const { return queries_; }

 private:
  struct Entry {
    PrefixSource source;
    KvPrefix prefix;
  };
  void drop(std::list<Entry>::iterator entry);

  std::int64_t most_bytes_ = 0, bytes_ = 0, hits_ = 0, queries_ = 0;
  std::list<Entry> entries_;  // the last used first
};

}  // namespace vlm::infer
