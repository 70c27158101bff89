#include "infer/generator.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <numeric>

#include "infer/search/stop_strings.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

using Ids = std::vector<std::int64_t>;

constexpr std::int64_t kMostBranches = 8;          // requests of one group decoded at a time
constexpr std::int64_t kMostChoiceRows = 16;       // choices of one request scored at a time
constexpr std::int64_t kMostPrefillTokens = 4096;  // of one pass, padding included
constexpr std::int64_t kMostLookahead = 64;        // waiting groups whose pictures may be encoded
constexpr std::int64_t kMostHeadRows = 512;        // positions whose logits are held at once

// Adds the time since it was made to a sum.
class Stopwatch {
 public:
  explicit Stopwatch(double& sum) : sum_(sum) {}
  ~Stopwatch() {
    sum_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  double& sum_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

std::size_t common_prefix(const Ids& a, const Ids& b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                                  a.begin());
}

// Rows padded on the right with `pad`, [B, T].
at::Tensor pad_right(const std::vector<Ids>& rows, std::int64_t pad) {
  std::size_t longest = 0;
  for (const Ids& row : rows) longest = std::max(longest, row.size());
  at::Tensor ids = at::full(
      {static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(longest)}, pad, at::kLong);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::copy(rows[i].begin(), rows[i].end(), ids.data_ptr<std::int64_t>() + i * longest);
  }
  return ids;
}

// hidden [B, T, C], one position a row → [B, C]
at::Tensor take_positions(const at::Tensor& hidden, const Ids& positions) {
  Ids flat = positions;
  for (std::size_t i = 0; i < flat.size(); ++i) {
    flat[i] += static_cast<std::int64_t>(i) * hidden.size(1);
  }
  return hidden.flatten(0, 1).index_select(0, at::tensor(flat, at::kLong).to(hidden.device()));
}

}  // namespace

double Generation::mean_logprob() const {
  const double sum = std::accumulate(logprobs.begin(), logprobs.end(), 0.0);
  return logprobs.empty() ? 0 : sum / static_cast<double>(logprobs.size());
}

double Generation::min_logprob() const {
  return logprobs.empty() ? 0 : *std::min_element(logprobs.begin(), logprobs.end());
}

double GenerationTiming::decode_tokens_per_s() const {
  return decode_s > 0 ? static_cast<double>(decoded_tokens) / decode_s : 0;
}

// A request at work: some rows of its group.
struct Generator::Branch {
  Request request;
  Group* group = nullptr;
  Ids suffix;                      // of the prompt, behind the group's prefix
  std::unique_ptr<Search> search;  // null: choices are scored
  std::int64_t offset = 0;         // its first row in the group
  std::int64_t width = 0;          // rows that it may use
  bool is_started = false;         // the suffix is in the cache
  Ids next;                        // token of each row to decode
  std::vector<ChoiceScore> scores;
  bool is_finished = false;
};

// Requests that share a prefix, in one group of the cache.
struct Generator::Group {
  std::int64_t index = 0;  // of the cache
  Ids prefix;
  std::shared_ptr<PictureFeatures> pictures;
  std::deque<Branch> pending;
  std::vector<std::unique_ptr<Branch>> branches;  // at work
  bool has_whole_prompt = false;                  // the prefix is the one request's prompt

  std::int64_t rows_needed() const {
    std::int64_t width = 1;
    for (const Branch& branch : pending) width = std::max(width, branch.width);
    return width * std::min<std::int64_t>(static_cast<std::int64_t>(pending.size()), kMostBranches);
  }
};

Generator::Generator(ModelPtr model, std::shared_ptr<const Processor> processor)
    : model_(std::move(model)), processor_(std::move(processor)), encoder_(model_) {}
Generator::~Generator() = default;
Generator::Generator(Generator&&) noexcept = default;

