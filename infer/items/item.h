// What a batch run asks. An item is one question about one set of media; a group is the items that
// follow each other and show the same media.
//
//   EntrySource (files) × questions ─► ItemList ─► ItemGroup ─► MediaQueue ─► answers ─► rows
//
// Items are numbered 0, 1, 2, … over the whole input. Journal, shards and gather use this ordinal
// to name an item. Media (pictures and videos) are references here and not opened:
// data/media/media_ref opens a picture, infer/media a video.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/media/media_ref.h"
#include "vlm/core/json.h"
#include "vlm/text/chat_template.h"

namespace vlm::infer {

using data::MediaKind;
using data::MediaRef;

struct BatchItem {
  std::int64_t ordinal = 0;
  std::string id;                               // of the row, UTF-8; no two items share one
  OrderedJson columns = OrderedJson::object();  // shown in the row behind the id
  std::vector<Message> messages = {};           // what the model is asked
  OrderedJson overrides = {};                   // generation options of this item alone, or null
  std::string text_file = {};                   // path of its .txt answer; empty: none is possible
  bool shares_text_file = false;                // another item has the same text_file
  std::string error = {};                       // why it can't be asked; empty: it can
};

// Items that follow each other and show the same media, which are read and encoded once.
struct ItemGroup {
  std::vector<MediaRef> media;  // of the image and video parts, in their order
  std::vector<BatchItem> items;
};

// One user turn: the media first, then the text; a system message in front when there is one.
std::vector<Message> make_conversation(const std::string& prompt,
                                       const std::vector<MediaRef>& media,
                                       const std::string& system);

}  // namespace vlm::infer
