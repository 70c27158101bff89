#include "infer/batch/gather.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <optional>
#include <set>

#include "infer/batch/fingerprint.h"
#include "infer/batch/journal.h"
#include "infer/batch/row_log.h"
#include "infer/batch/row_match.h"
#include "infer/batch/shard.h"
#include "infer/batch/used_files.h"
#include "infer/tables/parquet_output.h"
#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/io/list_digest.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

struct ShardRow {
  MatchedRow row;
  std::int64_t shard;
};

// How many shards the files beside the output say there are.
std::int64_t count_shards(const fs::path& output) {
  const std::string start = output.stem().string() + ".shard-";
  const fs::path folder = output.parent_path().empty() ? fs::path(".") : output.parent_path();
  std::set<std::int64_t> counts;
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(folder, code)) {
    const std::string name = entry.path().filename().string();
    long long index = 0, count = 0;
    const bool is_shard =
        name.starts_with(start) &&
        std::sscanf(name.c_str() + start.size(), "%lld-of-%lld", &index, &count) == 2;
    if (!is_shard) continue;
    const fs::path part = shard_output(output, {index, count}).filename();
    const bool is_rows = is_parquet(part) && name == rows_beside(part);
    if (name == part || is_rows) counts.insert(count);
  }
  if (counts.empty()) {
    throw Error({.what = "no outputs of shards",
                 .where = output.string(),
                 .wanted = "files named as " + shard_output(output, {0, 2}).filename().string()});
  }
  if (counts.size() > 1) {
    throw Error({.what = "shards of several runs",
                 .where = output.string(),
                 .got = concat("outputs of ", join(counts, " and of "), " shards"),
                 .hint = "say --shards"});
  }
  return *counts.begin();
}

class Gatherer {
 public:
  explicit Gatherer(const GatherOptions& options) : options_(options) {
    if (is_parquet(options_.output)) check_parquet_is_written();
    if (options_.shards == 0) options_.shards = count_shards(options_.output);
    target_ = resolve_output(options_.output);
    UsedFiles parts;
    for (std::int64_t i = 0; i < options_.shards; ++i) {
      const fs::path part = shard_output(options_.output, {i, options_.shards});
      parts.add(part, "a file of a shard");
      for (const fs::path& file : files_of_output(rows_of({i, options_.shards}))) {
        parts.add(file, "a file of a shard");
      }
    }
    parts.check_output(target_);
    const fs::path rows = rows_path(options_.output);
    if (fs::exists(journal_path(rows)) || fs::exists(journal_path(target_))) {
      throw Error({.what = "the output belongs to a run without shards",
                   .where = options_.output.string(),
                   .hint = "gather into another name"});
    }
  }

  GatherReport run() {
    for (std::int64_t i = 0; i < options_.shards; ++i) read({i, options_.shards});
    if (!header_) {
      throw Error({.what = "no shard has a journal", .where = options_.output.string()});
    }
    report_.items = header_->items;
    report_.rows = static_cast<std::int64_t>(rows_.size());
    put_in_order();
    if (report_.rows < report_.items && report_.missing.empty()) {
      report_.missing.push_back(concat(report_.items - report_.rows, " items of no shard"));
    }
    if (!report_.missing.empty() && !options_.allows_partial) return report_;
    open_table();
    check_replaced();
    write();
    return report_;
  }

 private:
  std::string name_of(const Shard& shard) const {
    return concat("shard ", shard.index, " of ", shard.count);
  }

  fs::path rows_of(const Shard& shard) const {
    return rows_path(shard_output(options_.output, shard));
  }

  void read(const Shard& shard) {
    const fs::path path = rows_of(shard);
    const bool is_held = hold(path);
    files_.emplace_back(path, RowFile::Open::kRead);
    if (!is_held) {
      report_.missing.push_back(name_of(shard) + ": still running");
      return;
    }
    const auto journal = read_journal(journal_path(path));
    if (!journal) {
      const char* reason = fs::exists(path) ? ": no journal" : ": no file";
      report_.missing.push_back(name_of(shard) + reason);
      return;
    }
    check_header(journal->header, shard, path);
    const RowMatch found = match_rows(*journal, journal->header.items, files_.back(), line_end());
    std::int64_t count = 0;
    for (const MatchedRow& row : found.rows) {
      if (row.is_row()) {
        rows_.push_back({row, shard.index});
        report_.errors += row.is_error() ? 1 : 0;
        ++count;
      } else if (!preamble_) {
        preamble_ = {row, shard.index};
      }
    }
    if (count < journal->header.shard_items) {
      report_.missing.push_back(concat(name_of(shard), ": ", count, " of ",
                                       journal->header.shard_items, " rows",
                                       found.is_intact() ? "" : ", others are gone or changed"));
    }
  }

  // Keeps a run from changing the shard while it is read. False: one does.
  bool hold(const fs::path& path) {
    RowFile journal(journal_path(path), RowFile::Open::kExisting);
    if (!journal.is_open()) return true;
    if (!journal.lock()) return false;
    held_.push_back(std::move(journal));
    return true;
  }

