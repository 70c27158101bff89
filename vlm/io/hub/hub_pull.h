// Models and data sets by name: from the local Hugging Face cache, or from a hub into it.
//
//   org/name@revision ─► listing ─► blobs, verified ─► snapshots/<commit>/… ─► refs/<revision>
//
// Links appear after all blobs are there, config.json last; the ref is moved at the very end. So a
// pull that was killed leaves no snapshot that looks whole, and the next one goes on with the bytes
// that are there. Any number of processes may pull the same model.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "vlm/io/hub/dataset_card.h"
#include "vlm/io/hub/hub_cache.h"
#include "vlm/io/hub/hub_options.h"

namespace vlm {

// Fetches what `model` ("org/name[@revision]") lacks in the cache and returns its snapshot folder.
// Asks the hub for the revision's commit each time. Throws Error: no such name, no access, no
// connection, wrong bytes, a full disk, a stop requested.
std::filesystem::path pull_model(const std::string& model, const HubOptions& options);

// The folder of a model for loading: a path; a snapshot in the cache, when it is whole; else it is
// pulled, unless HF_HUB_OFFLINE is set. A whole snapshot is taken without asking the hub, so it may
// be older than the branch; pull_model brings it up to date.
std::filesystem::path find_or_pull_model(const std::string& model);

// A data set's snapshot folder, and those of its files in there that were asked for.
struct HubDataset {
  std::filesystem::path folder;
  std::vector<std::string> files;  // names below the folder, sorted
};

// Fetches what the cache lacks of the files of one config and split (dataset_card.h). Asks the hub
// for the revision's commit each time. Throws Error as pull_model, and for a config or split that
// the data set doesn't have.
HubDataset pull_dataset(const HubName& name, const DatasetChoice& choice,
                        const HubOptions& options);

// The files of a data set for reading: as pull_dataset. With HF_HUB_OFFLINE, or with a warning when
// the hub gives no answer, what the cache has is taken as it is; then shards that its names promise
// must be there. A file without such a name that was never pulled is not missed.
HubDataset find_or_pull_dataset(const HubName& name, const DatasetChoice& choice,
                                const HubOptions& options);

}  // namespace vlm