std::unique_ptr<Search> Generator::start_search(const Request& request) const {
  SearchContext context{
      .options = request.options, .prompt = request.prompt, .stream = request.stream};
  const auto room = model_->max_positions() - static_cast<std::int64_t>(request.prompt.size());
  context.options.max_new_tokens = std::min(request.options.max_new_tokens, room);
  if (!request.options.stop_strings.empty()) {
    context.is_stopped =
        [stops =
             std::make_shared<StopStrings>(processor_->tokenizer(), request.options.stop_strings)](
            std::span<const std::int64_t> ids) { return stops->is_completed_by_last(ids); };
  }
  return make_search(std::move(context));
}

// Answers at once what needs no model: an error, or no tokens wanted.
bool Generator::reject_if_impossible(const Request& request) {
  std::size_t longest = 0;
  for (const Ids& choice : request.choices) longest = std::max(longest, choice.size());
  const auto length = static_cast<std::int64_t>(request.prompt.size() + longest);
  Answer answer{.id = request.id, .prompt_tokens = std::ssize(request.prompt)};
  if (request.prompt.empty() || length >= model_->max_positions() + (longest > 0 ? 1 : 0)) {
    answer.error =
        Error({.what = request.prompt.empty() ? "the prompt is empty" : "the prompt is too long",
               .got = concat(length, " tokens"),
               .wanted = concat("fewer than max_position_embeddings = ", model_->max_positions())})
            .what();
  } else if (!request.choices.empty() || request.options.max_new_tokens > 0) {
    return false;
  } else {
    answer.generations.resize(1);
    answer.generations[0].finish_reason = "length";
  }
  rejected_.push_back(std::move(answer));
  return true;
}

void Generator::submit(RequestGroup group) {
  std::vector<Request> requests;
  for (Request& request : group.requests) {
    if (!reject_if_impossible(request)) requests.push_back(std::move(request));
  }
  if (requests.empty()) return;
  std::size_t shared = requests[0].prompt.size();
  bool can_share = true;
  for (const Request& request : requests) {
    shared = std::min(shared, common_prefix(requests[0].prompt, request.prompt));
  }
  for (const Request& request : requests) {
    // Pictures must lie in what is shared.
    can_share = can_share &&
                std::find(request.prompt.begin() + static_cast<std::ptrdiff_t>(shared),
                          request.prompt.end(), model_->image_token_id()) == request.prompt.end();
  }
  if (can_share && shared > 1) return wait(std::move(requests), group.pictures);
  for (Request& request : requests) {
    std::vector<Request> one;
    one.push_back(std::move(request));
    wait(std::move(one), group.pictures);
  }
}

void Generator::wait(std::vector<Request> requests, std::shared_ptr<PictureFeatures> pictures) {
  auto group = std::make_unique<Group>();
  group->pictures = std::move(pictures);
  std::size_t shared = requests[0].prompt.size();
  for (const Request& request : requests) {
    shared = std::min(shared, common_prefix(requests[0].prompt, request.prompt));
  }
  group->has_whole_prompt = requests.size() == 1 && requests[0].choices.empty();
  if (!group->has_whole_prompt) {
    // Every request needs a token of its own whose logits are the first.
    for (const Request& request : requests) shared = std::min(shared, request.prompt.size() - 1);
  }
  group->prefix.assign(requests[0].prompt.begin(),
                       requests[0].prompt.begin() + static_cast<std::ptrdiff_t>(shared));
  for (Request& request : requests) {
    Branch branch;
    branch.suffix.assign(request.prompt.begin() + static_cast<std::ptrdiff_t>(shared),
                         request.prompt.end());
    branch.width = request.choices.empty()
                       ? request.options.rows()
                       : std::min<std::int64_t>(std::ssize(request.choices), kMostChoiceRows);
    if (request.choices.empty()) branch.search = start_search(request);
    branch.group = group.get();
    branch.request = std::move(request);
    group->pending.push_back(std::move(branch));
  }
  waiting_.push_back(std::move(group));
}

