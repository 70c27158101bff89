#include "infer/items/messages.h"

#include <algorithm>

#include "data/conversations/messages.h"
#include "vlm/core/error.h"

namespace vlm::infer {

ItemConversation parse_messages(const OrderedJson& messages, std::vector<MediaRef> media,
                                const MediaRoot& root) {
  // A tar's members are what its messages name.
  data::MediaPlaces places{.root = root};
  std::copy_if(media.begin(), media.end(), std::back_inserter(places.members),
               [](const MediaRef& medium) { return !medium.archive.empty(); });
  data::ConversationBuilder builder("", std::move(places), std::move(media));
  data::add_messages(builder, Json(messages), "messages");
  data::Sample sample = builder.finish();
  if (sample.messages.back().role != "user") {
    throw Error({.what = "the conversation doesn't end with a user's turn",
                 .got = "a last turn of the " + sample.messages.back().role + "'s"});
  }
  return {std::move(sample.messages), std::move(sample.media)};
}

}  // namespace vlm::infer
