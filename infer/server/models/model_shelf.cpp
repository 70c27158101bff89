#include "infer/server/models/model_shelf.h"

#include <c10/core/ScalarType.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <future>
#include <ranges>
#include <set>
#include <utility>

#include "vlm/core/concat.h"
#include "vlm/core/log.h"
#include "vlm/io/error_text.h"

namespace vlm::infer {
namespace {

constexpr std::size_t kMostAdapters = 1000;  // names

// "org/name" as it is, a folder by its last part.
std::string name_of_model(const std::string& model) {
  if (!std::filesystem::is_directory(model)) return model;
  return std::filesystem::weakly_canonical(model).filename().string();
}

void add_counts(EngineStats& sum, const EngineStats& one) {
  sum.media_hits += one.media_hits;
  sum.media_misses += one.media_misses;
  sum.prefix_hits += one.prefix_hits;
  sum.prefix_queries += one.prefix_queries;
  sum.encoded_units += one.encoded_units;
}

void add_all(EngineStats& sum, const EngineStats& one) {
  add_counts(sum, one);
  sum.running += one.running;
  sum.waiting += one.waiting;
  sum.cache_bytes += one.cache_bytes;
  sum.kept_media_bytes += one.kept_media_bytes;
}

ApiError unusable(const std::string& name) {
  return ApiError({.code = "invalid_adapter", .param = "model"},
                  {.what = "the adapter can't be loaded",
                   .got = concat("'", shown(name), "'"),
                   .hint = "the server's log says why"});
}

ApiError nothing_yet(const std::string& name) {
  ApiError error({.status = 503, .code = "model_loading"},
                 {.what = "the training has no checkpoint yet", .got = concat("'", name, "'")});
  error.retry_after_s = 10;
  return error;
}

}  // namespace

ModelShelf::ModelShelf(ModelSource source, RuntimeOptions runtime, EngineOptions engine,
                       ApiLimits limits)
    : source_(std::move(source)),
      runtime_(std::move(runtime)),
      engine_(std::move(engine)),
      limits_(std::move(limits)),
      id_(source_.names.empty() ? name_of_model(source_.choice.model) : source_.names[0]),
      created_(std::time(nullptr)) {
  if (source_.names.size() > 1) aliases_.assign(source_.names.begin() + 1, source_.names.end());
  for (const AdapterSource& adapter : source_.adapters) {
    const auto entry =
        std::make_shared<Entry>(Entry{.source = adapter, .created = created_, .is_listed = true});
    if (is_base(adapter.name) || !entries_.emplace(adapter.name, entry).second) {
      throw Error({.what = "two models of one name",
                   .where = adapter.is_run ? "--watch" : "--lora-modules",
                   .got = adapter.name});
    }
    if (!adapter.is_run) find_tuned(adapter.path);
  }
  engine_.turns = std::make_shared<EngineTurns>(engine_.max_running);
  Session session = open_session(source_.choice, runtime_);
  session.generator->set_feature_cache(open_feature_cache(source_.features, *session.model));
  base_ = std::make_unique<ServedModel>(id_, "", std::move(session), engine_, limits_);
}

ModelShelf::~ModelShelf() {
  drain(0);
  loader_.stop();
}

bool ModelShelf::is_base(const std::string& name) const {
  return name.empty() || name == id_ || std::ranges::find(aliases_, name) != aliases_.end();
}

ListedModel ModelShelf::base_as(const std::string& name) const {
  return {.name = name, .root = id_, .created = created_};
}

ListedModel ModelShelf::listed(const Entry& entry) const {
  const std::string& name = entry.source.name;
  return {.name = name, .root = name, .parent = id_, .created = entry.created};
}

std::vector<ListedModel> ModelShelf::list() const {
  const std::lock_guard lock(mutex_);
  std::vector<ListedModel> models = {base_as(id_)};
  for (const std::string& alias : aliases_) models.push_back(base_as(alias));
  for (const auto& [name, entry] : entries_) {
    if (entry->is_listed) models.push_back(listed(*entry));
  }
  return models;
}

ApiError ModelShelf::not_found(const std::string& name) const {
  constexpr std::size_t kMostShown = 20;
  std::vector<std::string> names = {id_};
  for (const auto& [other, entry] : entries_) {
    if (entry->is_listed && names.size() < kMostShown) names.push_back(other);
  }
  return ApiError(
      {.status = 404, .code = "model_not_found", .param = "model"},
      {.what = "no such model", .got = concat("'", shown(name), "'"), .wanted = join(names, ", ")});
}

ModelShelf::EntryPtr ModelShelf::find_entry(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end() || !found->second->is_listed) throw not_found(name);
  return found->second;
}

