#include "infer/server/page/page_reply.h"

#include <algorithm>
#include <map>

#include "infer/server/page/page_files.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

const PageFile* find_page_file(const std::string& path) {
  const std::string name = path == "/" ? "index.html" : path.substr(path.empty() ? 0 : 1);
  const auto& files = page_files();
  const auto found = std::find_if(files.begin(), files.end(),
                                  [&](const PageFile& one) { return one.name == name; });
  return found == files.end() ? nullptr : &*found;
}

}  // namespace

bool is_page_path(const std::string& path) {
  return find_page_file(path) != nullptr;
}

WebReply page_reply(const WebRequest& request, const std::string& path) {
  static const std::map<std::string_view, const char*> kTypes = {
      {"html", "text/html; charset=utf-8"},
      {"css", "text/css; charset=utf-8"},
      {"js", "text/javascript; charset=utf-8"},
      {"svg", "image/svg+xml"}};
  const PageFile& file = *find_page_file(path);
  const std::string tag = concat("\"", file.digest, "\"");
  const bool is_known = request.header("if-none-match") == tag;
  return {.status = is_known ? 304 : 200,
          .body = is_known ? "" : std::string(file.content),
          .content_type = kTypes.at(file.name.substr(file.name.rfind('.') + 1)),
          .headers = {{"ETag", tag},
                      {"Cache-Control", "no-cache"},
                      {"Referrer-Policy", "no-referrer"},
                      {"Content-Security-Policy",
                       "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' "
                       "blob: data:; media-src blob:; connect-src 'self'; base-uri 'none'; "
                       "form-action 'none'; frame-ancestors 'none'"}}};
}

}  // namespace vlm::infer
