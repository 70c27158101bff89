#include "train/report/tensorboard_log.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"

namespace vlm::train {
namespace {

// Wire types of protocol buffers.
enum Wire : std::uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void add_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

template <typename T>
void add_little_endian(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);  // the machines that LibTorch runs on are little-endian
  out.append(bytes, sizeof bytes);
}

void add_key(std::string& out, std::uint64_t field, Wire wire) {
  add_varint(out, field << 3 | wire);
}

std::string bytes_field(std::uint64_t field, std::string_view bytes) {
  std::string out;
  add_key(out, field, kBytes);
  add_varint(out, bytes.size());
  return out.append(bytes);
}

std::string varint_field(std::uint64_t field, std::uint64_t value) {
  std::string out;
  add_key(out, field, kVarint);
  add_varint(out, value);
  return out;
}

// Summary.Value: tag = 1, simple_value = 2.
std::string scalar_value(const std::string& tag, float value) {
  std::string out = bytes_field(1, tag);
  add_key(out, 2, kFixed32);
  add_little_endian(out, value);
  return bytes_field(1, out);  // Summary.value = 1
}

std::uint32_t masked_crc(std::string_view bytes) {
  const std::uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
}

double seconds_since_epoch() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string file_name() {
  char host[256] = {};
  if (::gethostname(host, sizeof host - 1) != 0) std::strcpy(host, "host");
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  // Micro-seconds keep the parts of a run in their order by name.
  return concat("events.out.tfevents.",
                std::chrono::duration_cast<std::chrono::microseconds>(now).count(), ".", host, ".",
                ::getpid(), ".0");
}

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table = {};
  for (std::uint32_t i = 0; i < table.size(); ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0x82f63b78U : 0);
    table[i] = value;
  }
  return table;
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static constexpr auto table = make_crc_table();
  std::uint32_t crc = 0xffffffffU;
  for (const char byte : bytes) {
    crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(byte)) & 0xff];
  }
  return ~crc;
}

TensorboardLog::TensorboardLog(const std::filesystem::path& folder, std::int64_t first_step) {
  make_folders(folder);
  const bool has_past = !std::filesystem::is_empty(folder);
  path_ = folder / file_name();
  out_.open(path_, std::ios::binary);
  write_event(0, bytes_field(3, "brain.Event:2"));  // Event.file_version
  if (has_past || first_step > 0) {
    // Event.session_log = 7 {status = START}: what is there from this step on is void.
    write_event(first_step > 0 ? first_step + 1 : 0, bytes_field(7, varint_field(1, 1)));
  }
}

void TensorboardLog::add_row(const OrderedJson& row) {
  std::string values;
  for (const auto& [key, value] : row.items()) {
    if (key == "step" || !value.is_number()) continue;
    const bool is_evaluation = key.starts_with("eval_");
    const std::string tag = is_evaluation ? "eval/" + key.substr(5) : "train/" + key;
    values += scalar_value(tag, value.get<float>());
  }
  write_event(row.at("step"), bytes_field(5, values));  // Event.summary
}

// Event: wall_time = 1, step = 2, and the field given.
void TensorboardLog::write_event(std::int64_t step, std::string_view field) {
  std::string event;
  add_key(event, 1, kFixed64);
  add_little_endian(event, seconds_since_epoch());
  event += varint_field(2, static_cast<std::uint64_t>(step));
  event += field;
  std::string record;
  add_little_endian(record, static_cast<std::uint64_t>(event.size()));
  add_little_endian(record, masked_crc(std::string_view(record.data(), 8)));
  record += event;
  add_little_endian(record, masked_crc(event));
  out_.write(record.data(), static_cast<std::streamsize>(record.size()));
  out_.flush();
  if (!out_) {
    throw Error(
        {.what = "can't write the file", .where = path_.string(), .got = std::strerror(errno)});
  }
}

}  // namespace vlm::train
