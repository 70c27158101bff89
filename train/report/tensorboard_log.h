// Scalars as TensorBoard event files: output_dir/runs/events.out.tfevents.*
//
//   a row of metrics.jsonl ─► an Event with one value a number ─► TFRecord framing ─► file
//
// An event file is a list of TFRecords (length, masked CRC32C of it, data, masked CRC32C of that)
// of the protocol buffer tensorflow.Event. Each part of a resumed run writes another file. It
// begins with a START record, which makes TensorBoard drop what earlier files have for later steps.
// Reference: tensorboard 2.21, event.proto and record_writer.py.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "vlm/core/json.h"

namespace vlm::train {

class TensorboardLog {
 public:
  // Makes the folder and opens a new file in it. `first_step` is the step that the run resumes
  // from; 0: the run is new, and what other files in the folder hold of it is void.
  TensorboardLog(const std::filesystem::path& folder, std::int64_t first_step);

  // Every number of the row but "step"; "eval_x" becomes "eval/x", others "train/…", as
  // transformers names them. Throws Error when it can't be written.
  void add_row(const OrderedJson& row);

  const std::filesystem::path& path() const { return path_; }

 private:
  void write_event(std::int64_t step, std::string_view field);

  std::filesystem::path path_;
  std::ofstream out_;
};

// CRC-32C (Castagnoli), which TFRecords and iSCSI use.
std::uint32_t crc32c(std::string_view bytes);

}  // namespace vlm::train
