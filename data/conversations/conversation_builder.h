// Builds the conversation of one row and decides which picture or clip stands where.
//
// A place for a medium is an image or video part, or a marker ("<image>", "<video>") in plain text
// of a row with such media. A place without a file name gets the row's next medium of its kind, and
// every medium must get a place. If all messages are plain text without markers, the media stand
// before the first user turn, as in TRL. Line breaks next to a marker are removed with it, since
// LLaVA writes "<image>\nWhat?".
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "data/conversations/sample.h"
#include "vlm/core/json.h"

namespace vlm::data {

// Where the files are that a row refers to.
struct MediaPlaces {
  MediaRoot root = {};
  // The pictures of a row in a tar. If there are any, references name these alone.
  std::vector<MediaRef> members = {};
};

// One medium, from a column or a part of a message. `entry` is a path or URI, bytes (in a table),
// or an object, of which the first key with a value counts: "base64", "bytes" (bytes or base64),
// "path", "image" or "video", "url". Throws Error naming `where`.
MediaRef read_medium(MediaKind kind, const Json& entry, const MediaPlaces& places,
                     const std::string& where);

// The media of a column: one, or a list of them. Null, an empty text (a cell of a CSV) and an empty
// list are none.
std::vector<MediaRef> read_media(MediaKind kind, const Json& column, const MediaPlaces& places,
                                 const std::string& where);

// True for null and for an empty list, object or text.
bool is_blank(const Json& value);

class ConversationBuilder {
 public:
  // `media` are those of the row's columns, in the order in which they are shown. Errors name
  // `where`.
  ConversationBuilder(std::string where, MediaPlaces places, std::vector<MediaRef> media);

  // Begins a message, to which later calls add. Roles are user, assistant and system, and other
  // names that data sets use for these. Throws Error for an unknown role.
  void open(const std::string& role);
  void set_loss(bool is_learned);

  void add_part_text(const std::string& text);   // as it is
  void add_plain_text(const std::string& text);  // with its markers
  // Adds the medium that `part` names (read_medium), else the row's next one. `is_whole`: see
  // MediaRef.
  void add_media_part(MediaKind kind, const Json& part, bool is_whole = false);

  // The messages after this call are the completion.
  void begin_completion() { sample_.completion = sample_.messages.size(); }

  // The finished sample. Throws Error when a medium has no place.
  Sample finish();

  // Errors about what is added next name `place` after the row.
  void set_place(const std::string& place);
  const std::string& where() const { return where_; }
  bool has_media() const { return !media_.empty(); }  // of the row
  const std::vector<MediaRef>& media() const { return media_; }

 private:
  void add(MediaRef medium);
  void add_named(MediaRef medium);
  void add_next(MediaKind kind, bool is_whole);
  void put_media_first();
  std::size_t& used(MediaKind kind) { return used_[kind == MediaKind::kVideo ? 1 : 0]; }
  std::vector<MediaRef> media_of(MediaKind kind) const;

  std::string row_, where_;
  MediaPlaces places_;
  std::vector<MediaRef> media_;
  std::array<std::size_t, 2> used_ = {};  // of each kind
  Sample sample_;
  bool has_plain_text_ = false;
};

}  // namespace vlm::data
