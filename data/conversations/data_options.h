// What a config says of a data file's rows, beside the file itself.
#pragma once

#include <map>
#include <string>

namespace vlm::data {

// How the rows of a file are read.
struct DataOptions {
  std::string format = "auto";  // one of row_formats()
  // Our name of a column → the file's: {"query": "frage", "response": "antwort"}; empty: none, it
  // is left out.
  std::map<std::string, std::string> field_map = {};
  std::string text_column = "text";            // of a caption
  std::string prompt = "Describe the image.";  // where a row has no question
  std::string image_folder = {};               // where relative paths begin; empty: at the file
};

}  // namespace vlm::data
