#include "infer/batch/gather.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <optional>
#include <set>

#include "infer/batch/fingerprint.h"
#include "infer/batch/journal.h"
#include "infer/batch/row_file.h"
#include "infer/batch/shard.h"
#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

// Where one row lies.
struct FoundRow {
  std::uint64_t ordinal, begin, end;
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
        name.starts_with(start) && entry.path().extension() == output.extension() &&
        std::sscanf(name.c_str() + start.size(), "%lld-of-%lld", &index, &count) == 2;
    if (is_shard && entry.path() == folder / shard_output(output, {index, count}).filename()) {
      counts.insert(count);
    }
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
    if (options_.shards == 0) options_.shards = count_shards(options_.output);
    if (fs::exists(journal_path(options_.output))) {
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
    if (report_.missing.empty() || options_.allows_partial) write();
    return report_;
  }

 private:
  std::string name_of(const Shard& shard) const {
    return concat("shard ", shard.index, " of ", shard.count);
  }

  void read(const Shard& shard) {
    const fs::path path = shard_output(options_.output, shard);
    if (fs::exists(journal_path(path)) && !hold(path)) {
      report_.missing.push_back(name_of(shard) + ": still running");
      return;
    }
    auto journal = read_journal(journal_path(path));
    if (!journal) {
      const char* reason = fs::exists(path) ? ": no journal" : ": no file";
      report_.missing.push_back(name_of(shard) + reason);
      return;
    }
    drop_lost_rows(*journal, path);
    check_header(journal->header, path);
    std::uint64_t begin = 0;
    std::int64_t count = 0;
    for (const RowRecord& record : journal->records) {
      if (record.is_row()) {
        rows_.push_back({record.ordinal, begin, record.end, shard.index});
        report_.errors += (record.flags & RowRecord::kError) != 0 ? 1 : 0;
        ++count;
      } else if ((record.flags & RowRecord::kPreamble) != 0) {
        preamble_ = {0, begin, record.end, shard.index};
      }
      begin = record.end;
    }
    if (count < journal->header.shard_items) {
      report_.missing.push_back(
          concat(name_of(shard), ": ", count, " of ", journal->header.shard_items, " rows"));
    }
  }

  // Keeps a run from changing the shard while it is read.
  bool hold(const fs::path& path) {
    RowFile journal(journal_path(path));
    if (!journal.lock()) return false;
    held_.push_back(std::move(journal));
    return true;
  }

  void check_header(const JournalHeader& header, const fs::path& path) {
    if (!header_) header_ = header;
    OrderedJson first = header_->options, other = header.options;
    first.erase("--shard");
    other.erase("--shard");
    const OptionChange change = compare(first, other);
    if (change.names.empty()) return;
    throw Error({.what = concat("shards were made with different options: ", join(change.names)),
                 .where = path.string(),
                 .got = change.got,
                 .wanted = change.wanted});
  }

  void put_in_order() {
    std::sort(rows_.begin(), rows_.end(),
              [](const FoundRow& a, const FoundRow& b) { return a.ordinal < b.ordinal; });
    const auto twice = std::adjacent_find(
        rows_.begin(), rows_.end(),
        [](const FoundRow& a, const FoundRow& b) { return a.ordinal == b.ordinal; });
    if (twice == rows_.end()) return;
    throw Error({.what = "an item has two rows",
                 .where = options_.output.string(),
                 .got = concat("item ", twice->ordinal, " in shards ", twice->shard, " and ",
                               std::next(twice)->shard)});
  }

  void write() {
    const fs::path temporary = name_aside(options_.output);
    try {
      write_rows(temporary);
    } catch (...) {
      std::error_code ignored;
      fs::remove(temporary, ignored);
      throw;
    }
    rename_durably(temporary, options_.output);
    report_.is_written = true;
  }

  void write_rows(const fs::path& path) {
    std::vector<std::ifstream> inputs;
    for (std::int64_t i = 0; i < options_.shards; ++i) {
      inputs.emplace_back(shard_output(options_.output, {i, options_.shards}), std::ios::binary);
    }
    std::string text, row;
    RowFile out(path);
    out.truncate(0);
    const auto copy = [&](const FoundRow& found) {
      std::ifstream& in = inputs[static_cast<std::size_t>(found.shard)];
      row.resize(found.end - found.begin);
      in.seekg(static_cast<std::streamoff>(found.begin));
      if (!in.read(row.data(), static_cast<std::streamsize>(row.size()))) {
        throw Error(
            {.what = "can't read the rows of a shard",
             .where = shard_output(options_.output, {found.shard, options_.shards}).string()});
      }
      text += row;
      if (text.size() < (1 << 20)) return;
      out.write(text);
      text.clear();
    };
    if (preamble_) copy(*preamble_);
    for (const FoundRow& found : rows_) copy(found);
    out.write(text);
    out.sync();
  }

  GatherOptions options_;
  GatherReport report_;
  std::optional<JournalHeader> header_;
  std::optional<FoundRow> preamble_;
  std::vector<FoundRow> rows_;
  std::vector<RowFile> held_;
};

}  // namespace

GatherReport gather_shards(const GatherOptions& options) {
  return Gatherer(options).run();
}

}  // namespace vlm::infer
