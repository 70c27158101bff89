// Pictures and clips that a Label Studio instance keeps itself, fetched with its token.
//
//   "/data/upload/1/a.png" ─► LabelFiles::read ─► "data:;base64,…"
//
// By the rules for every address that is fetched (media_fetcher.h). The token goes to the instance
// alone, and what clients ask in chats can't reach it here.
#pragma once

#include <string>

#include "infer/server/fetch/media_fetcher.h"

namespace vlm::infer {

class LabelFiles {
 public:
  // `url` is the instance's address; an empty token is none. Throws Error for what is no address.
  LabelFiles(const std::string& url, const std::string& token);

  // Any thread; waits for the instance. Throws ApiError naming `param`.
  std::string read(const std::string& path, const std::string& param) const;

 private:
  std::string base_;
  MediaFetcher fetcher_;
};

}  // namespace vlm::infer
