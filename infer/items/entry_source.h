// Paths, globs, folders, lists, JSONL and tar files → entries: media with an id, columns and
// perhaps their own question.
//
//   arguments ─► open_entries ─► EntrySource: size(), at(i)
//
// Entries have a fixed order and are made when asked for, so that a hundred thousand of them cost a
// path each, not a conversation each. What an argument is, is told by what it names: "-" is a list
// of paths on stdin, a folder is searched recursively, *.jsonl and *.tar have their own readers
// (jsonl_source.h, tar_source.h), a pattern with * ? [ is a glob whose ** also crosses folders, and
// everything else is a picture or, for `vlm video`, a video; folders are searched for those
// (path_search.h). A path that is there but can't be opened is an error of its own entry.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/media/file_kinds.h"
#include "infer/items/digest.h"
#include "infer/items/item.h"

namespace vlm::infer {

struct Entry {
  std::string id;
  std::string path = {};                        // shown in the row; empty: the media have none
  OrderedJson columns = OrderedJson::object();  // further fields, shown and usable in templates
  std::vector<MediaRef> media = {};
  std::optional<std::string> question = {};  // its own, without a conversation
  std::string system = {};                   // with its own question; empty: the run's
  std::vector<Message> messages = {};        // its own whole conversation
  OrderedJson overrides = {};
  std::string error = {};
};

class EntrySource {
 public:
  virtual ~EntrySource() = default;
  virtual std::int64_t size() const = 0;
  // Thread-safe. What is wrong with one entry alone is its `error`.
  virtual Entry at(std::int64_t index) const = 0;
  // True when the entry shows the media of the one before it.
  virtual bool shares_media(std::int64_t) const { return false; }
  // Names of all columns that entries may have, in the order in which they are met.
  virtual std::vector<std::string> columns() const { return {}; }
  // True when entries ask something of their own.
  virtual bool asks() const { return false; }
  // True when there may be videos among the media.
  virtual bool shows_videos() const { return false; }
  // Files that hold entries: lists of rows, archives, not media of their own.
  virtual std::vector<std::string> files() const { return {}; }
  // Pictures of kinds that can't be read, which have no entry.
  virtual data::KindCounts left_out() const { return {}; }
  // Tells this list of entries from every other one.
  virtual void add_to(ListDigest& digest) const = 0;
};

// Throws Error for a path that doesn't exist, a folder or pattern without media of the kind, a kind
// of file that can't be read, and for what is wrong with a whole file. `list` is what "-" reads:
// paths, one a line, or ended by NUL bytes when there are any. `kind` is what plain files are.
std::unique_ptr<EntrySource> open_entries(const std::vector<std::string>& arguments,
                                          std::istream& list, MediaKind kind = MediaKind::kPicture);

}  // namespace vlm::infer
