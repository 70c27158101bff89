// Weights of the GGUF files that a folder names, under Hugging Face's keys.
//
//   folder ─► GgufWeights ─► key → numbers, or what multiplies without making numbers of it
//
// Rows of q and k are put back from the order of llama.cpp. Matrices in Q4_0 and IQ4_NL stay in
// their codes (4 bits), all other blocks become 8 bits with a scale a row; both are for models that
// are only run, others take numbers. A fused attn_qkv is taken apart.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "vlm/io/gguf/gguf_file.h"
#include "vlm/models/parts/coded_tensors.h"
#include "vlm/nn/cpu/int4/int4_weight.h"

namespace vlm {

// Names of the links to the files in a folder of gguf_folder.h.
inline constexpr const char* kGgufText = "model.gguf";
inline constexpr const char* kGgufVision = "mmproj.gguf";

class GgufWeights : public CodedTensors {
 public:
  // Opens the links of a folder. Throws Error.
  explicit GgufWeights(const std::filesystem::path& folder);

  const std::filesystem::path& place() const override { return text_->path(); }
  std::vector<std::filesystem::path> paths() const override;
  std::vector<std::string> keys() const override;
  const TensorEntry& entry(const std::string& key) const override;
  at::Tensor tensor(const std::string& key) const override;
  bool is_decoded(const std::string& key) const override;
  std::string stored_as(const std::string& key) const override;
  std::string format(const std::string& key) const override;
  std::shared_ptr<const StoredWeight> stored(const std::string& key) const override;

 private:
  // Rows of a tensor, [first, first + rows); rows of each head lie in llama.cpp's order if `heads`
  // isn't 0.
  struct Piece {
    const GgufFile* file;
    std::string name;
    std::int64_t first = 0, rows = 0, heads = 0;
    TensorEntry entry;

    std::int64_t row_in_file(std::int64_t row) const;
  };

  void add_text();
  void add_vision();
  void add(const std::string& key, Piece piece);
  void add_fused(const std::string& name, const std::string& prefix);
  const Piece& find(const std::string& key) const;
  // Rows of a matrix of blocks as numbers, [count, in] float32.
  static at::Tensor widen_rows(const Piece& piece, std::int64_t begin, std::int64_t count);
  static std::shared_ptr<const StoredWeight> store_rows(const Piece& piece);
  static std::shared_ptr<const StoredWeight> store_groups(const Piece& piece,
                                                          const Int4Levels& levels);

  std::unique_ptr<GgufFile> text_, vision_;
  std::map<std::string, Piece> pieces_;
};

}  // namespace vlm
