#include "infer/batch/row_log.h"

#include <algorithm>
#include <fstream>

#include "infer/batch/fingerprint.h"
#include "infer/items/digest.h"
#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kSyncInterval{5};

std::string_view bytes_of(const RowRecord& record) {
  return {reinterpret_cast<const char*>(&record), sizeof record};
}

std::uint64_t size_of(const fs::path& path) {
  std::error_code code;
  const auto size = fs::file_size(path, code);
  return code ? 0 : size;
}

// A row that is kept when both files are written anew.
struct KeptRow {
  RowRecord record;
  std::uint64_t begin = 0;
};

// Collects small writes; a rewrite has hundreds of thousands.
class Buffer {
 public:
  explicit Buffer(RowFile& file) : file_(file) {}
  void add(std::string_view bytes) {
    bytes_ += bytes;
    if (bytes_.size() > (1 << 20)) flush();
  }
  void flush() {
    file_.write(bytes_);
    bytes_.clear();
  }

 private:
  RowFile& file_;
  std::string bytes_;
};

}  // namespace

RowLog::RowLog(RowLogOptions options)
    : options_(std::move(options)), journal_path_(journal_path(options_.output)) {
  if (fs::is_directory(options_.output)) {
    throw Error({.what = "is a folder, not a file", .where = options_.output.string()});
  }
  journal_ = open_locked(journal_path_);
  complete_rewrite();
  output_ = RowFile(options_.output);
  done_.assign(static_cast<std::size_t>(options_.header.items), false);
  auto journal = options_.restart ? std::nullopt : read_journal(journal_path_);
  if (journal) {
    go_on(std::move(*journal));
  } else {
    if (!options_.restart && size_of(options_.output) > 0) {
      throw Error({.what = "the output holds rows, and no journal tells of which run",
                   .where = options_.output.string(),
                   .hint = "choose another --output, or --restart to delete them"});
    }
    begin();
  }
}

void RowLog::begin() {
  output_.truncate(0);  // first: a journal whose rows are gone is harmless, the reverse is refused
  journal_.truncate(0);
  journal_.write(to_line(options_.header));
  if (!options_.preamble.empty()) {
    write({{.text = options_.preamble}}, RowRecord::kPreamble);
  }
  sync();
  sync_folder(options_.output.parent_path());
}

void RowLog::go_on(Journal journal) {
  compare_options(journal.header);
  drop_lost_rows(journal, options_.output);
  for (const RowRecord& record : journal.records) count(record);
  end_ = journal.records.empty() ? 0 : journal.records.back().end;
  output_.truncate(end_);
  journal_.truncate(journal.size);
  const bool has_preamble =
      !journal.records.empty() && (journal.records[0].flags & RowRecord::kPreamble) != 0;
  if (!options_.preamble.empty() && !has_preamble) {
    if (end_ > 0) {
      throw Error({.what = "the journal doesn't fit the output",
                   .where = journal_path_.string(),
                   .hint = "choose another --output, or --restart"});
    }
    write({{.text = options_.preamble}}, RowRecord::kPreamble);
  }
  const bool is_changed = to_line(journal.header) != to_line(options_.header);
  const bool drops_errors = options_.retry_errors && errors_ > 0;
  if (!is_changed && !drops_errors) return;
  journal.records.clear();
  rewrite(
      [&](const RowRecord& record) {
        return !drops_errors || (record.flags & RowRecord::kError) == 0;
      },
      /*sorted=*/false);
}

void RowLog::compare_options(const JournalHeader& old) {
  const OptionChange change = compare(old.options, options_.header.options);
  if (change.names.empty()) return;
  if (change.is_fatal || !options_.allow_changes) {
    throw Error(
        {.what =
             concat("the rows already there were made with other options: ", join(change.names)),
         .where = options_.output.string(),
         .got = change.got,
         .wanted = change.wanted,
         .hint = concat(change.is_fatal ? "" : "--allow-changes goes on with the new ones, ",
                        "--restart begins anew, or choose another --output")});
  }
  log_warning(concat("goes on with changed options: ", join(change.names)));
}

void RowLog::count(const RowRecord& record) {
  if (!record.is_row()) return;
  const auto ordinal = static_cast<std::int64_t>(record.ordinal);
  if (ordinal >= options_.header.items || done_[record.ordinal]) {
    throw Error({.what = "the journal doesn't fit the output",
                 .where = journal_path_.string(),
                 .got = concat("item ", ordinal, done_.size() > record.ordinal ? " twice" : ""),
                 .hint = "choose another --output, or --restart"});
  }
  done_[record.ordinal] = true;
  ++rows_;
  errors_ += (record.flags & RowRecord::kError) != 0 ? 1 : 0;
  is_sorted_ = is_sorted_ && ordinal > last_;
  last_ = ordinal;
}

