// The address of a picture or clip in a request → its bytes, or a file that may be read.
//
//   data:…;base64,…   base64 alone   file:// below the allowed folder   http(s) of allowed hosts
//
// The declared type of a data URI says nothing: the content does. What is fetched comes now, so
// call it where waiting is no harm. Errors don't tell whether a file outside the folder exists.
#pragma once

#include <string>

#include "infer/server/api/request.h"

namespace vlm::infer {

// Throws ApiError naming `param`.
data::MediaRef read_media_url(const std::string& url, data::MediaKind kind,
                              const std::string& param, const ApiLimits& limits);

// Whether it begins with http:// or https://.
bool is_network_url(const std::string& url);

}  // namespace vlm::infer
