// What a batch run asks: items, and the groups of them that show the same media.
//
//   EntrySource (files) × questions ─► ItemList ─► ItemGroup ─► MediaQueue ─► answers ─► rows
//
// Items are numbered 0, 1, 2, … through the whole input; that ordinal is what the journal, shards
// and gather know an item by. Media (pictures and videos) are only named here; load_picture opens a
// picture, infer/media a video.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "vlm/core/json.h"
#include "vlm/image/image.h"
#include "vlm/text/chat_template.h"

namespace vlm::infer {

enum class MediaKind { kPicture, kVideo };

// A file, or a picture that is a part of a tar archive or already in memory.
struct MediaRef {
  MediaKind kind = MediaKind::kPicture;
  std::string name;                               // of the file; errors call the medium by it
  std::string archive;                            // the tar that holds it; empty: none
  std::uint64_t offset = 0, size = 0;             // of its bytes in the archive
  std::shared_ptr<const std::string> bytes = {};  // of a data URI

  bool is_file() const { return archive.empty() && !bytes; }
};

// The file as it is. Throws Error naming it. Thread-safe.
std::string read_bytes(const MediaRef& medium);

// Reads and decodes. Throws Error naming the picture. Thread-safe.
Image load_picture(const MediaRef& picture);

struct BatchItem {
  std::int64_t ordinal = 0;
  std::string id;                               // of the row; no two items share one
  OrderedJson columns = OrderedJson::object();  // shown in the row behind the id
  std::vector<Message> messages = {};           // what the model is asked
  OrderedJson overrides = {};                   // generation options of this item alone, or null
  std::string text_file = {};                   // where a .txt answer lies; empty: no place for one
  std::string error = {};                       // why it can't be asked; empty: it can
};

// Neighbours that show the same media: read, processed and encoded once for all of them.
struct ItemGroup {
  std::vector<MediaRef> media;  // of the image and video parts, in their order
  std::vector<BatchItem> items;
};

// One user turn: the media first, then the text; a system message in front when there is one.
std::vector<Message> make_conversation(const std::string& prompt,
                                       const std::vector<MediaRef>& media,
                                       const std::string& system);

// The content part that stands for a medium: "image" or "video".
const char* part_type(MediaKind kind);

}  // namespace vlm::infer