void RowLog::append(const std::vector<FinishedRow>& rows) {
  if (!rows.empty()) write(rows, 0);
  if (std::chrono::steady_clock::now() - synced_ > kSyncInterval) sync();
}

void RowLog::write(const std::vector<FinishedRow>& rows, std::uint32_t flags) {
  std::string texts, records;
  std::uint64_t end = end_;
  std::vector<RowRecord> written;
  for (const FinishedRow& row : rows) {
    texts += row.text;
    end += row.text.size();
    RowRecord record{.ordinal = static_cast<std::uint64_t>(row.ordinal),
                     .end = end,
                     .digest = digest_of(row.text),
                     .flags = flags | (row.is_error ? RowRecord::kError : 0U)};
    record.seal();
    records += bytes_of(record);
    written.push_back(record);
  }
  output_.write(texts);
  journal_.write(records);
  end_ = end;
  for (const RowRecord& record : written) count(record);
}

void RowLog::sync() {
  output_.sync();
  RowRecord mark{.end = end_, .flags = RowRecord::kSynced};
  mark.seal();
  journal_.write(bytes_of(mark));
  journal_.sync();
  synced_ = std::chrono::steady_clock::now();
}

void RowLog::sort() {
  if (is_sorted_) return;
  sync();
  rewrite([](const RowRecord&) { return true; }, /*sorted=*/true);
}

void RowLog::rewrite(const std::function<bool(const RowRecord&)>& keep, bool sorted) {
  const auto journal = read_journal(journal_path_);
  std::vector<KeptRow> kept;
  std::uint64_t begin = 0;
  for (const RowRecord& record : journal->records) {
    const bool is_mark = (record.flags & RowRecord::kSynced) != 0;
    if (!is_mark && (!record.is_row() || keep(record))) kept.push_back({record, begin});
    begin = record.end;
  }
  const auto first_row = std::find_if(kept.begin(), kept.end(),
                                      [](const KeptRow& row) { return row.record.is_row(); });
  if (sorted) {
    std::sort(first_row, kept.end(), [](const KeptRow& a, const KeptRow& b) {
      return a.record.ordinal < b.record.ordinal;
    });
  }
  const fs::path new_output = options_.output.string() + ".new";
  const fs::path begun = journal_path_.string() + ".tmp";
  RowFile output(new_output), records(begun);
  output.truncate(0);
  records.truncate(0);
  if (!records.lock()) throw Error({.what = "can't lock the file", .where = begun.string()});
  Buffer rows_out(output), records_out(records);
  records_out.add(to_line(options_.header));
  std::ifstream in(options_.output, std::ios::binary);
  std::string text;
  std::uint64_t end = 0;
  for (KeptRow& row : kept) {
    text.resize(row.record.end - row.begin);
    in.seekg(static_cast<std::streamoff>(row.begin));
    if (!in.read(text.data(), static_cast<std::streamsize>(text.size()))) {
      throw Error({.what = "can't read the file", .where = options_.output.string()});
    }
    rows_out.add(text);
    row.record.end = end += text.size();
    row.record.seal();
    records_out.add(bytes_of(row.record));
  }
  rows_out.flush();
  records_out.flush();
  output.sync();
  records.sync();
  rename_durably(begun, journal_path_.string() + ".new");  // from here on the new files count
  rename_durably(new_output, options_.output);
  rename_durably(journal_path_.string() + ".new", journal_path_);
  output_ = std::move(output);
  journal_ = std::move(records);
  end_ = end;
  done_.assign(done_.size(), false);
  rows_ = errors_ = 0;
  last_ = -1;
  is_sorted_ = true;
  for (const KeptRow& row : kept) count(row.record);
  sync();
}

// What a rewrite left when it was killed: behind the deciding rename it is completed, before it
// undone.
void RowLog::complete_rewrite() {
  const fs::path decided = journal_path_.string() + ".new";
  const fs::path new_output = options_.output.string() + ".new";
  if (!fs::exists(decided)) {
    std::error_code ignored;
    fs::remove(new_output, ignored);
    fs::remove(journal_path_.string() + ".tmp", ignored);
    return;
  }
  if (fs::exists(new_output)) rename_durably(new_output, options_.output);
  rename_durably(decided, journal_path_);
  journal_ = open_locked(journal_path_);
}

}  // namespace vlm::infer