ListedModel ModelShelf::find(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  return is_base(name) ? base_as(name) : listed(*find_entry(name));
}

ShelfStats ModelShelf::stats() const {
  const std::lock_guard lock(mutex_);
  ShelfStats stats{.engines = left_,
                   .adapters = std::ssize(copies_),
                   .waiting = std::ssize(queue_),
                   .loads = loads_};
  std::set<const RuleCompiler*> rules;
  const auto add = [&](ServedModel& model) {
    add_all(stats.engines, model.engine().stats());
    const VisionLanguageModel& weights = *model.session().model;
    stats.loaded.push_back({.id = model.id(),
                            .fingerprint = model.fingerprint(),
                            .dtype = c10::toString(weights.product_dtype),
                            .device = weights.device().str()});
    const RuleCompiler* compiler = model.session().rules.get();
    if (rules.insert(compiler).second) stats.grammar_bytes += compiler->cached_bytes();
  };
  add(*base_);
  for (const CopyPtr& copy : copies_) add(*copy->model);
  return stats;
}

// Of a run it is the newest checkpoint, or the one before where that is no good.
bool ModelShelf::is_current(const Entry& entry) const {
  if (!entry.copy || entry.offered) return false;
  if (!entry.source.is_run) return true;
  const auto checkpoints = list_checkpoints(entry.source.path);
  return checkpoints.empty() || checkpoints[0].stamp == entry.stamp ||
         checkpoints[0].stamp == entry.bad_stamp;
}

ModelLease ModelShelf::lease(const CopyPtr& copy) {
  ++copy->users;
  copy->last_use = ++uses_;
  return {copy->model.get(), [this, copy](ServedModel*) { give_back(copy); }};
}

// In any thread, its own engine's too, so the copy is destroyed elsewhere.
void ModelShelf::give_back(const CopyPtr& copy) {
  const std::lock_guard lock(mutex_);
  if (--copy->users == 0 && copy->is_leaving) loader_.post([this] { work(); });
}

ModelLease ModelShelf::open(const std::string& name, Opened later) {
  if (is_base(name)) return {base_.get(), [](ServedModel*) {}};
  const std::lock_guard lock(mutex_);
  const EntryPtr entry = find_entry(name);
  if (is_draining_) throw shutting_down();
  if (is_current(*entry)) return lease(entry->copy);
  entry->waiters.push_back({.tell = std::move(later)});
  queue(entry);
  return nullptr;
}

void ModelShelf::add(const std::string& name, const std::string& path, Opened later) {
  if (is_base(name)) {
    throw ApiError({.param = "lora_name"},
                   {.what = "the base model has this name", .got = concat("'", shown(name), "'")});
  }
  const std::lock_guard lock(mutex_);
  if (is_draining_) throw shutting_down();
  if (!entries_.contains(name) && entries_.size() >= kMostAdapters) {
    throw ApiError({.param = "lora_name"}, {.what = "too many adapters",
                                            .wanted = concat("at most ", kMostAdapters),
                                            .hint = "unload_lora_adapter takes one away"});
  }
  EntryPtr& entry = entries_[name];
  if (!entry) {
    entry = std::make_shared<Entry>(
        Entry{.source = {.name = name, .path = path}, .created = std::time(nullptr)});
  }
  entry->offered = path;
  entry->waiters.push_back({.tell = std::move(later), .is_offer = true});
  queue(entry);
}

