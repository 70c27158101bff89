// Which files of a hub repository are fetched, and which names are safe to write.
//
//   names of the listing ─► check_file_names ─► is_text_file, weight_files ─► what is fetched
//
// Only what a checkpoint folder is made of, and only formats that hold data: safetensors, JSON and
// text. Pickles (.bin, .pt), code (.py) and other frameworks' weights stay on the server.
#pragma once

#include <string>
#include <vector>

namespace vlm {

// Throws Error for a name that could lead out of its folder, or that is no name: absolute, "..",
// a backslash, control characters, an empty or overlong part.
void check_file_name(const std::string& name, const std::string& where);

// JSON and text beside the weights: configs, tokenizer, chat templates, model card, licence.
bool is_text_file(const std::string& name);

// A text file without which the checkpoint is another one: all but model card and licence.
bool is_needed_file(const std::string& name);

// The files that hold the weights, of all names in a repository: model.safetensors, else none where
// there is an index (its shards count, see shard_names), else all safetensors at the top.
std::vector<std::string> weight_files(const std::vector<std::string>& names);

// The shards that a model.safetensors.index.json names, each once, sorted. `where` is for errors:
// no weight_map, or a shard that is no plain name.
std::vector<std::string> shard_names(const std::string& index_json, const std::string& where);

inline constexpr const char* kWeights = "model.safetensors";
inline constexpr const char* kWeightIndex = "model.safetensors.index.json";

}  // namespace vlm
