// Options for reading the rows of a data file.
#pragma once

#include <map>
#include <string>

namespace vlm::data {

// How the rows of a file are read.
struct DataOptions {
  std::string format = "auto";  // one of row_formats()
  // Our name of a column → its name in the file: {"query": "frage", "response": "antwort"}; an
  // empty name leaves the column out.
  std::map<std::string, std::string> field_map = {};
  std::string text_column = "text";            // of a caption
  std::string prompt = "Describe the image.";  // for rows without a question
  std::string image_folder = {};               // where relative paths begin; empty: at the file
};

}  // namespace vlm::data
