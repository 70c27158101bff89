// Catch2 2.x (Debian 12) and 3.x (Ubuntu 24.04) behind one include, with helpers that every test
// uses.
#pragma once

#if __has_include(<c10/util/Logging.h>)
#include <c10/util/Logging.h>  // has a CHECK too: the one that is defined last stays
#endif

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
using Catch::Matchers::ContainsSubstring;
inline auto Contains(const std::string& text) {
  return ContainsSubstring(text);
}
#else
#include <catch2/catch.hpp>
using Catch::Matchers::Contains;
#endif

#include <filesystem>
#include <string>

// The committed checkpoint that most tests run.
inline const std::string kTinyModel = "smolvlm_tiny";

// Absolute path of a committed fixture, e.g. fixture("smolvlm_tiny/config.json").
inline std::filesystem::path fixture(const std::string& relative) {
  return std::filesystem::path(VLM_SOURCE_DIR) / "tests/fixtures" / relative;
}
