// Keys of GGUF files ⇄ the configs of a checkpoint folder.
//
//   keys of the text file, and of the one with the vision encoder ─► config.json,
//   generation_config.json, preprocessor_config.json, processor_config.json
//
// Architectures llama, qwen2 and qwen3; of vision encoders idefics3, which is SmolVLM's. The files
// don't say how pictures are cut and how clips are sampled, so that is as in the published models,
// unless the file is one of `vlm export`, which says it. Reference: convert_hf_to_gguf.py of
// llama.cpp, October 2026.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "vlm/io/gguf/gguf_header.h"
#include "vlm/models/smolvlm/smolvlm_config.h"

namespace vlm {

// A file of a checkpoint folder.
struct SideFile {
  std::string name, text;
};

// Everything but the tokenizer's; `vision` may be null. `factors`: what the tensor
// "rope_freqs.weight" holds; empty: there is none. Throws Error for an architecture or a setting
// that isn't supported, naming file and key.
std::vector<SideFile> make_gguf_configs(const GgufHeader& text, const GgufHeader* vision,
                                        const std::vector<float>& factors);

// Whether rows of q and k lie permuted in files of an architecture, which is called as the
// model_type of a decoder.
bool gguf_permutes(const std::string& architecture);

using GgufPairs = std::vector<std::pair<std::string, GgufValue>>;

// The other way. `where` names the config for what such a file can't say.
GgufPairs gguf_text_pairs(const DecoderConfig& config, const std::string& where);
GgufPairs gguf_vision_pairs(const SmolVlmConfig& config, std::int64_t longest_edge);
std::vector<float> gguf_frequency_factors(const DecoderConfig& config);

// Keys of files of `vlm export` alone that hold a side file as it was: "vlm." and its name.
const std::vector<std::string>& gguf_kept_files();

}  // namespace vlm
