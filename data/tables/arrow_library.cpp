// The shared object vlm_arrow: Parquet and Arrow files through Apache Arrow C++.
//
// Only headers and footers are read to open a file. A group is read by plain reads, never mapped: a
// file that shrinks meanwhile is an error, not a signal. Reference: Arrow columnar format 1.5.
#include <arrow/api.h>
#include <arrow/io/file.h>
#include <arrow/ipc/api.h>
#include <parquet/arrow/reader.h>
#include <parquet/file_reader.h>

#include <cstring>
#include <stdexcept>

#include "data/tables/arrow_columns.h"
#include "data/tables/arrow_status.h"
#include "data/tables/table_file.h"

namespace vlm::data {
namespace {

std::shared_ptr<arrow::io::RandomAccessFile> open_file(const std::string& path) {
  return check(arrow::io::ReadableFile::Open(path, arrow::system_memory_pool()));
}

// The leaves of the columns that aren't plain bytes.
std::vector<int> leaves_without_bytes(const parquet::SchemaDescriptor& schema) {
  std::vector<int> leaves;
  for (int i = 0; i < schema.num_columns(); ++i) {
    const parquet::ColumnDescriptor& leaf = *schema.Column(i);
    const bool is_bytes = leaf.physical_type() == parquet::Type::BYTE_ARRAY ||
                          leaf.physical_type() == parquet::Type::FIXED_LEN_BYTE_ARRAY;
    const bool has_meaning = !leaf.logical_type()->is_none();  // text, a decimal, …
    if (!is_bytes || has_meaning) leaves.push_back(i);
  }
  return leaves;
}

class ArrowGroup : public TableGroup {
 public:
  ArrowGroup(std::shared_ptr<arrow::Table> table, std::shared_ptr<const Feature> features)
      : table_(std::move(table)), features_(std::move(features)) {
    for (const auto& column : table_->columns()) {
      for (const auto& chunk : column->chunks()) bytes_ += held_bytes(*chunk->data());
    }
  }

  std::int64_t bytes() const override { return bytes_; }

  nlohmann::json row(std::int64_t index) const override {
    nlohmann::json object = nlohmann::json::object();
    for (int i = 0; i < table_->num_columns(); ++i) {
      const std::string& name = table_->field(i)->name();
      const auto feature = features_->fields.find(name);
      const auto [chunk, inside] = find(*table_->column(i), index);
      try {
        object[name] = to_json(*chunk, inside,
                               feature == features_->fields.end() ? nullptr : &feature->second);
      } catch (const std::runtime_error& error) {
        throw std::runtime_error("column '" + name + "': " + error.what());
      }
    }
    return object;
  }

 private:
  static std::int64_t held_bytes(const arrow::ArrayData& data) {
    std::int64_t bytes = 0;
    for (const auto& buffer : data.buffers) bytes += buffer ? buffer->size() : 0;
    for (const auto& child : data.child_data) bytes += held_bytes(*child);
    return bytes + (data.dictionary ? held_bytes(*data.dictionary) : 0);
  }

  static std::pair<const arrow::Array*, std::int64_t> find(const arrow::ChunkedArray& column,
                                                           std::int64_t index) {
    for (const auto& chunk : column.chunks()) {
      if (index < chunk->length()) return {chunk.get(), index};
      index -= chunk->length();
    }
    throw std::runtime_error("the group has fewer rows than the file says");
  }

  std::shared_ptr<arrow::Table> table_;
  std::shared_ptr<const Feature> features_;
  std::int64_t bytes_ = 0;
};

class ParquetTable : public TableFile {
 public:
  explicit ParquetTable(const std::string& path) : file_(open_file(path)) {
    const auto reader = open_reader();
    metadata_ = reader->parquet_reader()->metadata();
    std::shared_ptr<arrow::Schema> schema;
    check(reader->GetSchema(&schema));
    columns_ = schema->field_names();
    features_ = std::make_shared<Feature>(read_features(*schema));
    for (int i = 0; i < metadata_->num_row_groups(); ++i) {
      const auto group = metadata_->RowGroup(i);
      groups_.push_back({group->num_rows(), group->total_byte_size()});
    }
  }

