// The files of the web page, as replies.
#pragma once

#include <string>

#include "infer/server/http/http_message.h"

namespace vlm::infer {

// Whether a path is "/" or one of the page's files.
bool is_page_path(const std::string& path);

// The file behind such a path, or 304 for a browser that has it already. Scripts and styles are the
// page's own files alone, and it may talk to this server alone: what a model writes, or a picture
// makes it write, can load nothing.
WebReply page_reply(const WebRequest& request, const std::string& path);

}  // namespace vlm::infer
