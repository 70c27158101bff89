// Sessions with the committed checkpoints, and the rows that runs leave.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "infer/session.h"
#include "tests/support/catch.h"
#include "vlm/core/json.h"

namespace vlm::infer {

inline Session open_fixture(const std::string& model) {
  return open_session({.model = fixture(model).string()}, {.device = "cpu", .dtype = "float32"});
}

inline std::vector<OrderedJson> read_rows(const std::filesystem::path& output) {
  std::vector<OrderedJson> rows;
  std::istringstream in(load_text(output));
  for (std::string line; std::getline(in, line);) rows.push_back(OrderedJson::parse(line));
  return rows;
}

}  // namespace vlm::infer
