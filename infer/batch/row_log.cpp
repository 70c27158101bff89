#include "infer/batch/row_log.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "infer/batch/fingerprint.h"
#include "infer/tables/parquet_output.h"
#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"
#include "vlm/io/list_digest.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kSyncInterval{5};

// Of the names in front of which OUTPUT.journal stands.
constexpr const char* kNewRows = ".rows";
constexpr const char* kBegunJournal = ".tmp";
constexpr const char* kDecidedJournal = ".new";

fs::path beside(const fs::path& journal, const char* suffix) {
  return journal.string() + suffix;
}

std::string_view bytes_of(const RowRecord& record) {
  return {reinterpret_cast<const char*>(&record), sizeof record};
}

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

// Said before a model is loaded for nothing.
void check_folder(const fs::path& output) {
  const fs::path folder = output.parent_path().empty() ? fs::path(".") : output.parent_path();
  if (::access(folder.c_str(), W_OK | X_OK) == 0) return;
  throw Error({.what = "can't write in the output's folder",
               .where = output.string(),
               .got = std::strerror(errno)});
}

}  // namespace

fs::path resolve_output(const fs::path& output) {
  constexpr int kMostLinks = 40;  // as Linux has it
  std::error_code code;
  const auto kind = fs::status(output, code).type();
  if (kind == fs::file_type::directory) {
    throw Error({.what = "is a folder, not a file", .where = output.string()});
  }
  if (fs::exists(output, code) && kind != fs::file_type::regular) {
    throw Error({.what = "not a regular file",
                 .where = output.string(),
                 .hint = "rows go to a file that a run can go on with"});
  }
  fs::path path = output;
  for (int i = 0; fs::is_symlink(path, code); ++i) {
    if (i == kMostLinks) {
      throw Error({.what = "too many symbolic links", .where = output.string()});
    }
    path = path.parent_path() / fs::read_symlink(path);
  }
  return path;
}

fs::path rows_path(const fs::path& output) {
  return is_parquet(output) ? rows_beside(resolve_output(output)) : output;
}

std::vector<fs::path> files_of_output(const fs::path& output) {
  const fs::path journal = journal_path(output);
  return {output, journal, beside(journal, kNewRows), beside(journal, kBegunJournal),
          beside(journal, kDecidedJournal)};
}

RowLog::RowLog(RowLogOptions options) : options_(std::move(options)) {
  options_.output = resolve_output(options_.output);
  check_folder(options_.output);
  journal_path_ = journal_path(options_.output);
  line_end_ = options_.preamble.ends_with("\r\n") ? "\r\n" : "\n";
  done_.assign(static_cast<std::size_t>(options_.header.items), false);
  journal_ = open_locked(journal_path_, RowFile::Open::kExisting);
  if (journal_.is_open()) complete_rewrite();
  output_ = open_locked(options_.output, RowFile::Open::kExisting);
  if (is_journal(options_.output)) {
    throw Error({.what = "the file is a run's journal",
                 .where = options_.output.string(),
                 .hint = "choose another --output"});
  }
  look();
}

void RowLog::look() {
  if (options_.restart && is_journal(journal_path_)) return;
  const auto journal = read_journal(journal_path_);  // a file of that name that is none is refused
  if (options_.restart) return;
  if (!journal) {
    if (!output_.is_open() || output_.size() == 0) return;
    throw Error({.what = "the output holds rows, and no journal tells of which run",
                 .where = options_.output.string(),
                 .hint = "choose another --output, or --restart to delete them"});
  }
  compare_options(journal->header);
  has_changed_options_ = to_line(journal->header) != to_line(options_.header);
  journal_size_ = journal->size;
  found_ = match_rows(*journal, options_.header.items, output_, line_end_);
  log_damage();
  count_kept();
}

bool RowLog::stays(const MatchedRow& row) const {
  return !row.is_row() || !row.is_error() || !options_.retry_errors;
}

void RowLog::count_kept() {
  for (const MatchedRow& row : found_->rows) {
    if (stays(row)) count({.ordinal = row.ordinal, .flags = row.flags});
  }
}

void RowLog::log_damage() const {
  const RowMatch& found = *found_;
  if (found.is_intact() && found.foreign.empty()) return;
  std::vector<std::string> parts;
  if (found.lost > 0) {
    parts.push_back(concat(found.lost, found.lost == 1 ? " row is" : " rows are",
                           " gone or changed and asked again"));
  }
  if (!found.foreign.empty()) {
    parts.push_back(concat("lines that the journal doesn't know are moved to ",
                           options_.output.string(), ".set-aside"));
  }
  if (parts.empty()) parts.emplace_back("order or line ends of rows are put right");
  log_warning(
      concat(options_.output.string(), ": not as the last run left it: ", join(parts, "; ")));
}

void RowLog::set_foreign_lines_aside() const {
  if (found_->foreign.empty()) return;
  RowFile aside(options_.output.string() + ".set-aside");
  aside.seek_end();
  RowReader reader(output_);
  constexpr std::uint64_t kPiece = 1 << 20;
  for (const FilePiece& piece : found_->foreign) {
    for (std::uint64_t at = piece.begin; at < piece.end; at += kPiece) {
      aside.write(reader.at(at, std::min(kPiece, piece.end - at)));
    }
  }
  aside.sync();
}

