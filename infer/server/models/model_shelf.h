// The models that are served by their names, and which of them are in memory.
//
//   ModelSource ─► ModelShelf: the base, loaded; adapters by name
//   open("name") ─► a lease, at once or when the adapter has been loaded
//
// An adapter is loaded when it is first asked for, in a thread of the shelf. At most so many copies
// are in memory: for one more the one that was used longest ago leaves, as soon as nobody uses it;
// until then those who wait for the new one wait, in order. One that is replaced serves those who
// have it to their end. All copies share one turn at the processor (EngineTurns). Thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "infer/engine/worker_pool.h"
#include "infer/server/api/api_error.h"
#include "infer/server/models/served_model.h"
#include "infer/server/models/tuned_folder.h"
#include "vlm/models/picture_cache.h"

namespace vlm::infer {

struct AdapterSource {
  std::string name, path;
  bool is_run = false;  // `path` is a fine-tuning's output: its newest checkpoint is served
};

struct ModelSource {
  ModelChoice choice;
  std::vector<std::string> names;  // the first is its id; empty: by the model's name
  std::vector<AdapterSource> adapters;
  std::int64_t max_adapters = 4;  // in memory
  FeatureCacheChoice features;    // on disk
};

// While somebody has it, the model stays as it is.
using ModelLease = std::shared_ptr<ServedModel>;

struct OpenedModel {
  ModelLease model = nullptr;  // null: there is an error
  std::optional<ApiError> error = {};
};

struct ListedModel {
  std::string name, root, parent;
  std::int64_t created = 0;
};

struct ShelfStats {
  EngineStats engines;  // of all, those that left included
  std::size_t grammar_bytes = 0;
  struct Loaded {
    std::string id, fingerprint, dtype, device;
  };
  std::vector<Loaded> loaded;                         // the base first
  std::int64_t adapters = 0, waiting = 0, loads = 0;  // in memory; to be loaded; so far
};

class ModelShelf {
 public:
  // Loads the base. Throws Error for what can't be loaded, a folder that is no adapter, and a name
  // that is given twice.
  ModelShelf(ModelSource source, RuntimeOptions runtime, EngineOptions engine, ApiLimits limits);
  ~ModelShelf();
  ModelShelf(const ModelShelf&) = delete;
  ModelShelf& operator=(const ModelShelf&) = delete;

  using Opened = std::function<void(OpenedModel)>;

  ServedModel& base() const { return *base_; }
  // By a name of the base ("" is one), or an adapter's. Null: it is being loaded, and `later` is
  // called in the shelf's thread. Throws ApiError for a name that nobody has.
  ModelLease open(const std::string& name, Opened later);
  // Loads an adapter under a new name, or in the place of one; `later` tells how that went. One
  // that can't be loaded changes nothing.
  void add(const std::string& name, const std::string& path, Opened later);
  // Those who have it keep it. Throws ApiError for a name that no adapter has.
  void remove(const std::string& name);

  std::vector<ListedModel> list() const;
  // Throws ApiError for a name that nobody has.
  ListedModel find(const std::string& name) const;
  ShelfStats stats() const;
  // New requests are refused; those that wait fail, those that run have `most_s` seconds.
  void drain(double most_s);

 private:
  // A copy in memory.
  struct Copy {
    std::unique_ptr<ServedModel> model;
    std::int64_t users = 0;
    std::uint64_t last_use = 0;
    bool is_leaving = false;  // nobody else gets it
  };
  using CopyPtr = std::shared_ptr<Copy>;
  struct Waiter {
    Opened tell;
    bool is_offer = false;  // it wants what was offered, nothing else
  };
  // An adapter by its name.
  struct Entry {
    AdapterSource source;
    std::int64_t created = 0;
    bool is_listed = false;              // it has been there; else it was only offered
    std::optional<std::string> offered;  // a path that is to take its place
    CopyPtr copy = nullptr;              // null: not in memory
    std::string stamp, bad_stamp;        // of the copy; of the newest that couldn't be loaded
    std::vector<Waiter> waiters;
    bool is_queued = false;
  };
  using EntryPtr = std::shared_ptr<Entry>;

  bool is_base(const std::string& name) const;
  ListedModel base_as(const std::string& name) const;
  ListedModel listed(const Entry& entry) const;
  ApiError not_found(const std::string& name) const;
  EntryPtr find_entry(const std::string& name) const;
  bool is_current(const Entry& entry) const;
  ModelLease lease(const CopyPtr& copy);
  void give_back(const CopyPtr& copy);
  void queue(const EntryPtr& entry);
  void work();
  void sweep();
  bool has_room(const Entry& entry) const;
  bool make_room(const Entry& entry);
  // What came of loading a copy.
  struct Loaded {
    CopyPtr copy = nullptr;
    std::string stamp = {};
    bool is_there = false;       // the copy that there is is the one that is wanted
    std::string bad_stamp = {};  // of the newest, when it can't be loaded
    std::optional<ApiError> failure = {};
  };
  void load(const EntryPtr& entry);
  Loaded find_and_open(const AdapterSource& source, const std::string& stamp_there) const;
  Loaded open_first(const std::string& name, const std::vector<TunedFolder>& folders,
                    const std::string& stamp_there) const;
  CopyPtr open_copy(const std::string& name, const TunedFolder& tuned) const;
  bool put_up(Entry& entry, const AdapterSource& source, Loaded& loaded);

  const ModelSource source_;
  const RuntimeOptions runtime_;
  EngineOptions engine_;
  const ApiLimits limits_;
  std::string id_;
  std::vector<std::string> aliases_;
  std::int64_t created_ = 0;
  std::unique_ptr<ServedModel> base_;

  mutable std::mutex mutex_;  // of all below but the pool
  std::map<std::string, EntryPtr> entries_;
  std::vector<CopyPtr> copies_;  // all that are in memory
  std::deque<EntryPtr> queue_;   // to be loaded
  EngineStats left_;             // counts of copies that left
  std::uint64_t uses_ = 0;
  std::int64_t loads_ = 0;
  bool is_draining_ = false;
  WorkerPool loader_{1};
};

}  // namespace vlm::infer
