#include "infer/batch/fingerprint.h"

#include <algorithm>
#include <deque>
#include <set>

#include "infer/batch/row_file.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/io/list_digest.h"
#include "vlm/io/parallel.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kPiece = 8 << 20;  // that a thread reads

bool is_weights(const fs::path& path) {
  return path.extension() == ".safetensors";
}

bool is_description(const fs::path& path) {
  const std::string suffix = path.extension(), name = path.filename();
  return suffix == ".json" || suffix == ".jinja" || suffix == ".model" || name == "merges.txt" ||
         name == "vocab.txt";
}

struct Piece {
  const RowFile* file;
  std::uint64_t begin;
};

// Of every byte of the files, on all threads.
std::vector<std::uint64_t> digest_pieces(const std::vector<Piece>& pieces) {
  std::vector<std::uint64_t> digests(pieces.size());
  run_pieces(static_cast<std::int64_t>(pieces.size()), [&](std::int64_t i) {
    const auto& [file, begin] = pieces[static_cast<std::size_t>(i)];
    RowReader reader(*file);
    Xxh3 hash;
    for (std::uint64_t at = begin; at < begin + kPiece; at += 1 << 20) {
      const std::string_view bytes = reader.at(at, 1 << 20);
      hash.add(bytes.data(), bytes.size());
    }
    digests[static_cast<std::size_t>(i)] = hash.value();
  });
  return digests;
}

// What a value is compared by.
const OrderedJson& core_of(const OrderedJson& value) {
  return value.is_object() && value.contains("digest") ? value["digest"] : value;
}

std::string text_of(const OrderedJson& value) {
  if (value.is_null()) return "nothing";
  if (value.is_object() && value.contains("digest")) {
    const auto part = [&](const char* key) {
      const OrderedJson text = value.value(key, OrderedJson());
      return text.is_string() ? text.get<std::string>() : dump_text(text);
    };
    return concat(part("name"), " (digest ", part("digest"), ")");
  }
  if (value.is_string()) return concat("'", value.get<std::string>(), "'");
  return dump_text(value);
}

}  // namespace

OrderedJson identify_folder(const std::string& name, const fs::path& folder) {
  if (!fs::is_directory(folder)) {
    throw Error({.what = "no such folder", .where = folder.string()});
  }
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  ListDigest digest;
  std::deque<RowFile> opened;
  std::vector<Piece> pieces;
  for (const fs::path& path : files) {
    if (!is_weights(path) && !is_description(path)) continue;
    const RowFile& file = opened.emplace_back(path, RowFile::Open::kRead);
    digest.add(path.filename().string());
    digest.add(file.size());
    for (std::uint64_t begin = 0; begin < file.size(); begin += kPiece) {
      pieces.push_back({&file, begin});
    }
  }
  for (const std::uint64_t piece : digest_pieces(pieces)) digest.add(piece);
  return {{"name", name}, {"digest", digest.hex()}};
}

OptionChange compare(const OrderedJson& before, const OrderedJson& now) {
  static const std::set<std::string> kFatal = {"inputs", "--output-format", "--shard", "columns"};
  OptionChange change;
  std::vector<std::string> names;
  for (const auto& [name, value] : now.items()) names.push_back(name);
  for (const auto& [name, value] : before.items()) {
    if (!now.contains(name)) names.push_back(name);
  }
  const OrderedJson none;
  for (const std::string& name : names) {
    const OrderedJson& old_value = before.contains(name) ? before[name] : none;
    const OrderedJson& new_value = now.contains(name) ? now[name] : none;
    if (core_of(old_value) == core_of(new_value)) continue;
    if (change.names.empty()) {
      change.got = text_of(new_value);
      change.wanted = text_of(old_value);
    }
    change.names.push_back(name);
    change.is_fatal = change.is_fatal || kFatal.count(name) > 0;
  }
  return change;
}

}  // namespace vlm::infer