void ModelShelf::remove(const std::string& name) {
  const std::lock_guard lock(mutex_);
  const EntryPtr entry = find_entry(name);
  if (entry->copy) entry->copy->is_leaving = true;
  entry->copy = nullptr;
  entries_.erase(name);
  loader_.post([this] { work(); });
}

void ModelShelf::queue(const EntryPtr& entry) {
  if (std::exchange(entry->is_queued, true)) return;
  queue_.push_back(entry);
  if (!has_room(*entry)) make_room(*entry);  // from now on nobody else gets what is to leave
  loader_.post([this] { work(); });
}

void ModelShelf::drain(double most_s) {
  std::vector<ModelLease> models = {{base_.get(), [](ServedModel*) {}}};
  std::vector<Waiter> waiters;
  {
    const std::lock_guard lock(mutex_);
    is_draining_ = true;
    for (const CopyPtr& copy : copies_) models.push_back(lease(copy));
    for (const EntryPtr& entry : queue_) {
      entry->is_queued = false;
      std::ranges::move(std::exchange(entry->waiters, {}), std::back_inserter(waiters));
    }
    queue_.clear();
  }
  for (const Waiter& waiter : waiters) waiter.tell({.error = shutting_down()});
  std::vector<std::future<void>> ends;
  for (const ModelLease& model : models) {
    ends.push_back(
        std::async(std::launch::async, [&model, most_s] { model->engine().drain(most_s); }));
  }
  for (auto& end : ends) end.get();
}

// In the loader's thread: what nobody uses any more goes, then what is waited for is loaded, in
// order.
void ModelShelf::work() {
  for (;;) {
    sweep();
    EntryPtr entry;
    {
      const std::lock_guard lock(mutex_);
      if (queue_.empty()) return;
      entry = queue_.front();
      if (!is_current(*entry) && !has_room(*entry)) {
        if (!make_room(*entry)) return;  // until one that leaves is given back
        continue;
      }
      queue_.pop_front();
      entry->is_queued = false;
    }
    load(entry);
  }
}

void ModelShelf::sweep() {
  std::vector<CopyPtr> gone;
  {
    const std::lock_guard lock(mutex_);
    const auto is_gone = [](const CopyPtr& copy) { return copy->is_leaving && copy->users == 0; };
    std::ranges::copy_if(copies_, std::back_inserter(gone), is_gone);
    for (const CopyPtr& copy : gone) add_counts(left_, copy->model->engine().stats());
    std::erase_if(copies_, is_gone);
  }
  for (const CopyPtr& copy : gone) copy->model.reset();
}

// While one is replaced both are in memory.
bool ModelShelf::has_room(const Entry& entry) const {
  return std::ssize(copies_) < source_.max_adapters + (entry.copy ? 1 : 0);
}

// Has the copy leave that was used longest ago, of those that nobody uses where there is one. True:
// it can go at once.
bool ModelShelf::make_room(const Entry& entry) {
  const auto staying =
      std::ranges::count_if(copies_, [](const CopyPtr& copy) { return !copy->is_leaving; });
  if (staying < source_.max_adapters + (entry.copy ? 1 : 0)) return false;
  Entry* oldest = nullptr;
  const auto rank = [](const Entry& one) {
    return std::pair(one.copy->users > 0, one.copy->last_use);
  };
  for (const auto& [name, one] : entries_) {
    if (one->copy && (!oldest || rank(*one) < rank(*oldest))) oldest = one.get();
  }
  if (!oldest) return false;
  const CopyPtr copy = std::exchange(oldest->copy, nullptr);
  copy->is_leaving = true;
  return copy->users == 0;
}

ModelShelf::CopyPtr ModelShelf::open_copy(const std::string& name, const TunedFolder& tuned) const {
  ModelChoice choice = source_.choice;
  (tuned.is_whole ? choice.model : choice.adapter) = tuned.path.string();
  Session session = open_session(choice, runtime_, tuned.is_whole ? nullptr : &base_->session());
  session.generator->set_feature_cache(open_feature_cache(source_.features, *session.model));
  auto copy = std::make_shared<Copy>();
  copy->model = std::make_unique<ServedModel>(name, id_, std::move(session), engine_, limits_);
  log_info(concat(tuned.path.string(), " is served as ", name));
  return copy;
}

