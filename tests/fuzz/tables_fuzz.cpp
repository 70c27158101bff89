// Bytes → a Parquet or Arrow file → its rows and their outlines: Errors, or rows that are the same
// when they are read again.
//
// The first byte says which kind it is.
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "data/formats/row_source.h"
#include "vlm/core/error.h"
#include "vlm/core/plugin.h"

// Without vlm_arrow.so there would only be errors: that ends the fuzzer at once.
extern "C" int LLVMFuzzerInitialize(int*, char***) {
  ::setenv("VLM_PLUGIN_DIR", VLM_PLUGIN_FOLDER, /*overwrite=*/0);
  vlm::open_plugin("vlm_arrow", "vlm_arrow_library", "Parquet and Arrow files");
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::int64_t kMostRows = 100;  // a table may say that it has billions
  if (size == 0) return 0;
  static const std::string path = "/tmp/tables_fuzz_" + std::to_string(::getpid());
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(data) + 1, static_cast<std::streamsize>(size - 1));
  try {
    const bool is_parquet = data[0] % 2 == 0;
    const auto rows =
        is_parquet ? vlm::data::open_parquet_rows(path) : vlm::data::open_arrow_rows(path);
    for (std::int64_t i = 0; i < std::min(rows->size(), kMostRows); ++i) {
      try {
        rows->outline(i);
        if (rows->at(i).columns != rows->at(i).columns) std::abort();
      } catch (const vlm::Error&) {
      }
    }
  } catch (const vlm::Error&) {
  }
  return 0;
}
