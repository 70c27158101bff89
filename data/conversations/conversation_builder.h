// Collects the messages of one row, and gives every place of a picture or clip its file.
//
// A place is an image or video part, or a marker ("<image>", "<video>") in plain text of a row with
// such media. Places that name no file take the row's next one of their kind; all must be taken. A
// row whose messages are plain text without places has its media in front of the first user turn,
// as TRL does. Line breaks that touch a marker go away with it: LLaVA writes "<image>\nWhat?".
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "data/conversations/sample.h"
#include "vlm/core/json.h"

namespace vlm::data {

// Where a row's references to media lead.
struct MediaPlaces {
  MediaRoot root = {};
  // Of a row in a tar: its pictures, which references then name.
  std::vector<MediaRef> members = {};
};

// The medium that an entry of a column or a part names: a path or URI, bytes (of a table), or an
// object with "base64", "bytes" (these, or base64), "path", the kind's own name or "url", the first
// of these that says something. Throws Error naming `where`.
MediaRef read_medium(MediaKind kind, const Json& entry, const MediaPlaces& places,
                     const std::string& where);

// The media of a column: one, or a list of them. Null, an empty text (a cell of a CSV) and an empty
// list are none.
std::vector<MediaRef> read_media(MediaKind kind, const Json& column, const MediaPlaces& places,
                                 const std::string& where);

// What stands in a message or part and says nothing: null, and for lists, objects and texts being
// empty.
bool is_blank(const Json& value);

class ConversationBuilder {
 public:
  // `media` are the row's own, in the order in which they are shown. `where` is for errors.
  ConversationBuilder(std::string where, MediaPlaces places, std::vector<MediaRef> media);

  // Begins a message; what is added belongs to it. Roles are user, assistant, system, and names
  // that files have for these. Throws Error for others.
  void open(const std::string& role);
  void set_loss(bool is_learned);

  void add_part_text(const std::string& text);   // as it is
  void add_plain_text(const std::string& text);  // with its markers
  // The file that `part` names as read_medium says, or the row's next one. `is_whole`: see
  // MediaRef.
  void add_media_part(MediaKind kind, const Json& part, bool is_whole = false);

  // Messages from here on are the completion.
  void begin_completion() { sample_.completion = sample_.messages.size(); }

  // Throws Error when media are left.
  Sample finish();

  // Of what is added next: `place` is behind the row's own.
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
  std::vector<MediaRef> own_media(MediaKind kind) const;

  std::string row_, where_;
  MediaPlaces places_;
  std::vector<MediaRef> media_;
  std::array<std::size_t, 2> used_ = {};  // of each kind
  Sample sample_;
  bool has_plain_text_ = false;
};

}  // namespace vlm::data