  const std::vector<std::string>& columns() const override { return columns_; }
  const std::vector<TableGroupSize>& groups() const override { return groups_; }

  std::shared_ptr<const TableGroup> read_group(std::size_t group, TableBytes bytes) const override {
    const auto reader = open_reader();
    const int number = static_cast<int>(group);
    auto table =
        check(bytes == TableBytes::kRead
                  ? reader->ReadRowGroup(number)
                  : reader->ReadRowGroup(number, leaves_without_bytes(*metadata_->schema())));
    check(table->Validate());
    return std::make_shared<ArrowGroup>(std::move(table), features_);
  }

 private:
  // A reader of its own for each call, since readers aren't thread-safe; what was parsed is shared.
  std::unique_ptr<parquet::arrow::FileReader> open_reader() const {
    const parquet::ReaderProperties properties(arrow::system_memory_pool());
    parquet::ArrowReaderProperties arrow_properties(/*use_threads=*/false);
    arrow_properties.set_pre_buffer(false);
    parquet::arrow::FileReaderBuilder builder;
    check(builder.Open(file_, properties, metadata_));
    return check(
        builder.memory_pool(arrow::system_memory_pool())->properties(arrow_properties)->Build());
  }

  std::shared_ptr<arrow::io::RandomAccessFile> file_;
  std::shared_ptr<parquet::FileMetaData> metadata_;
  std::vector<std::string> columns_;
  std::shared_ptr<const Feature> features_;
  std::vector<TableGroupSize> groups_;
};

// The few fields of a message's flatbuffer that Arrow's interface keeps to itself: its kind, the
// size of its body, and the rows of a record batch. Reads are checked against the text's end.
class MessageHeader {
 public:
  enum Kind { kSchema = 1, kDictionary = 2, kBatch = 3 };

  explicit MessageHeader(std::string_view bytes) : bytes_(bytes), table_(follow(0)) {}

  int kind() const { return field<std::uint8_t>(table_, 1, 0); }
  std::int64_t body_bytes() const { return field<std::int64_t>(table_, 3, 0); }
  std::int64_t batch_rows() const {
    const std::int64_t place = find(table_, 2);
    return place < 0 ? 0 : field<std::int64_t>(follow(place), 0, 0);
  }

 private:
  template <typename T>
  T read(std::int64_t at) const {
    if (at < 0 ||
        at + static_cast<std::int64_t>(sizeof(T)) > static_cast<std::int64_t>(bytes_.size())) {
      throw std::runtime_error("a message's header is corrupt");
    }
    T value;
    std::memcpy(&value, bytes_.data() + at, sizeof value);
    return value;
  }

  std::int64_t follow(std::int64_t at) const { return at + read<std::uint32_t>(at); }

  // Where field `number` of the table lies; −1: it isn't there.
  std::int64_t find(std::int64_t table, int number) const {
    const std::int64_t vtable = table - read<std::int32_t>(table);
    const int entry = 4 + 2 * number;
    if (entry + 2 > read<std::uint16_t>(vtable)) return -1;
    const int offset = read<std::uint16_t>(vtable + entry);
    return offset == 0 ? -1 : table + offset;
  }

  template <typename T>
  T field(std::int64_t table, int number, T otherwise) const {
    const std::int64_t place = find(table, number);
    return place < 0 ? otherwise : read<T>(place);
  }

  std::string_view bytes_;
  std::int64_t table_;
};

// An IPC stream, as the `datasets` library caches, or the same behind a file's magic bytes.
class ArrowTable : public TableFile {
 public:
  explicit ArrowTable(const std::string& path) : file_(open_file(path)) {
    size_ = check(file_->GetSize());
    std::int64_t at = starts_with_magic() ? 8 : 0;
    const std::int64_t schema_end = read_schema(at);
    for (at = schema_end; next_message(at);) {
    }
  }

