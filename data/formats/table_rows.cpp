// Parquet and Arrow files, a row of the table each.
//
// Groups of rows are read as they are asked for and kept while others need the room: all tables of
// the process share one bound. A shuffled epoch over large tables goes through a few groups at a
// time (train/batches/data_plan.h), so that each is read once.
#include <algorithm>
#include <future>
#include <list>
#include <mutex>

#include "data/formats/row_source.h"
#include "data/tables/table_file.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/plugin.h"
#include "vlm/io/list_digest.h"

namespace vlm::data {
namespace {

using Group = std::shared_ptr<const TableGroup>;

const ArrowLibrary& arrow_library() {
  using Function = const ArrowLibrary* (*)();
  static const ArrowLibrary* library = reinterpret_cast<Function>(
      open_plugin("vlm_arrow", "vlm_arrow_library", "Parquet and Arrow files can't be read"))();
  return *library;
}

// Groups in memory, most recently used first. Threads that want one group read it once.
class GroupCache {
 public:
  static GroupCache& of_process() {
    static GroupCache cache;
    return cache;
  }

  struct Key {
    const TableFile* file;
    std::size_t group;
    TableBytes bytes;
    bool operator==(const Key&) const = default;
  };

  template <typename Read>
  Group find(const Key& key, const Read& read) {
    std::promise<Group> promise;
    std::shared_future<Group> future;
    {
      const std::lock_guard lock(mutex_);
      const auto known = std::find_if(entries_.begin(), entries_.end(),
                                      [&](const Entry& entry) { return entry.key == key; });
      if (known != entries_.end()) {
        entries_.splice(entries_.begin(), entries_, known);
        future = known->future;
      } else {
        entries_.push_front({key, promise.get_future().share(), 0});
      }
    }
    if (future.valid()) return future.get();
    return fill(key, promise, read);
  }

  void forget(const TableFile* file) {
    const std::lock_guard lock(mutex_);
    entries_.remove_if([&](const Entry& entry) { return entry.key.file == file; });
  }

 private:
  static constexpr std::int64_t kMaxBytes = 512LL
                                            << 20;  // two windows of train/batches/data_plan.h

  struct Entry {
    Key key;
    std::shared_future<Group> future;
    std::int64_t bytes;  // 0: being read
  };

  template <typename Read>
  Group fill(const Key& key, std::promise<Group>& promise, const Read& read) {
    const auto is_it = [&](const Entry& entry) { return entry.key == key; };
    try {
      Group made = read();
      promise.set_value(made);
      const std::lock_guard lock(mutex_);
      const auto entry = std::find_if(entries_.begin(), entries_.end(), is_it);
      if (entry != entries_.end()) entry->bytes = std::max<std::int64_t>(made->bytes(), 1);
      make_room();
      return made;
    } catch (...) {
      promise.set_exception(std::current_exception());
      const std::lock_guard lock(mutex_);
      entries_.remove_if(is_it);
      throw;
    }
  }

  // Drops what was used longest ago, but never the newest.
  void make_room() {
    std::int64_t held = 0;
    for (auto entry = entries_.begin(); entry != entries_.end();) {
      held += entry->bytes;
      const bool is_over = entry != entries_.begin() && entry->bytes > 0 && held > kMaxBytes;
      if (is_over) held -= entry->bytes;
      entry = is_over ? entries_.erase(entry) : std::next(entry);
    }
  }

  std::mutex mutex_;
  std::list<Entry> entries_;
};

class TableRows : public RowSource {
 public:
  TableRows(const std::filesystem::path& path, TableKind kind)
      : path_(path.string()), folder_(path.parent_path()) {
    try {
      file_ = arrow_library().open(path_, kind);
    } catch (const Error&) {
      throw;
    } catch (const std::exception& error) {
      throw Error({.what = "can't read the table", .where = path_, .got = error.what()});
    }
    for (const TableGroupSize& group : file_->groups()) ends_.push_back(size() + group.rows);
  }

  ~TableRows() override { GroupCache::of_process().forget(file_.get()); }

  std::int64_t size() const override { return ends_.empty() ? 0 : ends_.back(); }

  std::string where(std::int64_t index) const override { return concat(path_, ":", index + 1); }

  std::vector<RowBlock> blocks() const override {
    std::vector<RowBlock> blocks;
    for (const TableGroupSize& group : file_->groups()) {
      blocks.push_back({.rows = group.rows, .bytes = group.bytes});
    }
    return blocks;
  }

  Row at(std::int64_t index) const override {
    return {.columns = read(index, TableBytes::kRead), .where = where(index), .folder = folder_};
  }

  OrderedJson outline(std::int64_t index) const override {
    const Json row = read(index, TableBytes::kLeftOut);
    OrderedJson columns = OrderedJson::object();
    for (const std::string& name : file_->columns()) {
      const auto value = row.find(name);
      if (value != row.end() && !is_bytes(*value)) columns[name] = without_bytes(*value);
    }
    return columns;
  }

  // Rows that can't be read count as their error. Of what isn't read the sizes count.
  void add_to(ListDigest& digest) const override {
    for (const TableGroupSize& group : file_->groups()) {
      digest.add(static_cast<std::uint64_t>(group.rows));
      digest.add(static_cast<std::uint64_t>(group.bytes));
    }
    for (std::int64_t i = 0; i < size(); ++i) {
      try {
        digest.add(dump_text(outline(i)));
      } catch (const Error& error) {
        digest.add(error.parts().got);
      }
    }
  }

 private:
  static bool is_bytes(const Json& value) { return value.is_binary() && !is_any_number(value); }

  static Json without_bytes(Json value) {
    if (!value.is_structured()) return value;
    for (auto part = value.begin(); part != value.end();) {
      if (!is_bytes(*part)) *part = without_bytes(std::move(*part));
      part = is_bytes(*part) ? value.erase(part) : std::next(part);
    }
    return value;
  }

  Json read(std::int64_t index, TableBytes bytes) const {
    const auto group = static_cast<std::size_t>(
        std::upper_bound(ends_.begin(), ends_.end(), index) - ends_.begin());
    const std::int64_t begin = group == 0 ? 0 : ends_.at(group - 1);
    try {
      const Group held = GroupCache::of_process().find(
          {file_.get(), group, bytes}, [&] { return file_->read_group(group, bytes); });
      return held->row(index - begin);
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& error) {
      throw Error({.what = "can't read the row", .where = where(index), .got = error.what()});
    }
  }

  std::string path_;
  std::filesystem::path folder_;
  std::unique_ptr<TableFile> file_;
  std::vector<std::int64_t> ends_;  // rows up to each group's end
};

}  // namespace

std::unique_ptr<RowSource> open_parquet_rows(const std::filesystem::path& path) {
  return std::make_unique<TableRows>(path, TableKind::kParquet);
}

std::unique_ptr<RowSource> open_arrow_rows(const std::filesystem::path& path) {
  return std::make_unique<TableRows>(path, TableKind::kArrow);
}

}  // namespace vlm::data
