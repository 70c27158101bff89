#include "vlm/text/sentencepiece_file.h"

#include <algorithm>
#include <cstring>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

// Numbers of fields.
enum : std::uint32_t { kPieces = 1, kTrainer = 2, kNormalizer = 3 };  // of the file
enum : std::uint32_t { kText = 1, kScore = 2, kKind = 3 };            // of a piece
enum : std::uint32_t { kAlgorithm = 3, kByteFallback = 35 };          // of the trainer
enum : std::uint32_t { kUnknownPiece = 45, kBosPiece = 46, kEosPiece = 47 };
enum : std::uint32_t { kRules = 2, kDummyPrefix = 3, kExtraWhitespaces = 4 };  // of the normalizer
constexpr std::uint64_t kBpe = 2;

// How a field lies in the bytes.
enum Wire : std::uint32_t { kVarint = 0, kEightBytes = 1, kCounted = 2, kFourBytes = 5 };

struct Field {
  std::uint32_t number = 0;
  Wire wire = kVarint;
  std::uint64_t value = 0;  // of a varint, or the bits of four or eight bytes
  std::string_view bytes;   // what is counted
};

// Goes through the fields of a message.
class Fields {
 public:
  Fields(std::string_view bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  bool next(Field& field) {
    if (bytes_.empty()) return false;
    const std::uint64_t tag = take_varint();
    field = {.number = static_cast<std::uint32_t>(tag >> 3), .wire = static_cast<Wire>(tag & 7)};
    switch (field.wire) {
      case kVarint:
        field.value = take_varint();
        return true;
      case kCounted:
        field.bytes = take(take_varint());
        return true;
      case kFourBytes:
      case kEightBytes: {
        const std::string_view raw = take(field.wire == kFourBytes ? 4 : 8);
        std::memcpy(&field.value, raw.data(), raw.size());
        return true;
      }
    }
    refuse();
  }

 private:
  std::uint64_t take_varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<std::uint8_t>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 0x7FU) << shift;
      if (byte < 0x80) return value;
    }
    refuse();
  }

  std::string_view take(std::uint64_t count) {
    if (count > bytes_.size()) refuse();
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }

  [[noreturn]] void refuse() const {
    throw Error({.what = "not a sentencepiece model", .where = where_});
  }

  std::string_view bytes_;
  const std::string& where_;
};

SentencePiece parse_piece(std::string_view bytes, const std::string& where) {
  SentencePiece piece;
  Fields fields(bytes, where);
  for (Field field; fields.next(field);) {
    if (field.number == kText) piece.text = field.bytes;
    if (field.number == kScore) std::memcpy(&piece.score, &field.value, sizeof piece.score);
    if (field.number == kKind) piece.kind = static_cast<PieceKind>(field.value);
  }
  return piece;
}

void append_varint(std::string& to, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) to += static_cast<char>(value | 0x80);
  to += static_cast<char>(value);
}

void append_number(std::string& to, std::uint32_t number, std::uint64_t value) {
  append_varint(to, number << 3 | kVarint);
  append_varint(to, value);
}

void append_bytes(std::string& to, std::uint32_t number, std::string_view bytes) {
  append_varint(to, number << 3 | kCounted);
  append_varint(to, bytes.size());
  to += bytes;
}

void append_piece(std::string& to, const SentencePiece& piece) {
  std::string bytes;
  append_bytes(bytes, kText, piece.text);
  append_varint(bytes, kScore << 3 | kFourBytes);
  bytes.append(reinterpret_cast<const char*>(&piece.score), sizeof piece.score);
  append_number(bytes, kKind, static_cast<std::uint64_t>(piece.kind));
  append_bytes(to, kPieces, bytes);
}

}  // namespace

SentencepieceFile parse_sentencepiece(std::string_view bytes, const std::string& where) {
  SentencepieceFile file;
  Fields fields(bytes, where);
  for (Field field; fields.next(field);) {
    if (field.number == kPieces) file.pieces.push_back(parse_piece(field.bytes, where));
    if (field.number != kTrainer && field.number != kNormalizer) continue;
    Fields settings(field.bytes, where);
    for (Field one; settings.next(one);) {
      if (field.number == kTrainer) {
        if (one.number == kAlgorithm) file.is_bpe = one.value == kBpe;
        if (one.number == kUnknownPiece) file.unknown = one.bytes;
        if (one.number == kBosPiece) file.bos = one.bytes;
        if (one.number == kEosPiece) file.eos = one.bytes;
      } else {
        if (one.number == kRules) file.has_rules = !one.bytes.empty();
        if (one.number == kDummyPrefix) file.adds_dummy_prefix = one.value != 0;
        if (one.number == kExtraWhitespaces) file.removes_extra_whitespaces = one.value != 0;
      }
    }
  }
  return file;
}

std::string write_sentencepiece(const SentencepieceFile& file) {
  std::string bytes, trainer, normalizer;
  for (const SentencePiece& piece : file.pieces) append_piece(bytes, piece);
  const bool has_bytes =
      std::ranges::count(file.pieces, PieceKind::kByte, &SentencePiece::kind) > 0;
  append_number(trainer, kAlgorithm, file.is_bpe ? kBpe : 1);
  append_number(trainer, kByteFallback, has_bytes ? 1 : 0);
  append_bytes(trainer, kUnknownPiece, file.unknown);
  append_bytes(trainer, kBosPiece, file.bos);
  append_bytes(trainer, kEosPiece, file.eos);
  append_bytes(bytes, kTrainer, trainer);
  append_number(normalizer, kDummyPrefix, file.adds_dummy_prefix ? 1 : 0);
  append_number(normalizer, kExtraWhitespaces, file.removes_extra_whitespaces ? 1 : 0);
  append_bytes(bytes, kNormalizer, normalizer);
  return bytes;
}

}  // namespace vlm