  // What rows end with, by the header of a CSV file.
  std::string line_end() const {
    const OrderedJson columns = header_->options.value("columns", OrderedJson());
    return columns.is_string() && columns.get_ref<const std::string&>().ends_with("\r\n") ? "\r\n"
                                                                                          : "\n";
  }

  void check_header(const JournalHeader& header, const Shard& shard, const fs::path& path) {
    if (header.shard.index != shard.index || header.shard.count != shard.count) {
      throw Error({.what = "the file is of another shard than its name says",
                   .where = path.string(),
                   .got = name_of(header.shard),
                   .wanted = name_of(shard)});
    }
    if (!header_) header_ = header;
    OrderedJson first = header_->options, other = header.options;
    first.erase("--shard");
    other.erase("--shard");
    const OptionChange change = compare(first, other);
    if (change.names.empty() && header.items == header_->items) return;
    throw Error({.what = concat("shards were made with different options: ",
                                change.names.empty() ? "inputs" : join(change.names)),
                 .where = path.string(),
                 .got = change.got,
                 .wanted = change.wanted});
  }

  void put_in_order() {
    std::sort(rows_.begin(), rows_.end(),
              [](const ShardRow& a, const ShardRow& b) { return a.row.ordinal < b.row.ordinal; });
    const auto twice = std::adjacent_find(
        rows_.begin(), rows_.end(),
        [](const ShardRow& a, const ShardRow& b) { return a.row.ordinal == b.row.ordinal; });
    if (twice == rows_.end()) return;
    throw Error({.what = "an item has two rows",
                 .where = options_.output.string(),
                 .got = concat("item ", twice->row.ordinal, " in shards ", twice->shard, " and ",
                               std::next(twice)->shard)});
  }

  // What is there may only be what an earlier gathering wrote: every line is a row of a shard.
  void check_replaced() const {
    if (table_ && !options_.overwrites) {
      table_->check_replaced(kOptionsNote, "--overwrite replaces it, or gather into another name");
    }
    if (table_) return;
    const RowFile before(target_, RowFile::Open::kRead);
    if (options_.overwrites || !before.is_open()) return;
    Journal rows;
    std::uint64_t end = 0;
    const auto add = [&](const MatchedRow& row) {
      end += row.size;
      rows.records.push_back(
          {.ordinal = row.ordinal, .end = end, .digest = row.digest, .flags = row.flags});
    };
    if (preamble_) add(preamble_->row);
    for (const ShardRow& found : rows_) add(found.row);
    rows.unbroken = rows.records.size();
    const RowMatch match = match_rows(rows, report_.items, before, line_end());
    if (match.foreign.empty()) return;
    throw Error({.what = "the output is there already, with lines that no shard has",
                 .where = target_.string(),
                 .hint = "--overwrite replaces it, or gather into another name"});
  }

  void write() {
    if (table_) {
      table_->write([&](const auto& use) { for_each_row(use); });
      report_.is_written = true;
      return;
    }
    const fs::path temporary = temporary_path(target_);
    try {
      write_rows(temporary);
    } catch (...) {
      std::error_code ignored;
      fs::remove(temporary, ignored);
      throw;
    }
    rename_durably(temporary, target_);
    report_.is_written = true;
  }

  // The preamble, too.
  void for_each_row(const std::function<void(const std::string& row)>& use) const {
    std::vector<RowReader> readers(files_.begin(), files_.end());
    const auto read = [&](const ShardRow& found) {
      const auto shard = static_cast<std::size_t>(found.shard);
      const std::string row = read_row(readers[shard], found.row, line_end());
      if (digest_of(row) != found.row.digest) {
        throw Error({.what = "the rows of a shard were changed while they were read",
                     .where = files_[shard].path().string()});
      }
      use(row);
    };
    if (preamble_) read(*preamble_);
    for (const ShardRow& found : rows_) read(found);
  }

  void write_rows(const fs::path& path) const {
    std::string text;
    RowFile out(path);
    out.truncate(0);
    for_each_row([&](const std::string& row) {
      text += row;
      if (text.size() < (1 << 20)) return;
      out.write(text);
      text.clear();
    });
    out.write(text);
    out.sync();
  }

  // Of the shards' own columns.
  void open_table() {
    if (!is_parquet(options_.output)) return;
    OrderedJson options = header_->options;
    options.erase("--shard");
    table_.emplace(ParquetOptions{
        .output = target_,
        .columns = parse_ordered_json(options.value("columns", ""), "the journal's columns"),
        .notes = table_notes(options)});
  }

  GatherOptions options_;
  fs::path target_;  // behind symbolic links
  GatherReport report_;
  std::optional<JournalHeader> header_;
  std::optional<ParquetOutput> table_;  // where a table is gathered
  std::optional<ShardRow> preamble_;
  std::vector<ShardRow> rows_;
  std::vector<RowFile> files_;  // of the shards, where they are
  std::vector<RowFile> held_;
};

}  // namespace

GatherReport gather_shards(const GatherOptions& options) {
  return Gatherer(options).run();
}

}  // namespace vlm::infer
