#include "infer/server/fetch/known_media.h"

#include <iterator>

namespace vlm::infer {

void KnownMedia::drop(std::list<Entry>::iterator entry) {
  bytes_ -= std::ssize(*entry->bytes);
  by_name_.erase(entry->name);
  entries_.erase(entry);
}

void KnownMedia::keep(std::size_t owner, const std::string& uuid, Bytes bytes) {
  const std::lock_guard lock(mutex_);
  const Name name(owner, uuid);
  if (const auto found = by_name_.find(name); found != by_name_.end()) drop(found->second);
  if (std::ssize(*bytes) > most_bytes_) return;
  bytes_ += std::ssize(*bytes);
  entries_.push_front({name, std::move(bytes)});
  by_name_[name] = entries_.begin();
  while (bytes_ > most_bytes_) drop(std::prev(entries_.end()));
}

KnownMedia::Bytes KnownMedia::find(std::size_t owner, const std::string& uuid) {
  const std::lock_guard lock(mutex_);
  const auto found = by_name_.find(Name(owner, uuid));
  if (found == by_name_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->bytes;
}

}  // namespace vlm::infer
