// Bytes → a data file of one of the kinds → its rows → samples of every format: Errors, or rows
// that are the same when they are read again.
//
// The first byte says which kind is tried.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "data/conversations/row_format.h"
#include "data/formats/row_source.h"
#include "vlm/core/error.h"

namespace {

using namespace vlm::data;

std::unique_ptr<RowSource> open(char kind, const std::string& path) {
  switch (kind % 5) {
    case 0:
      return open_jsonl_rows(path);
    case 1:
      return open_json_rows(path);
    case 2:
      return open_csv_rows(path);
    case 3:
      return open_tar_rows(path);
    default:
      return open_rows(path);
  }
}

void read_row(const RowSource& rows, std::int64_t index) {
  const Row row = rows.at(index);
  if (rows.at(index).columns != row.columns) std::abort();
  for (const std::string& format : row_formats()) {
    try {
      const Sample sample = parse_row(row, {.format = format});
      std::size_t places = 0;
      for (const auto& message : sample.messages) {
        for (const auto& part : message.content) places += part.type == "text" ? 0 : 1;
      }
      if (places != sample.media.size()) std::abort();
      if (!sample.loss.empty() && sample.loss.size() != sample.messages.size()) std::abort();
    } catch (const vlm::Error&) {
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  static const std::string path = "/tmp/rows_fuzz_" + std::to_string(::getpid());
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(data) + 1, static_cast<std::streamsize>(size - 1));
  try {
    const auto rows = open(static_cast<char>(data[0] & 0x7f), path);
    for (std::int64_t i = 0; i < rows->size(); ++i) {
      try {
        read_row(*rows, i);
      } catch (const vlm::Error&) {
      }
    }
  } catch (const vlm::Error&) {
  }
  return 0;
}