void RowLog::begin() {
  if (std::exchange(has_begun_, true)) return;
  if (!journal_.is_open()) journal_ = open_locked(journal_path_);
  if (!output_.is_open()) output_ = open_locked(options_.output, RowFile::Open::kExisting);
  if (!found_) {
    if (!options_.restart && (journal_.size() > 0 && read_journal(journal_path_))) {
      throw Error({.what = "another run has begun this output meanwhile",
                   .where = options_.output.string(),
                   .hint = "start again to go on with it, or choose another --output"});
    }
    rewrite({});
  } else {
    set_foreign_lines_aside();
    const bool lacks_preamble =
        !options_.preamble.empty() && (found_->rows.empty() || found_->rows[0].is_row());
    const bool drops_rows = !std::all_of(found_->rows.begin(), found_->rows.end(),
                                         [this](const MatchedRow& row) { return stays(row); });
    if (!found_->is_intact() || has_changed_options_ || drops_rows || lacks_preamble ||
        !output_.is_open() || output_.names() > 1) {
      std::erase_if(found_->rows, [this](const MatchedRow& row) { return !stays(row); });
      rewrite(std::move(found_->rows));
    } else {
      end_ = found_->end;
      output_.truncate(end_);
      journal_.truncate(journal_size_);
    }
  }
  found_.reset();
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
  done_.at(record.ordinal) = true;
  ++rows_;
  errors_ += record.is_error() ? 1 : 0;
  is_sorted_ = is_sorted_ && ordinal > last_;
  last_ = ordinal;
}

void RowLog::append(const std::vector<FinishedRow>& rows) {
  begin();
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
  begin();
  output_.sync();
  journal_.sync();
  synced_ = std::chrono::steady_clock::now();
}

std::vector<MatchedRow> RowLog::written_rows() const {
  const auto journal = read_journal(journal_path_);
  std::vector<MatchedRow> rows;
  std::uint64_t begin = 0;
  for (std::size_t i = 0; i < journal->unbroken; ++i) {
    const RowRecord& record = journal->records[i];
    rows.push_back({record.ordinal, record.digest, begin,
                    static_cast<std::uint32_t>(record.end - begin), record.flags});
    begin = record.end;
  }
  return rows;
}

void RowLog::for_each_row(const std::function<void(std::int64_t, const std::string&)>& use) {
  begin();
  RowReader reader(output_);
  for (const MatchedRow& row : written_rows()) {
    if (row.is_row()) {
      use(static_cast<std::int64_t>(row.ordinal), read_row(reader, row, line_end_));
    }
  }
}

void RowLog::sort() {
  begin();
  if (is_sorted_) return;
  std::vector<MatchedRow> rows = written_rows();
  const auto first_row =
      std::find_if(rows.begin(), rows.end(), [](const MatchedRow& row) { return row.is_row(); });
  std::sort(first_row, rows.end(),
            [](const MatchedRow& a, const MatchedRow& b) { return a.ordinal < b.ordinal; });
  rewrite(std::move(rows));
}

// Both files anew, with these rows of the output and a preamble in front.
void RowLog::rewrite(std::vector<MatchedRow> rows) {
  std::erase_if(rows, [](const MatchedRow& row) { return !row.is_row(); });
  const fs::path new_output = beside(journal_path_, kNewRows);
  const fs::path begun = beside(journal_path_, kBegunJournal);
  const fs::path decided = beside(journal_path_, kDecidedJournal);
  RowFile output(new_output), records(begun);
  for (RowFile* file : {&output, &records}) {
    if (!file->lock()) {
      throw Error({.what = "another program has locked the file", .where = file->path().string()});
    }
    file->truncate(0);
  }
  output.take_permissions_of(output_);
  Buffer rows_out(output), records_out(records);
  records_out.add(to_line(options_.header));
  end_ = 0;
  done_.assign(done_.size(), false);
  rows_ = errors_ = 0;
  last_ = -1;
  is_sorted_ = true;
  const auto add = [&](const std::string& text, RowRecord record) {
    rows_out.add(text);
    record.end = end_ += text.size();
    record.digest = digest_of(text);
    record.seal();
    records_out.add(bytes_of(record));
    count(record);
  };
  if (!options_.preamble.empty()) add(options_.preamble, {.flags = RowRecord::kPreamble});
  RowReader reader(output_);
  for (const MatchedRow& row : rows) {
    const std::string text = read_row(reader, row, line_end_);
    if (digest_of(text) != row.digest) {
      throw Error({.what = "the output was changed while this run writes it",
                   .where = options_.output.string(),
                   .hint = "start again: rows that changed are asked again"});
    }
    add(text, {.ordinal = row.ordinal, .flags = row.flags});
  }
  rows_out.flush();
  records_out.flush();
  output.sync();
  records.sync();
  rename_durably(begun, decided);  // from here on the new files count
  rename_durably(new_output, options_.output);
  rename_durably(decided, journal_path_);
  output_ = std::move(output);
  journal_ = std::move(records);
  output_.call(options_.output);
  journal_.call(journal_path_);
  synced_ = std::chrono::steady_clock::now();
}

// What a rewrite left when it was killed: behind the deciding rename it is completed, before it
// undone.
void RowLog::complete_rewrite() {
  const fs::path decided = beside(journal_path_, kDecidedJournal);
  const fs::path new_output = beside(journal_path_, kNewRows);
  if (!is_journal(decided)) {
    std::error_code ignored;
    fs::remove(new_output, ignored);
    fs::remove(beside(journal_path_, kBegunJournal), ignored);
    return;
  }
  if (fs::exists(new_output)) rename_durably(new_output, options_.output);
  rename_durably(decided, journal_path_);
  journal_ = open_locked(journal_path_);
}

}  // namespace vlm::infer
