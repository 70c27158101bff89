#include "infer/batch/journal.h"

#include <cstring>
#include <fstream>

#include "infer/items/digest.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

constexpr int kVersion = 1;

std::uint32_t check_of(const RowRecord& record) {
  Digest digest;
  digest.add(record.ordinal);
  digest.add(record.end);
  digest.add(record.digest);
  digest.add(std::uint64_t{record.flags});
  return static_cast<std::uint32_t>(digest.value() >> 32);
}

std::optional<JournalHeader> parse_header(const std::string& line, const fs::path& path) {
  const OrderedJson json = OrderedJson::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("vlm_journal")) return std::nullopt;
  if (json["vlm_journal"] != kVersion) {
    throw Error({.what = "journal of another version",
                 .where = path.string(),
                 .got = json["vlm_journal"].dump(),
                 .wanted = concat(kVersion),
                 .hint = "choose another --output"});
  }
  return JournalHeader{.items = json.at("items"),
                       .shard_items = json.at("shard_items"),
                       .shard = {json.at("shard").at(0), json.at("shard").at(1)},
                       .options = json.at("options")};
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
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

std::optional<Journal> read_journal(const fs::path& path) {
  if (!fs::exists(path)) return std::nullopt;
  const std::string bytes = load_text(path, std::size_t{1} << 36);
  const auto line_end = bytes.find('\n');
  if (line_end == std::string::npos) return std::nullopt;
  auto header = parse_header(bytes.substr(0, line_end), path);
  if (!header) return std::nullopt;
  Journal journal{.header = std::move(*header), .size = line_end + 1};
  std::uint64_t end = 0;
  while (journal.size + sizeof(RowRecord) <= bytes.size()) {
    RowRecord record;
    std::memcpy(&record, bytes.data() + journal.size, sizeof record);
    if (!record.is_whole() || record.end < end) break;
    end = record.end;
    journal.records.push_back(record);
    journal.size += sizeof record;
  }
  return journal;
}

void drop_lost_rows(Journal& journal, const fs::path& output) {
  auto& records = journal.records;
  const std::uint64_t size = fs::exists(output) ? fs::file_size(output) : 0;
  std::size_t kept = 0, synced = 0;  // records that are believed; those known to be on the disk
  while (kept < records.size() && records[kept].end <= size) {
    ++kept;
    if ((records[kept - 1].flags & RowRecord::kSynced) != 0) synced = kept;
  }
  std::ifstream in(output, std::ios::binary);
  std::uint64_t begin = synced > 0 ? records[synced - 1].end : 0;
  in.seekg(static_cast<std::streamoff>(begin));
  std::string row;
  for (std::size_t i = synced; i < kept; ++i) {
    row.resize(records[i].end - begin);
    if (!in.read(row.data(), static_cast<std::streamsize>(row.size())) ||
        digest_of(row) != records[i].digest) {
      kept = i;
      break;
    }
    begin = records[i].end;
  }
  journal.size -= (records.size() - kept) * sizeof(RowRecord);
  records.resize(kept);
}

}  // namespace vlm::infer
