// Media by names that clients gave them, so that a later request need not send them again.
//
//   keep(owner, "uuid", bytes)     find(owner, "uuid") ─► the bytes, or nothing
//
// Each owner (an API key) has names of its own: nobody is shown what another one sent. Holds at
// most so many bytes; what was used longest ago leaves first. Thread-safe.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace vlm::infer {

class KnownMedia {
 public:
  explicit KnownMedia(std::int64_t most_bytes) : most_bytes_(most_bytes) {}

  using Bytes = std::shared_ptr<const std::string>;
  // What is larger than the bound is not kept.
  void keep(std::size_t owner, const std::string& uuid, Bytes bytes);
  // Null: it isn't there, or not any more.
  Bytes find(std::size_t owner, const std::string& uuid);

 private:
  using Name = std::pair<std::size_t, std::string>;
  struct Entry {
    Name name;
    Bytes bytes;
  };
  void drop(std::list<Entry>::iterator entry);

  const std::int64_t most_bytes_;
  std::mutex mutex_;  // of all below
  std::int64_t bytes_ = 0;
  std::list<Entry> entries_;  // the last used first
  std::map<Name, std::list<Entry>::iterator> by_name_;
};

}  // namespace vlm::infer