std::vector<Answer> Generator::step() {
  const c10::InferenceMode inference;
  admit();
  start_branches();
  decode_rows();
  remove_finished();
  std::vector<Answer> answers = std::exchange(rejected_, {});
  for (Answer& answer : finished_) answers.push_back(std::move(answer));
  finished_.clear();
  return answers;
}

void Generator::abandon() {
  waiting_.clear();
  active_.clear();
  rejected_.clear();
  finished_.clear();
  cache_.reset();
}

// The oldest waiting groups, as many as there is room for.
std::vector<std::unique_ptr<Generator::Group>> Generator::take_newcomers() {
  const std::int64_t room = batch_size_ - std::ssize(active_);
  std::vector<std::unique_ptr<Group>> newcomers;
  // Prompts are prefilled several at a time: while others decode, a single free place waits.
  if (!active_.empty() && room < std::max<std::int64_t>(1, batch_size_ / 4)) return newcomers;
  while (!waiting_.empty() && std::ssize(newcomers) < room) {
    const std::int64_t rows = waiting_.front()->rows_needed();
    if (!cache_ || rows > cache_->rows_per_group()) {
      if (!active_.empty() || !newcomers.empty()) break;  // a cache of more rows once this is empty
      cache_.emplace(model_->cache_shape(), rows,
                     at::TensorOptions().dtype(model_->dtype()).device(model_->device()));
    }
    newcomers.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
  return newcomers;
}

// Encodes the newcomers' pictures and, to fill the last chunk of tiles, some of those that wait.
void Generator::encode_pictures(const std::vector<std::unique_ptr<Group>>& newcomers) {
  const Stopwatch watch(timing_.vision_s);
  std::vector<std::shared_ptr<PictureFeatures>> pictures;
  std::int64_t tiles = 0;
  const auto add = [&](const Group& group) {
    if (!group.pictures || !group.pictures->pixel_values.defined()) return;
    tiles += group.pictures->pixel_values.size(0);
    pictures.push_back(group.pictures);
  };
  for (const auto& group : newcomers) add(*group);
  const std::int64_t at_once = encoder_.tiles_at_once();
  const std::int64_t wanted = (tiles + at_once - 1) / at_once * at_once;
  for (std::int64_t i = 0; i < std::min(kMostLookahead, waiting()) && tiles < wanted; ++i) {
    add(*waiting_[static_cast<std::size_t>(i)]);
  }
  encoder_.encode(pictures);
}

void Generator::admit() {
  std::vector<std::unique_ptr<Group>> newcomers = take_newcomers();
  if (newcomers.empty()) return;
  encode_pictures(newcomers);
  const Stopwatch watch(timing_.prefill_s);
  std::stable_sort(newcomers.begin(), newcomers.end(), [](const auto& a, const auto& b) {
    return a->prefix.size() < b->prefix.size();
  });
  std::vector<Group*> pass;
  std::int64_t real = 0;
  for (auto& group : newcomers) {
    // Lengths ascend: this one would be the longest of the pass.
    const auto length = std::ssize(group->prefix);
    const std::int64_t padded = length * (std::ssize(pass) + 1);
    if (!pass.empty() && (padded > kMostPrefillTokens || padded > (real + length) * 5 / 4 + 64)) {
      prefill(pass);
      pass.clear();
      real = 0;
    }
    real += length;
    group->index = std::ssize(active_);
    pass.push_back(group.get());
    active_.push_back(std::move(group));
  }
  prefill(pass);
}

void Generator::prefill(const std::vector<Group*>& groups) {
  std::vector<Ids> prompts;
  Ids slots, lengths;
  std::vector<at::Tensor> features;
  for (Group* group : groups) {
    prompts.push_back(group->prefix);
    slots.push_back(group->index);
    lengths.push_back(std::ssize(group->prefix));
    if (group->pictures && group->pictures->features.defined()) {
      features.push_back(group->pictures->features);
    }
  }
  const std::int64_t pad = model_->image_token_id() == 0 ? 1 : 0;
  const at::Tensor embeddings =
      model_->embed(pad_right(prompts, pad), features.empty() ? at::Tensor() : at::cat(features));
  cache_->begin_prefill(slots, lengths);
  const at::Tensor hidden = model_->decode(embeddings, {}, &*cache_);  // [n, T, C]

  std::vector<Branch*> ready;
  Ids rows, last;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    groups[i]->pictures.reset();
    if (!groups[i]->has_whole_prompt) continue;
    rows.push_back(static_cast<std::int64_t>(i));
    last.push_back(lengths[i] - 1);
    groups[i]->branches.push_back(std::make_unique<Branch>(std::move(groups[i]->pending.front())));
    groups[i]->pending.pop_front();
    ready.push_back(groups[i]->branches.back().get());
  }
  if (ready.empty()) return;
  const at::Tensor index = at::tensor(rows, at::kLong).to(hidden.device());
  const Logits logits = head(take_positions(hidden.index_select(0, index), last));
  for (std::size_t i = 0; i < ready.size(); ++i) {
    advance(*ready[i], logits.narrow(0, static_cast<std::int64_t>(i), 1));
  }
}

