// The inputs of a command → entries. An entry is what one question is asked about: pictures or
// videos with an id, further columns and, where the input has one, a question.
//
//   arguments ─► open_entries ─► EntrySource: size(), at(i)
//
// Entries have a fixed order. Each is made when it is asked for, so a hundred thousand entries take
// the memory of their paths. An argument can be:
//   -                               a list of paths on stdin
//   a pattern with * ? [            every file that matches; ** also matches across folders
//   rows.jsonl, rows.parquet, …     one entry a row (row_entries.h); also folders with
//                                   metadata.jsonl, and hf://datasets/org/name
//   a folder                        all pictures (for `vlm video` videos) in it (path_search.h)
//   any other path                  a picture, for `vlm video` a video
// A path that exists and can't be opened becomes an entry with an error.
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
  // What the input asks: a question, or a whole conversation. Without both the command's is used.
  std::optional<std::string> question = {};
  std::vector<Message> messages = {};  // with a question: the conversation that it stands in
  OrderedJson overrides = {};          // generation options of this entry alone
  std::string error = {};              // why it can't be asked; empty: it can
};

class EntrySource {
 public:
  virtual ~EntrySource() = default;
  virtual std::int64_t size() const = 0;
  // Thread-safe. A problem of one entry is in its `error`; nothing is thrown for it.
  virtual Entry at(std::int64_t index) const = 0;
  // True when the entry may show the same media as the entry before it, so that comparing the two
  // is worth the time.
  virtual bool shares_media(std::int64_t) const { return false; }
  // Names of all columns that entries may have, in the order of their first entry.
  virtual std::vector<std::string> columns() const { return {}; }
  // True when some entries bring a question or conversation.
  virtual bool asks() const { return false; }
  // True when some entries say what their answer must look like.
  virtual bool has_rules() const { return false; }
  // True when there may be videos among the media.
  virtual bool shows_videos() const { return false; }
  // Files that hold several entries: lists of rows and archives, not single pictures and videos.
  virtual std::vector<std::string> files() const { return {}; }
  // Pictures of kinds that can't be read, which have no entry.
  virtual data::KindCounts left_out() const { return {}; }
  // Adds all that tells this list of entries from another list.
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

// `list` is what "-" reads: one path a line or, if there is a NUL byte, paths that end with one.
// `kind` says whether plain files are pictures or videos. Throws Error for a path that doesn't
// exist, a folder or pattern without files of this kind, a file of a kind that can't be read, a
// file of rows that is broken as a whole, and options in `rows` when no argument has rows.
std::unique_ptr<EntrySource> open_entries(const std::vector<std::string>& arguments,
                                          std::istream& list, MediaKind kind = MediaKind::kPicture,
                                          const RowOptions& rows = {});

}  // namespace vlm::infer
