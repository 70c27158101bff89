#include "data/formats/conversation_builder.h"

#include <algorithm>
#include <filesystem>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

// Where an object may name its file, or hold it.
std::array<std::string, 5> file_keys(MediaKind kind) {
  return {"path", part_type(kind), "url", "base64", "bytes"};
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

}  // namespace

ConversationBuilder::ConversationBuilder(const Columns& columns)
    : columns_(columns), stocks_{Stock{MediaKind::kPicture}, Stock{MediaKind::kVideo}} {
  sample_.where = where();
  for (Stock& stock : stocks_) stock.media = read_column(stock.kind);
}

void ConversationBuilder::open(const std::string& role) {
  const std::string standard = standard_role(role);
  if (standard != "user" && standard != "assistant" && standard != "system") {
    throw Error({.what = "unknown role",
                 .where = where(),
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
  std::string_view rest = text;
  bool is_behind_marker = false;
  for (;;) {
    std::size_t at = std::string_view::npos;
    MediaKind kind = MediaKind::kPicture;
    for (const Stock& one : stocks_) {
      const std::size_t found =
          one.media.empty() ? std::string_view::npos : rest.find(marker_of(one.kind));
      if (found >= at) continue;
      at = found;
      kind = one.kind;
    }
    if (at == std::string_view::npos) break;
    const auto before = without_breaks(rest.substr(0, at), is_behind_marker, true);
    if (!before.empty()) add_part_text(std::string(before));
    add_next(kind);
    rest.remove_prefix(at + marker_of(kind).size());
    is_behind_marker = true;
  }
  rest = without_breaks(rest, is_behind_marker, false);
  if (!rest.empty() || !is_behind_marker) add_part_text(std::string(rest));
}

void ConversationBuilder::add_medium(MediaKind kind, const std::string& reference) {
  add_named(resolve(kind, reference));
}

void ConversationBuilder::add_media_part(MediaKind kind, const Json& part) {
  for (const std::string& key : file_keys(kind)) {
    if (part.contains(key) && !part[key].is_null()) return add_named(media_of(kind, part, where()));
  }
  add_next(kind);
}

// A member of a tar that is named is not left for parts without a name.
void ConversationBuilder::add_named(MediaRef medium) {
  Stock& own = stock(medium.kind);
  const auto left = own.media.begin() + static_cast<std::ptrdiff_t>(own.used);
  const auto found = std::find(left, own.media.end(), medium);
  if (!medium.archive.empty() && found != own.media.end()) own.media.erase(found);
  add(std::move(medium));
}

void ConversationBuilder::add_next(MediaKind kind) {
  Stock& own = stock(kind);
  if (own.used < own.media.size()) return add(own.media[own.used++]);
  throw Error(
      {.what = concat("more ", part_type(kind), " parts than entries of '", part_type(kind), "s'"),
       .where = where(),
       .got = concat(own.media.size(), " entries")});
}

void ConversationBuilder::add(MediaRef medium) {
  sample_.messages.back().content.push_back({.type = part_type(medium.kind)});
  sample_.media.push_back(std::move(medium));
}

Sample ConversationBuilder::finish() {
  if (sample_.media.empty() && has_plain_text_) put_media_first();
  for (const Stock& own : stocks_) {
    if (own.used == own.media.size()) continue;
    throw Error({.what = concat(part_type(own.kind), " parts don't fit the '", part_type(own.kind),
                                "s' column"),
                 .where = where(),
                 .got = concat(own.used, " parts"),
                 .wanted = concat(own.media.size())});
  }
  if (!sample_.loss.empty()) sample_.loss.resize(sample_.messages.size());
  return std::move(sample_);
}

// Pictures, then clips, before the first user turn's text.
void ConversationBuilder::put_media_first() {
  for (Message& message : sample_.messages) {
    if (message.role != "user") continue;
    std::vector<ContentPart> parts;
    for (Stock& own : stocks_) {
      parts.insert(parts.end(), own.media.size(), {.type = part_type(own.kind)});
      sample_.media.insert(sample_.media.end(), own.media.begin(), own.media.end());
      own.used = own.media.size();
    }
    // A question of no words is its media alone.
    const bool is_empty = message.content.size() == 1 && message.content[0].text.empty();
    if (is_empty && !parts.empty()) message.content.clear();
    message.content.insert(message.content.begin(), parts.begin(), parts.end());
    return;
  }
}

std::vector<MediaRef> ConversationBuilder::read_column(MediaKind kind) const {
  // What a tar's columns say of pictures is where they came from: its members are the pictures.
  const bool is_picture = kind == MediaKind::kPicture;
  if (is_picture && !columns_.row().members.empty()) return columns_.row().members;
  const std::string name = concat(part_type(kind), "s");
  const Json* column = columns_.find(name);
  if (!column) return {};
  const std::string place = concat(where(), ": ", name);
  if (!column->is_array()) return {media_of(kind, *column, place)};
  std::vector<MediaRef> media;
  for (const Json& entry : *column) media.push_back(media_of(kind, entry, place));
  return media;
}

// A member is named by its whole name, or without its folders.
MediaRef ConversationBuilder::resolve(MediaKind kind, const std::string& reference) const {
  const Row& row = columns_.row();
  if (row.members.empty() || reference.starts_with("data:")) {
    const std::string& folder = columns_.options().image_folder;
    const MediaRoot root{.folder = folder.empty() ? row.folder : std::filesystem::path(folder)};
    try {
      return resolve_medium(reference, root, kind);
    } catch (const Error& error) {
      throw located(error, row.where);
    }
  }
  for (const MediaRef& member : row.members) {
    if (member.name.ends_with("/" + reference)) return member;
  }
  throw Error({.what = "the sample has no such picture", .where = row.where, .got = reference});
}

MediaRef ConversationBuilder::media_of(MediaKind kind, const Json& entry,
                                       const std::string& where) const {
  if (entry.is_string()) return resolve(kind, entry.get<std::string>());
  if (!entry.is_object()) {
    throw Error({.what = "wrong type",
                 .where = where,
                 .got = describe(entry),
                 .wanted = "a path, a data URI, or an object with 'path'"});
  }
  for (const std::string& key : file_keys(kind)) {
    const auto found = entry.find(key);
    if (found == entry.end() || found->is_null()) continue;
    if (!found->is_string()) {
      throw Error({.what = "wrong type",
                   .where = concat(where, ": ", key),
                   .got = describe(*found),
                   .wanted = "string"});
    }
    const bool is_data = key == "base64" || key == "bytes";
    return resolve(kind, (is_data ? "data:image;base64," : "") + found->get<std::string>());
  }
  throw Error({.what = "no 'path'",
               .where = where,
               .got = describe(entry),
               .wanted = "an object with 'path'"});
}

}  // namespace vlm::data
