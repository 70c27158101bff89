// Tar shards in WebDataset's layout: an entry a sample, its pictures read from the archive in
// place.
//
// Members that follow each other and share the name up to the first dot are one sample:
// 0001.jpg, 0001.json, 0001.txt. Pictures (also several: 0001.left.jpg) are the entry's in their
// order; the fields of .json are columns, its "question", "prompt" or "messages" what is asked;
// .txt and .cls are columns of that name; other members are passed over. The id and the path are
// the archive's path with the sample's name behind it.
//
// Opening reads every header once (contents are jumped over), after which pictures are read in any
// order by several threads. Reads ustar, GNU and pax archives through libarchive.
#pragma once

#include <memory>
#include <string>

#include "infer/items/entry_source.h"
#include "infer/items/jsonl_source.h"

namespace vlm::infer {

// Throws Error for what is no plain tar, for a truncated one, and for one without pictures.
std::unique_ptr<EntrySource> open_tar_source(const std::string& path, IdCheck& ids);

}  // namespace vlm::infer
