// The shared object vlm_arrow: Parquet files written through Apache Arrow C++.
//
// Rows are collected in Arrow's builders, one a column, and written as a row group when there are
// many or they take much room.
#include "data/tables/table_writer.h"

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <arrow/util/compression.h>
#include <parquet/arrow/writer.h>
#include <parquet/file_reader.h>

#include <iterator>

#include "data/tables/arrow_status.h"

namespace vlm::data {
namespace {

using Value = nlohmann::ordered_json;
using Kind = ColumnType::Kind;

constexpr std::int64_t kMostRows = 100'000;        // of a group
constexpr std::int64_t kMostTextBytes = 32 << 20;  // of a group's texts

std::shared_ptr<arrow::DataType> to_arrow(const ColumnType& type) {
  switch (type.kind) {
    case Kind::kFlag:
      return arrow::boolean();
    case Kind::kInteger:
      return arrow::int64();
    case Kind::kNumber:
      return arrow::float64();
    case Kind::kList:
      return arrow::list(arrow::field("element", to_arrow(type.parts.at(0).second)));
    case Kind::kObject: {
      arrow::FieldVector fields;
      for (const auto& [name, part] : type.parts) {
        fields.push_back(arrow::field(name, to_arrow(part)));
      }
      return arrow::struct_(fields);
    }
    default:
      return arrow::utf8();
  }
}

// Puts values of a type into Arrow's builder of it.
class Appender {
 public:
  std::int64_t text_bytes = 0;  // that were put

  void append(arrow::ArrayBuilder& builder, const ColumnType& type, const Value* value) {
    if (!value || value->is_null()) return check(builder.AppendNull());
    switch (type.kind) {
      case Kind::kFlag:
        return check(static_cast<arrow::BooleanBuilder&>(builder).Append(value->get<bool>()));
      case Kind::kInteger:
        return check(static_cast<arrow::Int64Builder&>(builder).Append(value->get<std::int64_t>()));
      case Kind::kNumber:
        return check(static_cast<arrow::DoubleBuilder&>(builder).Append(value->get<double>()));
      case Kind::kList:
        return append_list(static_cast<arrow::ListBuilder&>(builder), type.parts.at(0).second,
                           *value);
      case Kind::kObject:
        return append_object(static_cast<arrow::StructBuilder&>(builder), type, *value);
      default:
        return append_text(static_cast<arrow::StringBuilder&>(builder), *value);
    }
  }

  // The fields of an object, each into its builder.
  template <typename Builders>
  void append_fields(const Builders& builder_of, const ColumnType& type, const Value& object) {
    auto next = object.begin();  // fields mostly come in the order of the type
    for (std::size_t i = 0; i < type.parts.size(); ++i) {
      const auto& [name, part] = type.parts[i];
      auto field = next;
      if (field == object.end() || field.key() != name) field = object.find(name);
      const bool is_there = field != object.end();
      append(builder_of(static_cast<int>(i)), part, is_there ? &*field : nullptr);
      if (is_there) next = std::next(field);
    }
  }

 private:
  void append_list(arrow::ListBuilder& builder, const ColumnType& element, const Value& value) {
    check(builder.Append());
    if (!value.is_array()) return append(*builder.value_builder(), element, &value);
    for (const Value& item : value) append(*builder.value_builder(), element, &item);
  }

  void append_object(arrow::StructBuilder& builder, const ColumnType& type, const Value& value) {
    check(builder.Append());
    append_fields([&](int i) -> arrow::ArrayBuilder& { return *builder.field_builder(i); }, type,
                  value);
  }

  void append_text(arrow::StringBuilder& builder, const Value& value) {
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    text_bytes += static_cast<std::int64_t>(text.size());
    check(builder.Append(text));
  }
};

std::shared_ptr<parquet::WriterProperties> writer_properties() {
  parquet::WriterProperties::Builder builder;
  const auto snappy = arrow::Compression::SNAPPY;
  if (arrow::util::Codec::IsAvailable(snappy)) builder.compression(snappy);
  return builder.build();
}

class ParquetWriter : public TableWriter {
 public:
  ParquetWriter(const std::string& path, const ColumnType& row, const TableNotes& notes)
      : row_(row) {
    arrow::FieldVector fields;
    for (const auto& [name, type] : row_.parts)
      fields.push_back(arrow::field(name, to_arrow(type)));
    const auto schema =
        arrow::schema(fields, arrow::key_value_metadata({notes.begin(), notes.end()}));
    file_ = check(arrow::io::FileOutputStream::Open(path));
    const auto arrow_properties = parquet::ArrowWriterProperties::Builder().store_schema()->build();
    writer_ = check(parquet::arrow::FileWriter::Open(*schema, arrow::system_memory_pool(), file_,
                                                     writer_properties(), arrow_properties));
    batch_ = check(arrow::RecordBatchBuilder::Make(schema, arrow::system_memory_pool()));
  }

  void add(const Value& row) override {
    appender_.append_fields([&](int i) -> arrow::ArrayBuilder& { return *batch_->GetField(i); },
                            row_, row);
    if (++rows_ >= kMostRows || appender_.text_bytes >= kMostTextBytes) flush();
  }

  void finish() override {
    flush();
    check(writer_->Close());
    check(file_->Close());
  }

 private:
  void flush() {
    if (rows_ == 0) return;
    const auto table = check(arrow::Table::FromRecordBatches({check(batch_->Flush())}));
    check(writer_->WriteTable(*table, kMostRows));
    rows_ = appender_.text_bytes = 0;
  }

  ColumnType row_;
  std::shared_ptr<arrow::io::FileOutputStream> file_;
  std::unique_ptr<parquet::arrow::FileWriter> writer_;
  std::unique_ptr<arrow::RecordBatchBuilder> batch_;
  Appender appender_;
  std::int64_t rows_ = 0;
};

std::unique_ptr<TableWriter> create_table(const std::string& path, const ColumnType& row,
                                          const TableNotes& notes) {
  return std::make_unique<ParquetWriter>(path, row, notes);
}

TableNotes read_table_notes(const std::string& path) {
  const auto file = check(arrow::io::ReadableFile::Open(path));
  const auto metadata = parquet::ParquetFileReader::Open(file)->metadata();
  TableNotes notes;
  if (const auto& texts = metadata->key_value_metadata()) {
    for (std::int64_t i = 0; i < texts->size(); ++i) notes[texts->key(i)] = texts->value(i);
  }
  return notes;
}

}  // namespace
}  // namespace vlm::data

extern "C" const vlm::data::TableWriting* vlm_table_writing() {
  static const vlm::data::TableWriting writing{&vlm::data::create_table,
                                               &vlm::data::read_table_notes};
  return &writing;
}
