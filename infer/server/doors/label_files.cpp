#include "infer/server/doors/label_files.h"

#include "data/media/media_ref.h"
#include "infer/server/api/api_error.h"
#include "vlm/core/concat.h"
#include "vlm/io/hub/http.h"

namespace vlm::infer {
namespace {

FetchOptions instance_only(const std::string& url, const std::string& token) {
  FetchOptions options;
  try {
    options.hosts = {url_origin(url)};
  } catch (const Error&) {
    throw Error({.what = "not the address of a Label Studio instance",
                 .where = "--label-studio-url",
                 .got = printable(url),
                 .wanted = "http://name:port or https://name"});
  }
  if (!token.empty()) options.headers = {concat("Authorization: Token ", token)};
  return options;
}

}  // namespace

LabelFiles::LabelFiles(const std::string& url, const std::string& token)
    : base_(url), fetcher_(instance_only(url, token)) {
  while (base_.ends_with('/')) base_.pop_back();
}

std::string LabelFiles::read(const std::string& path, const std::string& param) const {
  try {
    return concat("data:;base64,", data::encode_base64(fetcher_.fetch(base_ + path)));
  } catch (const FetchError& error) {
    ErrorParts parts = error.parts();
    const bool is_local = error.kind() == FetchError::Kind::kNotAllowed;
    if (is_local) {
      parts.hint =
          "an instance in this network is named by its address: --label-studio-url "
          "http://192.0.2.1:8080";
    }
    parts.what = concat("the instance's file can't be had: ", parts.what);
    throw ApiError({.code = is_local ? "media_not_allowed" : "media_fetch_failed", .param = param},
                   std::move(parts));
  }
}

}  // namespace vlm::infer
