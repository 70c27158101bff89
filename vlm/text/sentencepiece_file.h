// What a sentencepiece model file (tokenizer.model) says: pieces, and how text is prepared.
//
//   bytes of the file ⇄ SentencepieceFile
//
// A protocol buffer; fields that aren't named here are passed over, and are not written. Reference:
// sentencepiece_model.proto of sentencepiece 0.2.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vlm {

// The numbers are the files'.
enum class PieceKind : std::uint32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct SentencePiece {
  std::string text;
  float score = 0;
  PieceKind kind = PieceKind::kNormal;
};

struct SentencepieceFile {
  std::vector<SentencePiece> pieces;  // by id
  bool is_bpe = false;                // else unigram, words or characters
  std::string bos = "<s>", eos = "</s>", unknown = "<unk>";
  bool has_rules = false;  // changes texts before it cuts them; can't be written
  bool adds_dummy_prefix = true, removes_extra_whitespaces = true;
};

// Throws Error naming `where` for bytes that are no such file.
SentencepieceFile parse_sentencepiece(std::string_view bytes, const std::string& where);

std::string write_sentencepiece(const SentencepieceFile& file);

}  // namespace vlm
