#include "data/conversations/conversation_builder.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

// Where an object may hold its file, or name it: the path of one that is held says where it came
// from.
std::array<std::string, 5> file_keys(MediaKind kind) {
  return {"base64", "bytes", "path", part_type(kind), "url"};
}

std::string_view marker_of(MediaKind kind) {
  return kind == MediaKind::kVideo ? "<video>" : "<image>";
}

std::string standard_role(const std::string& role) {
  if (role == "human") return "user";
  if (role == "gpt" || role == "model" || role == "chatgpt") return "assistant";
  if (role == "developer") return "system";
  return role;
}

std::string_view without_breaks(std::string_view text, bool at_front, bool at_back) {
  constexpr std::string_view kBreaks = "\r\n";
  while (at_front && !text.empty() && kBreaks.find(text.front()) != kBreaks.npos) {
    text.remove_prefix(1);
  }
  while (at_back && !text.empty() && kBreaks.find(text.back()) != kBreaks.npos) {
    text.remove_suffix(1);
  }
  return text;
}

// A member is named by its whole name, or without its folders.
MediaRef resolve(MediaKind kind, const std::string& reference, const MediaPlaces& places,
                 const std::string& where) {
  if (places.members.empty() || reference.starts_with("data:")) {
    try {
      return resolve_medium(reference, places.root, kind);
    } catch (const Error& error) {
      throw located(error, where);
    }
  }
  for (const MediaRef& member : places.members) {
    if (member.name.ends_with("/" + reference)) return member;
  }
  throw Error({.what = "the sample has no such picture", .where = where, .got = reference});
}

// What tables (Parquet, Arrow) hold as it is.
MediaRef picture_of_bytes(const Json::binary_t& bytes) {
  return {.name = "the picture's bytes",
          .bytes = std::make_shared<const std::string>(bytes.begin(), bytes.end())};
}

bool names_medium(const Json& part, MediaKind kind) {
  const auto keys = file_keys(kind);
  return std::any_of(keys.begin(), keys.end(), [&](const std::string& key) {
    return part.contains(key) && !is_blank(part[key]);
  });
}

}  // namespace

bool is_blank(const Json& value) {
  if (value.is_string()) return value.get_ref<const std::string&>().empty();
  if (value.is_binary()) return value.get_binary().empty();
  return value.is_null() || (value.is_structured() && value.empty());
}

MediaRef read_medium(MediaKind kind, const Json& entry, const MediaPlaces& places,
                     const std::string& where) {
  const bool is_bytes = entry.is_binary() && !is_any_number(entry);
  if (is_bytes && kind == MediaKind::kPicture) return picture_of_bytes(entry.get_binary());
  if (entry.is_string()) return resolve(kind, entry.get<std::string>(), places, where);
  if (!entry.is_object()) {
    throw Error({.what = "wrong type",
                 .where = where,
                 .got = describe(entry),
                 .wanted = "a path, a data URI, or an object with 'path'"});
  }
  for (const std::string& key : file_keys(kind)) {
    const auto found = entry.find(key);
    if (found == entry.end() || is_blank(*found)) continue;
    const std::string place = concat(where, where.empty() ? "" : ": ", key);
    if (found->is_object() && key == part_type(kind)) {
      return read_medium(kind, *found, places, place);
    }
    if (found->is_binary()) return read_medium(kind, *found, places, place);
    if (!found->is_string()) {
      throw Error(
          {.what = "wrong type", .where = place, .got = describe(*found), .wanted = "string"});
    }
    const auto& text = found->get_ref<const std::string&>();
    const bool is_data = (key == "base64" || key == "bytes") && !text.starts_with("data:");
    return resolve(kind, is_data ? "data:image;base64," + text : text, places, where);
  }
  throw Error({.what = "no 'path'",
               .where = where,
               .got = describe(entry),
               .wanted = "an object with 'path'"});
}

std::vector<MediaRef> read_media(MediaKind kind, const Json& column, const MediaPlaces& places,
                                 const std::string& where) {
  if (column.is_null() || (column.is_string() && is_blank(column))) return {};
  if (!column.is_array()) return {read_medium(kind, column, places, where)};
  std::vector<MediaRef> media;
  for (const Json& entry : column) media.push_back(read_medium(kind, entry, places, where));
  return media;
}

ConversationBuilder::ConversationBuilder(std::string where, MediaPlaces places,
                                         std::vector<MediaRef> media)
    : row_(std::move(where)), where_(row_), places_(std::move(places)), media_(std::move(media)) {
  sample_.where = row_;
}

void ConversationBuilder::set_place(const std::string& place) {
  where_ = row_ + (row_.empty() || place.empty() ? "" : ": ") + place;
}

