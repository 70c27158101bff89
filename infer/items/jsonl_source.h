// JSONL files of own rows, and OpenAI batch files: an entry a line.
//
// A row is {"id" or "custom_id", "image" or "images", "video" or "videos", "question" or "prompt",
// …}, all optional but one of media and question, or has Hugging Face "messages" (messages.h) in
// place of the question. Pictures are paths relative to the file, data URIs or objects with one of
// these (data/conversations/conversation_builder.h); videos are paths. They are shown in the order
// of the fields. Other fields are columns; of these "context", "hint", "input", "choices",
// "options" and "system" belong to a row's own question, as in training
// (data/conversations/question.h). A row with "custom_id" and "body" is a request of OpenAI's batch
// format (openai_request.h). Fields that are null are as if they weren't there. Rows without an id
// are called by file and line. The file isn't held in memory; lines are parsed once when it is
// opened and again when they are asked for.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "infer/items/entry_source.h"

namespace vlm::infer {

// Finds ids that are given twice, over all files of a run.
class IdCheck {
 public:
  void add(const std::string& id, const std::string& file, std::int64_t line);
  // Throws Error naming both places.
  void check();

 private:
  struct Place {
    std::uint64_t digest;
    std::uint32_t file, line;
  };
  std::vector<std::string> files_;
  std::vector<Place> places_;
};

// The entry of a row whose media are known: what it asks, and all other fields as columns. Paths
// in "messages" are relative to the working folder. Throws Error for fields of the wrong type.
Entry parse_sample_row(const OrderedJson& row, std::vector<MediaRef> media);

// A line that is no JSON object is an error of its own row. Throws Error when all lines are.
std::unique_ptr<EntrySource> open_jsonl_source(const std::string& path, IdCheck& ids);

}  // namespace vlm::infer