// Lets requests of the groups enter rows that are free.
void Generator::start_branches() {
  std::vector<Branch*> suffixes, choices;
  for (auto& group : active_) {
    while (!group->pending.empty()) {
      const std::int64_t width = group->pending.front().width;
      std::vector<bool> is_taken(static_cast<std::size_t>(cache_->rows_per_group()), false);
      for (const auto& branch : group->branches) {
        std::fill_n(is_taken.begin() + branch->offset, branch->width, true);
      }
      const auto place =
          std::search_n(is_taken.begin(), is_taken.end(), static_cast<int>(width), false);
      if (place == is_taken.end()) break;
      group->branches.push_back(std::make_unique<Branch>(std::move(group->pending.front())));
      group->pending.pop_front();
      group->branches.back()->offset = place - is_taken.begin();
    }
    for (const auto& branch : group->branches) {
      if (!branch->search) choices.push_back(branch.get());
      if (branch->search && !branch->is_started && !branch->suffix.empty()) {
        suffixes.push_back(branch.get());
      }
    }
  }
  const Stopwatch watch(timing_.prefill_s);
  if (!suffixes.empty()) extend_suffixes(suffixes);
  if (!choices.empty()) score_choices(choices);
}

// Feeds ids[i] behind rows[i]; rows ascend. → hidden [B, T, C]
at::Tensor Generator::extend(const Ids& rows, const std::vector<Ids>& ids) {
  Ids counts;
  for (const Ids& row : ids) counts.push_back(std::ssize(row));
  const at::Tensor embeddings = model_->embed_tokens(pad_right(ids, 0));
  cache_->begin_extend(rows, counts);
  return model_->decode(embeddings, {}, &*cache_);
}

// [M, C] → [M, V]
Generator::Logits Generator::head(const at::Tensor& hidden) {
  return model_->logits(hidden).to(at::kCPU, at::kFloat);
}

void Generator::extend_suffixes(const std::vector<Branch*>& branches) {
  std::vector<Branch*> sorted = branches;
  const auto row_of = [this](const Branch* branch) {
    return branch->group->index * cache_->rows_per_group() + branch->offset;
  };
  std::sort(sorted.begin(), sorted.end(),
            [&](const Branch* a, const Branch* b) { return row_of(a) < row_of(b); });
  Ids rows, last;
  std::vector<Ids> ids;
  for (Branch* branch : sorted) {
    cache_->clear_tail(row_of(branch));
    rows.push_back(row_of(branch));
    ids.push_back(branch->suffix);
    last.push_back(std::ssize(branch->suffix) - 1);
    branch->is_started = true;
  }
  const Logits logits = head(take_positions(extend(rows, ids), last));
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    advance(*sorted[i], logits.narrow(0, static_cast<std::int64_t>(i), 1));
  }
}