void ConversationBuilder::open(const std::string& role) {
  const std::string standard = standard_role(role);
  if (standard != "user" && standard != "assistant" && standard != "system") {
    throw Error({.what = "unknown role",
                 .where = where_,
                 .got = concat("'", role, "'"),
                 .wanted = "user, assistant or system"});
  }
  sample_.messages.push_back({.role = standard});
}

void ConversationBuilder::set_loss(bool is_learned) {
  sample_.loss.resize(sample_.messages.size());
  sample_.loss.back() = is_learned;
}

void ConversationBuilder::add_part_text(const std::string& text) {
  sample_.messages.back().content.push_back({.type = "text", .text = text});
}

void ConversationBuilder::add_plain_text(const std::string& text) {
  has_plain_text_ = true;
  std::string_view tail = text;
  bool is_behind_marker = false;
  for (;;) {
    std::size_t at = std::string_view::npos;
    MediaKind kind = MediaKind::kPicture;
    for (const MediaKind candidate : {MediaKind::kPicture, MediaKind::kVideo}) {
      const std::size_t found =
          media_of(candidate).empty() ? std::string_view::npos : tail.find(marker_of(candidate));
      if (found >= at) continue;
      at = found;
      kind = candidate;
    }
    if (at == std::string_view::npos) break;
    const auto before = without_breaks(tail.substr(0, at), is_behind_marker, true);
    if (!before.empty()) add_part_text(std::string(before));
    add_next(kind, /*is_whole=*/false);
    tail.remove_prefix(at + marker_of(kind).size());
    is_behind_marker = true;
  }
  tail = without_breaks(tail, is_behind_marker, false);
  if (!tail.empty() || !is_behind_marker) add_part_text(std::string(tail));
}

void ConversationBuilder::add_media_part(MediaKind kind, const Json& part, bool is_whole) {
  if (part.is_object() && !names_medium(part, kind)) return add_next(kind, is_whole);
  MediaRef medium = read_medium(kind, part, places_, where_);
  medium.is_whole = is_whole;
  add_named(std::move(medium));
}

// A member of a tar that is named is not left for parts without a name.
void ConversationBuilder::add_named(MediaRef medium) {
  if (!medium.archive.empty()) {
    std::size_t skipped = used(medium.kind);
    const auto found = std::find_if(media_.begin(), media_.end(), [&](const MediaRef& member) {
      if (member.kind != medium.kind) return false;
      if (skipped > 0) return --skipped, false;  // taken already
      return member.name == medium.name;
    });
    if (found != media_.end()) media_.erase(found);
  }
  add(std::move(medium));
}

void ConversationBuilder::add_next(MediaKind kind, bool is_whole) {
  const std::vector<MediaRef> row_media = media_of(kind);
  if (used(kind) < row_media.size()) {
    MediaRef medium = row_media[used(kind)++];
    medium.is_whole = is_whole;
    return add(std::move(medium));
  }
  throw Error(
      {.what = concat("more ", part_type(kind), " parts than entries of '", part_type(kind), "s'"),
       .where = row_,
       .got = concat(row_media.size(), " entries")});
}

void ConversationBuilder::add(MediaRef medium) {
  sample_.messages.back().content.push_back({.type = part_type(medium.kind)});
  sample_.media.push_back(std::move(medium));
}

Sample ConversationBuilder::finish() {
  if (sample_.media.empty() && has_plain_text_) put_media_first();
  for (const MediaKind kind : {MediaKind::kPicture, MediaKind::kVideo}) {
    const std::size_t row_media = media_of(kind).size();
    if (used(kind) == row_media) continue;
    throw Error(
        {.what = concat(part_type(kind), " parts don't fit the '", part_type(kind), "s' column"),
         .where = row_,
         .got = concat(used(kind), " parts"),
         .wanted = concat(row_media)});
  }
  if (!sample_.loss.empty()) sample_.loss.resize(sample_.messages.size());
  return std::move(sample_);
}

// Before the first user turn's text.
void ConversationBuilder::put_media_first() {
  for (Message& message : sample_.messages) {
    if (message.role != "user") continue;
    std::vector<ContentPart> parts;
    for (const MediaRef& medium : media_) {
      parts.push_back({.type = part_type(medium.kind)});
      ++used(medium.kind);
    }
    sample_.media = media_;
    // A question of no words is its media alone.
    const bool is_empty = message.content.size() == 1 && message.content[0].text.empty();
    if (is_empty && !parts.empty()) message.content.clear();
    message.content.insert(message.content.begin(), parts.begin(), parts.end());
    return;
  }
}

std::vector<MediaRef> ConversationBuilder::media_of(MediaKind kind) const {
  std::vector<MediaRef> row_media;
  std::copy_if(media_.begin(), media_.end(), std::back_inserter(row_media),
               [&](const MediaRef& medium) { return medium.kind == kind; });
  return row_media;
}

}  // namespace vlm::data
