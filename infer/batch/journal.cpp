#include "infer/batch/journal.h"

#include <cstddef>
#include <cstring>

#include "infer/batch/row_file.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/io/list_digest.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

constexpr int kVersion = 2;
constexpr std::string_view kBegin = "{\"vlm_journal\":";
constexpr std::uint64_t kLongestHeader = 1 << 26;
constexpr std::int64_t kMostItems = std::int64_t{1} << 32;

std::uint32_t check_of(const RowRecord& record) {
  const std::string_view bytes(reinterpret_cast<const char*>(&record), offsetof(RowRecord, check));
  return static_cast<std::uint32_t>(digest_of(bytes));
}

Error damaged(const fs::path& path, const char* what) {
  return Error({.what = what,
                .where = path.string(),
                .hint = "choose another --output, or --restart to begin anew"});
}

// A file that was made and never written, or of which a power cut left only zeros.
bool is_blank(std::string_view bytes) {
  return bytes.find_first_not_of('\0') == std::string_view::npos;
}

bool begins_as_journal(std::string_view bytes) {
  return bytes.starts_with(kBegin) || (!bytes.empty() && kBegin.starts_with(bytes));
}

JournalHeader parse_header(std::string_view line, const fs::path& path) {
  const OrderedJson json = OrderedJson::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) throw damaged(path, "the journal's first line is damaged");
  if (json.value("vlm_journal", OrderedJson()) != kVersion) {
    throw Error({.what = "journal of another version",
                 .where = path.string(),
                 .got = json.value("vlm_journal", OrderedJson()).dump(),
                 .wanted = concat(kVersion),
                 .hint = "choose another --output, or --restart to begin anew"});
  }
  try {
    JournalHeader header{.items = json.at("items"),
                         .shard_items = json.at("shard_items"),
                         .shard = {json.at("shard").at(0), json.at("shard").at(1)},
                         .options = json.at("options")};
    if (header.items >= 0 && header.items <= kMostItems && header.options.is_object())
      return header;
  } catch (const OrderedJson::exception&) {
  }
  throw damaged(path, "the journal's first line is damaged");
}

}  // namespace

void RowRecord::seal() {
  check = check_of(*this);
}

bool RowRecord::is_whole() const {
  return check == check_of(*this);
}

fs::path journal_path(const fs::path& output) {
  return output.string() + ".journal";
}

std::string to_line(const JournalHeader& header) {
  const OrderedJson json = {{"vlm_journal", kVersion},
                            {"items", header.items},
                            {"shard_items", header.shard_items},
                            {"shard", {header.shard.index, header.shard.count}},
                            {"options", header.options}};
  return dump_text(json) + "\n";
}

bool is_journal(const fs::path& path) {
  const RowFile file(path, RowFile::Open::kRead);
  return file.is_open() && file.read(0, kBegin.size()) == kBegin;
}

std::optional<Journal> read_journal(const fs::path& path) {
  const RowFile file(path, RowFile::Open::kRead);
  if (!file.is_open()) return std::nullopt;
  RowReader reader(file);
  std::string_view start = reader.at(0, kBegin.size());
  if (!begins_as_journal(start)) {
    if (is_blank(start) && is_blank(reader.at(0, kLongestHeader))) return std::nullopt;
    throw Error({.what = "not a journal, but its name is one of this output",
                 .where = path.string(),
                 .hint = "choose another --output"});
  }
  start = reader.at(0, kLongestHeader);
  const auto line_end = start.find('\n');
  if (line_end == std::string_view::npos) return std::nullopt;
  Journal journal;
  journal.header = parse_header(start.substr(0, line_end), path);
  journal.size = line_end + 1;
  bool is_unbroken = true;
  std::uint64_t end = 0;
  for (std::uint64_t at = journal.size;; at += sizeof(RowRecord)) {
    const std::string_view bytes = reader.at(at, sizeof(RowRecord));
    if (bytes.size() < sizeof(RowRecord)) return journal;
    RowRecord record;
    std::memcpy(&record, bytes.data(), sizeof record);
    is_unbroken = is_unbroken && record.is_whole() && record.end >= end;
    if (!record.is_whole()) continue;
    journal.records.push_back(record);
    if (!is_unbroken) continue;
    end = record.end;
    journal.unbroken = journal.records.size();
    journal.size = at + sizeof record;
  }
}

}  // namespace vlm::infer