// Scores the next choices of each request: every choice in a row of its own behind the prefix.
void Generator::score_choices(const std::vector<Branch*>& branches) {
  struct Scored {
    Branch* branch;
    std::int64_t row;
    const Ids* choice;
  };
  std::vector<Scored> scored;
  for (Branch* branch : branches) {
    const auto& choices = branch->request.choices;
    const auto begin = branch->scores.size();
    const auto end = std::min(choices.size(), begin + static_cast<std::size_t>(branch->width));
    for (std::size_t i = begin; i < end; ++i) {
      const std::int64_t row = branch->group->index * cache_->rows_per_group() + branch->offset +
                               static_cast<std::int64_t>(i - begin);
      cache_->clear_tail(row);
      scored.push_back({branch, row, &choices[i]});
    }
  }
  std::sort(scored.begin(), scored.end(),
            [](const Scored& a, const Scored& b) { return a.row < b.row; });
  Ids rows;
  std::vector<Ids> ids;
  for (const Scored& one : scored) {
    rows.push_back(one.row);
    ids.push_back(one.branch->suffix);
    ids.back().insert(ids.back().end(), one.choice->begin(), one.choice->end() - 1);
  }
  const at::Tensor hidden = extend(rows, ids);  // [B, T, C]
  for (std::size_t i = 0; i < scored.size(); ++i) {
    const Ids& choice = *scored[i].choice;
    const std::int64_t first = std::ssize(scored[i].branch->suffix) - 1;
    const at::Tensor states =
        hidden[static_cast<std::int64_t>(i)].narrow(0, first, std::ssize(choice));
    ChoiceScore score{.tokens = std::ssize(choice)};
    for (std::int64_t t = 0; t < std::ssize(choice); t += kMostHeadRows) {
      const std::int64_t count = std::min(kMostHeadRows, std::ssize(choice) - t);
      const at::Tensor logprobs = head(states.narrow(0, t, count)).log_softmax(-1);
      const at::Tensor wanted =
          at::tensor(at::ArrayRef<std::int64_t>(choice.data() + t, static_cast<std::size_t>(count)),
                     at::kLong);
      score.logprob += logprobs.gather(1, wanted.unsqueeze(1)).sum(at::kDouble).item<double>();
    }
    scored[i].branch->scores.push_back(score);
  }
  for (Branch* branch : branches) {
    if (branch->scores.size() == branch->request.choices.size()) finish(*branch);
  }
}

// One token for every row at work.
void Generator::decode_rows() {
  const Stopwatch watch(timing_.decode_s);
  std::vector<Branch*> branches;
  Ids rows;
  std::vector<Ids> ids;
  for (auto& group : active_) {
    std::vector<Branch*> sorted;
    for (auto& branch : group->branches) {
      if (!branch->is_finished && !branch->next.empty()) sorted.push_back(branch.get());
    }
    std::sort(sorted.begin(), sorted.end(),
              [](const Branch* a, const Branch* b) { return a->offset < b->offset; });
    for (Branch* branch : sorted) {
      branches.push_back(branch);
      for (std::size_t i = 0; i < branch->next.size(); ++i) {
        rows.push_back(group->index * cache_->rows_per_group() + branch->offset +
                       static_cast<std::int64_t>(i));
        ids.push_back({branch->next[i]});
      }
    }
  }
  if (branches.empty()) return;
  const Logits logits = head(extend(rows, ids).select(1, 0));
  timing_.decoded_tokens += std::ssize(rows);
  std::int64_t begin = 0;
  for (Branch* branch : branches) {
    const std::int64_t count = std::ssize(branch->next);
    advance(*branch, logits.narrow(0, begin, count));
    begin += count;
  }
}

