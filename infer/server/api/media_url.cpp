#include "infer/server/api/media_url.h"

#include <sys/stat.h>

#include <filesystem>

#include "infer/server/api/api_error.h"
#include "infer/server/http/percent.h"
#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;
using data::MediaKind;
using data::MediaRef;

constexpr std::size_t kLeastBareBase64 = 64;  // shorter texts are no picture

ApiError not_allowed(const std::string& param, const std::string& what, const std::string& hint) {
  return ApiError({.code = "media_not_allowed", .param = param}, {.what = what, .hint = hint});
}

const char* name_of(MediaKind kind) {
  return kind == MediaKind::kVideo ? "video" : "image";
}

MediaRef decode(std::string_view base64, MediaKind kind, const std::string& param,
                const ApiLimits& limits) {
  std::string bytes;
  try {
    bytes = data::decode_base64(base64);
  } catch (const Error& error) {
    throw ApiError({.code = concat("invalid_", name_of(kind)), .param = param}, error.parts());
  }
  const bool is_large =
      kind == MediaKind::kVideo && static_cast<std::int64_t>(bytes.size()) > limits.max_clip_bytes;
  if (is_large || bytes.empty()) {
    throw ApiError({.code = concat("invalid_", name_of(kind)), .param = param},
                   {.what = is_large ? "the clip is too large" : "the data is empty",
                    .got = concat(bytes.size(), " bytes"),
                    .wanted = is_large ? concat("at most ", limits.max_clip_bytes) : ""});
  }
  return {
      .kind = kind, .name = param, .bytes = std::make_shared<const std::string>(std::move(bytes))};
}

MediaRef read_data_uri(const std::string& url, MediaKind kind, const std::string& param,
                       const ApiLimits& limits) {
  const auto comma = url.find(',');
  const std::string head = ascii_lower(url.substr(0, std::min<std::size_t>(comma, 256)));
  if (comma == std::string::npos || !head.ends_with(";base64")) {
    throw ApiError({.code = concat("invalid_", name_of(kind)), .param = param},
                   {.what = "a data URI without base64 data",
                    .got = url.substr(0, 60),
                    .wanted = concat("data:", name_of(kind), "/…;base64,…")});
  }
  const std::string_view data = std::string_view(url).substr(comma + 1);
  return decode(data, kind, param, limits);
}

MediaRef fetch_medium(const std::string& url, MediaKind kind, const std::string& param,
                      const ApiLimits& limits) {
  if (!limits.fetcher) {
    throw not_allowed(param, concat(name_of(kind), "s are not fetched from the network"),
                      "send the file itself as a data URI");
  }
  try {
    return {.kind = kind,
            .name = param,
            .bytes = std::make_shared<const std::string>(limits.fetcher->fetch(url))};
  } catch (const FetchError& error) {
    ApiFault fault{.code = concat("invalid_", name_of(kind)), .param = param};
    if (error.kind() == FetchError::Kind::kNotAllowed) fault.code = "media_not_allowed";
    if (error.kind() == FetchError::Kind::kMayPass) {
      fault.status = 502;
      fault.code = "media_fetch_failed";
    }
    throw ApiError(std::move(fault), error.parts());
  }
}

// Regular files that are really below the folder, links followed. One answer for all others.
MediaRef find_file(const std::string& url, MediaKind kind, const std::string& param,
                   const ApiLimits& limits) {
  if (limits.media_folder.empty()) {
    throw not_allowed(param, "file:// addresses are switched off",
                      "the server's --allowed-local-media-path names a folder for them");
  }
  const auto path = decode_percents(url.substr(std::string_view("file://").size()));
  const auto refuse = [&] {
    return not_allowed(param, "no file that may be read",
                       "it must be a regular file below the server's media folder");
  };
  if (!path || path->find('\0') != std::string::npos) throw refuse();
  std::error_code code;
  const fs::path root = fs::canonical(limits.media_folder, code);
  const fs::path named = path->starts_with('/') ? fs::path(*path) : root / *path;
  const fs::path real = fs::canonical(named, code);
  if (code) throw refuse();
  const fs::path relative = real.lexically_relative(root);
  struct stat status = {};
  const bool is_fine = !relative.empty() && *relative.begin() != ".." &&
                       ::stat(real.c_str(), &status) == 0 && S_ISREG(status.st_mode);
  if (!is_fine) throw refuse();
  return {.kind = kind, .name = real.string()};
}

bool looks_like_base64(const std::string& url) {
  return url.size() >= kLeastBareBase64 && url.find("://") == std::string::npos &&
         std::all_of(url.begin(), url.end(), [](char c) {
           return is_letter(c) || is_digit(c) ||
                  std::string_view("+/-_=\r\n ").find(c) != std::string_view::npos;
         });
}

}  // namespace

bool is_network_url(const std::string& url) {
  const std::string scheme = ascii_lower(url.substr(0, 8));
  return scheme.starts_with("http://") || scheme.starts_with("https://");
}

MediaRef read_media_url(const std::string& url, MediaKind kind, const std::string& param,
                        const ApiLimits& limits) {
  const std::string scheme = ascii_lower(url.substr(0, 8));
  if (scheme.starts_with("data:")) return read_data_uri(url, kind, param, limits);
  if (is_network_url(url)) return fetch_medium(url, kind, param, limits);
  if (scheme.starts_with("file://")) return find_file(url, kind, param, limits);
  if (looks_like_base64(url)) return decode(url, kind, param, limits);
  throw ApiError({.code = concat("invalid_", name_of(kind)), .param = param},
                 {.what = "an address of an unknown kind",
                  .got = concat("'", url.substr(0, 60), "'"),
                  .wanted = concat("data:", name_of(kind), "/…;base64,…")});
}

}  // namespace vlm::infer