  const std::vector<std::string>& columns() const override { return columns_; }
  const std::vector<TableGroupSize>& groups() const override { return groups_; }

  std::shared_ptr<const TableGroup> read_group(std::size_t group, TableBytes) const override {
    const Place& place = places_.at(group);
    const auto message = check(arrow::ipc::ReadMessage(place.at, place.header_bytes, file_.get()));
    arrow::ipc::IpcReadOptions options = arrow::ipc::IpcReadOptions::Defaults();
    options.memory_pool = arrow::system_memory_pool();
    options.use_threads = false;
    const auto batch =
        check(arrow::ipc::ReadRecordBatch(*message, schema_, &dictionaries_, options));
    check(batch->ValidateFull());
    return std::make_shared<ArrowGroup>(check(arrow::Table::FromRecordBatches({batch})), features_);
  }

 private:
  struct Place {
    std::int64_t at;
    std::int32_t header_bytes;  // with its length in front
  };

  std::string read(std::int64_t at, std::int64_t size) const {
    if (size < 0 || at > size_ - size) throw std::runtime_error("the file is truncated");
    std::string bytes(static_cast<std::size_t>(size), '\0');
    if (check(file_->ReadAt(at, size, bytes.data())) != size) {
      throw std::runtime_error("the file is truncated");
    }
    return bytes;
  }

  bool starts_with_magic() const { return size_ >= 8 && read(0, 6) == "ARROW1"; }

  std::int64_t read_schema(std::int64_t at) {
    auto stream = check(arrow::io::RandomAccessFile::GetStream(file_, at, size_ - at));
    schema_ = check(arrow::ipc::ReadSchema(stream.get(), &dictionaries_));
    columns_ = schema_->field_names();
    features_ = std::make_shared<Feature>(read_features(*schema_));
    return at + check(stream->Tell());
  }

  // Notes the message at `at`, which becomes the place behind it. False at the stream's end.
  bool next_message(std::int64_t& at) {
    if (at == size_) return false;  // a stream may end without its mark
    std::int32_t words[2] = {0, 0};
    std::memcpy(words, read(at, 8).data(), sizeof words);
    const bool has_mark = words[0] == -1;  // streams before Arrow 0.15 have none
    const std::int32_t header = has_mark ? words[1] : words[0];
    const std::int32_t prefix = has_mark ? 8 : 4;
    if (header == 0) return false;
    const std::string bytes = read(at + prefix, header);
    const MessageHeader message(bytes);
    if (message.kind() == MessageHeader::kDictionary) {
      throw std::runtime_error(
          "columns stored as dictionaries can't be read from an Arrow file (write them as plain "
          "values, or as Parquet)");
    }
    if (message.kind() != MessageHeader::kBatch) throw std::runtime_error("an unknown message");
    const std::int64_t body = message.body_bytes(), rows = message.batch_rows();
    if (body < 0 || rows < 0 || body > size_ - at - prefix - header) {
      throw std::runtime_error("the file is truncated");
    }
    if (rows > 0) {
      places_.push_back({at, prefix + header});
      groups_.push_back({rows, body});
    }
    at += prefix + header + body;
    return true;
  }

  std::shared_ptr<arrow::io::RandomAccessFile> file_;
  std::int64_t size_ = 0;
  std::shared_ptr<arrow::Schema> schema_;
  arrow::ipc::DictionaryMemo dictionaries_;
  std::vector<std::string> columns_;
  std::shared_ptr<const Feature> features_;
  std::vector<Place> places_;
  std::vector<TableGroupSize> groups_;
};

std::unique_ptr<TableFile> open_table(const std::string& path, TableKind kind) {
  if (kind == TableKind::kParquet) return std::make_unique<ParquetTable>(path);
  return std::make_unique<ArrowTable>(path);
}

}  // namespace
}  // namespace vlm::data

extern "C" const vlm::data::ArrowLibrary* vlm_arrow_library() {
  static const vlm::data::ArrowLibrary library{&vlm::data::open_table};
  return &library;
}