// The first of these that can be loaded, unless it is the one that is there.
ModelShelf::Loaded ModelShelf::open_first(const std::string& name,
                                          const std::vector<TunedFolder>& folders,
                                          const std::string& stamp_there) const {
  Loaded loaded;
  if (folders.empty()) loaded.failure = nothing_yet(name);
  for (const TunedFolder& folder : folders) {
    loaded.is_there = !stamp_there.empty() && folder.stamp == stamp_there;
    if (loaded.is_there) return loaded;
    try {
      loaded.copy = open_copy(name, folder);
      loaded.stamp = folder.stamp;
      return loaded;
    } catch (const std::exception& error) {
      log_warning(
          concat(folder.path.string(), " can't be served as ", name, ": ", error_text(error)));
      if (&folder == &folders.front()) loaded.bad_stamp = folder.stamp;
    }
  }
  return loaded;
}

ModelShelf::Loaded ModelShelf::find_and_open(const AdapterSource& source,
                                             const std::string& stamp_there) const {
  try {
    const auto folders =
        source.is_run ? list_checkpoints(source.path) : std::vector{find_tuned(source.path)};
    return open_first(source.name, folders, stamp_there);
  } catch (const std::exception& error) {
    log_warning(concat(source.name, " can't be served: ", error_text(error)));
    return {};
  }
}

void ModelShelf::load(const EntryPtr& entry) {
  std::vector<Waiter> waiters;
  AdapterSource source;
  std::string stamp_there;
  bool is_offered = false;
  {
    const std::lock_guard lock(mutex_);
    waiters = std::exchange(entry->waiters, {});
    source = entry->source;
    is_offered = entry->offered.has_value();
    if (is_offered) source = {.name = source.name, .path = *entry->offered};
    entry->offered.reset();
    if (entry->copy) stamp_there = entry->stamp;
  }
  Loaded loaded = find_and_open(source, stamp_there);
  std::vector<std::pair<Opened, OpenedModel>> answers;
  {
    const std::lock_guard lock(mutex_);
    const bool is_good = put_up(*entry, source, loaded);
    for (Waiter& waiter : waiters) {
      const bool is_refused = waiter.is_offer && !is_good;
      if (entry->copy && !is_refused) {
        answers.emplace_back(std::move(waiter.tell), OpenedModel{.model = lease(entry->copy)});
      } else if (is_offered && !waiter.is_offer && entry->is_listed && !is_draining_) {
        entry->waiters.push_back(std::move(waiter));  // for what the name has meant so far
        queue(entry);
      } else {
        answers.emplace_back(std::move(waiter.tell), OpenedModel{.error = loaded.failure});
      }
    }
  }
  for (auto& [tell, answer] : answers) tell(std::move(answer));
}

// What was loaded takes the entry's place. False: the entry stays as it was.
bool ModelShelf::put_up(Entry& entry, const AdapterSource& source, Loaded& loaded) {
  const auto found = entries_.find(source.name);
  const bool is_wanted = found != entries_.end() && found->second.get() == &entry;
  if (!loaded.bad_stamp.empty()) entry.bad_stamp = loaded.bad_stamp;
  if (loaded.copy) {
    copies_.push_back(loaded.copy);
    loaded.copy->is_leaving = !is_wanted || is_draining_;
  }
  if (is_draining_) loaded.failure = shutting_down();
  if (!is_wanted) loaded.failure = not_found(source.name);
  if (!loaded.failure) loaded.failure = unusable(source.name);
  const bool is_new = loaded.copy && !loaded.copy->is_leaving;
  if (is_new) {
    if (entry.copy) entry.copy->is_leaving = true;
    entry.copy = loaded.copy;
    entry.stamp = loaded.stamp;
    entry.source = source;
    entry.is_listed = true;
    ++loads_;
  }
  if (is_wanted && !entry.is_listed && entry.waiters.empty()) entries_.erase(found);
  return is_new || loaded.is_there;
}

}  // namespace vlm::infer