// Takes the search one step further, and moves its rows' tails to where it goes on.
void Generator::advance(Branch& branch, const Logits& logits) {
  SearchStep step = branch.search->advance(logits);
  const bool is_single = branch.request.options.rows() == 1;
  if (branch.request.on_token && !branch.request.on_token(is_single ? step.chosen[0] : -1)) {
    branch.search->interrupt();
    step.ids.clear();
  }
  branch.next = step.ids;
  if (step.ids.empty()) return finish(branch);
  Ids from, to;
  const std::int64_t first = branch.group->index * cache_->rows_per_group() + branch.offset;
  for (std::size_t i = 0; i < step.parents.size(); ++i) {
    from.push_back(first + step.parents[i]);
    to.push_back(first + static_cast<std::int64_t>(i));
  }
  if (from != to) cache_->copy_tails(from, to);
}

void Generator::finish(Branch& branch) {
  branch.is_finished = true;
  Answer answer{.id = branch.request.id,
                .prompt_tokens = std::ssize(branch.request.prompt),
                .choices = std::move(branch.scores)};
  if (branch.search) {
    answer.first_token_entropy = branch.search->first_token_entropy();
    for (Hypothesis& hypothesis : branch.search->hypotheses()) {
      Generation generation{std::move(hypothesis)};
      generation.text = processor_->tokenizer().decode(generation.ids, true);
      answer.generations.push_back(std::move(generation));
    }
  }
  finished_.push_back(std::move(answer));
}

void Generator::remove_finished() {
  for (std::size_t g = active_.size(); g-- > 0;) {
    Group& group = *active_[g];
    std::erase_if(group.branches, [](const auto& branch) { return branch->is_finished; });
    if (!group.branches.empty() || !group.pending.empty()) continue;
    // Groups at work stay side by side: the last one moves into the gap.
    if (g + 1 < active_.size()) {
      cache_->move_group(std::ssize(active_) - 1, static_cast<std::int64_t>(g));
      active_[g] = std::move(active_.back());
      active_[g]->index = static_cast<std::int64_t>(g);
    }
    active_.pop_back();
  }
}

Answer Generator::answer(Request request, const at::Tensor& pixel_values) {
  RequestGroup group;
  group.requests.push_back(std::move(request));
  if (pixel_values.defined()) {
    group.pictures = std::make_shared<PictureFeatures>(PictureFeatures{pixel_values});
  }
  submit(std::move(group));
  Answer answer;
  while (!is_idle()) {
    for (Answer& one : step()) answer = std::move(one);
  }
  if (!answer.error.empty()) throw Error({.what = answer.error});
  return answer;
}

std::vector<Answer> Generator::generate(
    const std::vector<EncodedConversation>& prompts, const GenerationOptions& options,
    const std::function<bool(std::size_t, std::int64_t)>& on_token) {
  const std::int64_t batch_size =
      std::exchange(batch_size_, std::max<std::int64_t>(1, std::ssize(prompts)));
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    Request request{.id = i, .prompt = prompts[i].ids, .options = options, .stream = i};
    if (on_token) {
      request.on_token = [&on_token, i](std::int64_t id) { return on_token(i, id); };
    }
    RequestGroup group;
    group.requests.push_back(std::move(request));
    if (prompts[i].pixel_values.defined()) {
      group.pictures = std::make_shared<PictureFeatures>(PictureFeatures{prompts[i].pixel_values});
    }
    submit(std::move(group));
  }
  std::vector<Answer> answers(prompts.size());
  while (!is_idle()) {
    for (Answer& answer : step()) answers[answer.id] = std::move(answer);
  }
  batch_size_ = batch_size;
  for (const Answer& answer : answers) {
    if (!answer.error.empty()) throw Error({.what = answer.error});
  }
  return answers;
}

}  // namespace vlm::infer
