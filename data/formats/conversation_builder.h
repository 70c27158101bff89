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

#include "data/formats/columns.h"
#include "data/sample.h"

namespace vlm::data {

class ConversationBuilder {
 public:
  // `columns` must outlive this.
  explicit ConversationBuilder(const Columns& columns);

  // Begins a message; what is added belongs to it. Roles are user, assistant, system, and names
  // that files have for these. Throws Error for others.
  void open(const std::string& role);
  void set_loss(bool is_learned);

  void add_part_text(const std::string& text);   // as it is
  void add_plain_text(const std::string& text);  // with its markers
  void add_medium(MediaKind kind, const std::string& reference);
  // The file of {"path"}, {"url"}, {"image"}, {"base64"} or {"bytes"}, or the row's next one.
  void add_media_part(MediaKind kind, const Json& part);

  // Messages from here on are the completion.
  void begin_completion() { sample_.completion = sample_.messages.size(); }

  // Throws Error when media are left.
  Sample finish();

  const std::string& where() const { return columns_.row().where; }

 private:
  // The row's own media of one kind.
  struct Stock {
    MediaKind kind;
    std::vector<MediaRef> media = {};
    std::size_t used = 0;
  };

  Stock& stock(MediaKind kind) { return stocks_[kind == MediaKind::kVideo ? 1 : 0]; }
  std::vector<MediaRef> read_column(MediaKind kind) const;
  MediaRef resolve(MediaKind kind, const std::string& reference) const;
  MediaRef media_of(MediaKind kind, const Json& entry, const std::string& where) const;
  void add(MediaRef medium);
  void add_named(MediaRef medium);
  void add_next(MediaKind kind);
  void put_media_first();

  const Columns& columns_;
  Sample sample_;
  std::array<Stock, 2> stocks_;
  bool has_plain_text_ = false;
};

}  // namespace vlm::data
