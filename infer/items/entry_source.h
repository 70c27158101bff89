// Paths, globs, folders, lists and files of rows → entries: media with an id, columns and perhaps
// their own question.
//
//   arguments ─► open_entries ─► EntrySource: size(), at(i)
//
// Entries have a fixed order and are made when asked for, so that a hundred thousand of them cost a
// path each, not a conversation each. What an argument is, is told by what it names: "-" is a list
// of paths on stdin, a folder is searched recursively, names like *.jsonl and *.parquet, folders
// with metadata.jsonl and data sets of the hub have rows (row_entries.h), a pattern with * ? [ is a
// glob whose ** also crosses folders, and everything else is a picture or, for `vlm video`, a
// video; folders are searched for those (path_search.h). A path that is there but can't be opened
// is an error of its own entry.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/conversations/data_options.h"
#include "data/media/file_kinds.h"
#include "infer/items/item.h"
#include "vlm/io/list_digest.h"

namespace vlm::infer {

struct Entry {
  std::string id;
  std::string path = {};                        // shown in the row; empty: the media have none
  OrderedJson columns = OrderedJson::object();  // further fields, shown and usable in templates
  std::vector<MediaRef> media = {};
  // What it asks by itself: a question of its own, or else a whole conversation.
  std::optional<std::string> question = {};
  std::vector<Message> messages = {};  // with either
  OrderedJson overrides = {};
  std::string error = {};
};

class EntrySource {
 public:
  virtual ~EntrySource() = default;
  virtual std::int64_t size() const = 0;
  // Thread-safe. What is wrong with one entry alone is its `error`.
  virtual Entry at(std::int64_t index) const = 0;
  // True when the entry may show the media of the one before it: they are worth comparing.
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

// How the rows of data files are read.
struct RowOptions {
  data::DataOptions data = {};
  std::optional<std::string> id_column = {};  // none: "id" or "custom_id"; empty: no column
  std::string split = {}, config_name = {}, revision = {};  // of data sets of the hub

  // What was chosen, as option → value; journals keep it.
  OrderedJson describe() const;
};

// Throws Error for a path that doesn't exist, a folder or pattern without media of the kind, a kind
// of file that can't be read, for what is wrong with a whole file, and for `rows` that say
// something where no argument has rows. `list` is what "-" reads: paths, one a line, or ended by
// NUL bytes when there are any. `kind` is what plain files are.
std::unique_ptr<EntrySource> open_entries(const std::vector<std::string>& arguments,
                                          std::istream& list, MediaKind kind = MediaKind::kPicture,
                                          const RowOptions& rows = {});

}  // namespace vlm::infer
