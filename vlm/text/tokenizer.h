// Text ⇄ token ids, whichever file a checkpoint brings.
//
//   text (UTF-8) ─► encode ─► ids [T]      ids [T] ─► decode ─► text (UTF-8)
//
// Two backends: byte-level BPE of tokenizer.json (bpe_tokenizer.h), or of vocab.json and merges.txt
// (vocabulary_files.h), and sentencepiece tokenizer.model (sentencepiece_tokenizer.h). Both give
// the ids and the text of the Python packages `tokenizers` and `sentencepiece`. A Tokenizer is
// immutable after loading and safe to use from several threads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vlm {

// The text of ids that come one by one; made by Tokenizer::start_decoding.
class DecodeStream {
 public:
  virtual ~DecodeStream() = default;

  // Text that `id` completes; empty while a character is incomplete.
  virtual std::string add(std::int64_t id) = 0;

  // The text that was held back (an incomplete character comes out as U+FFFD).
  virtual std::string finish() = 0;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Ids of `text`. Special tokens that stand in the text become their single ids. With
  // `add_special_tokens`, what the file's post-processor adds (a BOS, say) is added. Bytes that are
  // not UTF-8 are read as U+FFFD.
  virtual std::vector<std::int64_t> encode(std::string_view text,
                                           bool add_special_tokens = false) const = 0;

  // Decodes a list of ids piece by piece. The tokenizer must outlive the stream.
  virtual std::unique_ptr<DecodeStream> start_decoding(bool skip_special_tokens) const = 0;

  // Text of `ids`; unknown ids are skipped. Bytes that don't form UTF-8 become U+FFFD.
  std::string decode(std::span<const std::int64_t> ids, bool skip_special_tokens) const;

  virtual std::optional<std::int64_t> token_to_id(std::string_view token) const = 0;
  virtual std::optional<std::string> id_to_token(std::int64_t id) const = 0;

  // The bytes that a token adds to a text that it doesn't begin: " a", or half a character. Empty
  // for special tokens and unknown ids. Throws Error where a token alone doesn't tell.
  virtual std::string token_bytes(std::int64_t id) const = 0;

  // Number of ids, added tokens included.
  virtual std::int64_t vocab_size() const = 0;
};

// Reads tokenizer.json from a checkpoint folder or, if there is none, tokenizer.model or else
// vocab.json with merges.txt.
// Throws Error naming the file and the component that is not supported.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& folder);

// Decodes a growing list of ids piece by piece and never cuts a character in two. The pieces joined
// are decode() of all ids; the cost of an id doesn't grow with their number.
class StreamDecoder {
 public:
  StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
      : stream_(tokenizer.start_decoding(skip_special_tokens)) {}

  // As DecodeStream's.
  std::string add(std::int64_t id) { return stream_->add(id); }
  std::string finish() { return stream_->finish(); }

 private:
  std::unique_ptr<DecodeStream> stream_;
};

}  // namespace vlm
