// The files of the web page, which are part of the program (cmake/embed_page.cmake).
#pragma once

#include <string_view>
#include <vector>

namespace vlm::infer {

struct PageFile {
  std::string_view name;  // "page.js"
  std::string_view content;
  std::string_view digest;  // of the content, for browsers that have it already
};

const std::vector<PageFile>& page_files();

}  // namespace vlm::infer
