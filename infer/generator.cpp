#include "infer/generator.h"

#include <ATen/DeviceAccelerator.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <utility>

#include "infer/answer_text.h"
#include "infer/media/shown_media.h"
#include "infer/search/stop_strings.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/run/stopwatch.h"

namespace vlm::infer {
namespace {

using Ids = std::vector<std::int64_t>;

constexpr std::int64_t kMostPrefillTokens = 4096;  // of one pass, padding included
constexpr std::int64_t kMostLookahead = 64;        // waiting groups whose pictures may be encoded

// Until a GPU has encoded what it was asked to, so that the time is that of the work. Prefill and
// decoding end with a token, which is waited for anyway.
void wait_for(at::Device device) {
  if (!device.is_cpu()) at::accelerator::synchronizeDevice(device.index());
}

}  // namespace

double GenerationTiming::decode_tokens_per_s() const {
  return decode_s > 0 ? static_cast<double>(decoded_tokens) / decode_s : 0;
}

Generator::Generator(ModelPtr model, std::shared_ptr<const Processor> processor)
    : model_(std::move(model)),
      processor_(std::move(processor)),
      encoder_(std::make_unique<PictureEncoder>(model_)),
      step_(model_) {}
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
  RequestAnswer answer{.id = request.id, .prompt_tokens = std::ssize(request.prompt)};
  if (!request.choices.empty() && request.prompt.size() == 1) {
    answer.error = "the prompt is too short: choices need at least two tokens in front";
  } else if (request.prompt.empty() || length >= model_->max_positions() + (longest > 0 ? 1 : 0)) {
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
  std::erase_if(group.requests, [this](const Request& one) { return reject_if_impossible(one); });
  if (group.requests.empty()) return;
  for (auto& made : make_groups(std::move(group))) {
    for (ActiveRequest& one : made->pending) {
      if (one.request.choices.empty()) one.search = start_search(one.request);
    }
    waiting_.push_back(std::move(made));
  }
}

std::vector<RequestAnswer> Generator::step() {
  const c10::InferenceMode inference;
  admit();
  start_pending();
  decode_rows();
  end_late_requests();
  remove_finished();
  std::vector<RequestAnswer> answers = std::exchange(rejected_, {});
  for (RequestAnswer& answer : finished_) answers.push_back(std::move(answer));
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
std::vector<std::unique_ptr<ActiveGroup>> Generator::pop_waiting_groups() {
  const std::int64_t room = batch_size_ - std::ssize(active_);
  std::vector<std::unique_ptr<ActiveGroup>> newcomers;
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

// Encodes the newcomers' pictures and, to fill the encoder's last chunk, some of those that wait.
void Generator::encode_pictures(const std::vector<std::unique_ptr<ActiveGroup>>& newcomers) {
  const Stopwatch watch(timing_.vision_s);
  std::vector<std::shared_ptr<PictureFeatures>> pictures;
  std::int64_t units = 0;
  const auto add = [&](const ActiveGroup& group) {
    if (!group.pictures || group.pictures->pixels.empty()) return;
    units += group.pictures->pixels.units();
    pictures.push_back(group.pictures);
  };
  for (const auto& group : newcomers) add(*group);
  const std::int64_t at_once = encoder_->units_at_once();
  const std::int64_t wanted = (units + at_once - 1) / at_once * at_once;
  for (std::int64_t i = 0; i < std::min(kMostLookahead, waiting()) && units < wanted; ++i) {
    add(*waiting_[static_cast<std::size_t>(i)]);
  }
  encoder_->encode(pictures);
  if (!pictures.empty()) wait_for(model_->device());
}

void Generator::admit() {
  std::vector<std::unique_ptr<ActiveGroup>> newcomers = pop_waiting_groups();
  if (newcomers.empty()) return;
  encode_pictures(newcomers);
  if (waiting_.empty()) encoder_->release_memory();
  const auto begun = std::chrono::steady_clock::now();
  const Stopwatch watch(timing_.prefill_s);
  std::stable_sort(newcomers.begin(), newcomers.end(), [](const auto& a, const auto& b) {
    return a->prefix.size() < b->prefix.size();
  });
  std::vector<ActiveGroup*> pass;
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
    for (ActiveRequest& one : group->pending) one.begun = begun;
    pass.push_back(group.get());
    active_.push_back(std::move(group));
  }
  prefill(pass);
}

// Lets requests of the groups enter rows that are free.
void Generator::start_pending() {
  std::vector<ActiveRequest*> suffixes, choices;
  for (auto& group : active_) {
    while (!group->pending.empty()) {
      const std::int64_t width = group->pending.front().width;
      std::vector<bool> is_taken(static_cast<std::size_t>(cache_->rows_per_group()), false);
      for (const auto& one : group->requests) {
        std::fill_n(is_taken.begin() + one->offset, one->width, true);
      }
      const auto place =
          std::search_n(is_taken.begin(), is_taken.end(), static_cast<int>(width), false);
      if (place == is_taken.end()) break;
      group->requests.push_back(std::make_unique<ActiveRequest>(std::move(group->pending.front())));
      group->pending.pop_front();
      group->requests.back()->offset = place - is_taken.begin();
      group->requests.back()->begun = std::chrono::steady_clock::now();
    }
    for (const auto& one : group->requests) {
      if (!one->search) choices.push_back(one.get());
      if (one->search && !one->is_started && !one->suffix.empty()) {
        suffixes.push_back(one.get());
      }
    }
  }
  const Stopwatch watch(timing_.prefill_s);
  if (!suffixes.empty()) extend_suffixes(suffixes);
  if (!choices.empty()) score_choices(choices);
}

// Takes the search one step further, and moves its rows' tails to where it goes on.
void Generator::advance(ActiveRequest& one, const Logits& logits) {
  feed(one, one.search->advance(logits));
}

// Does what the search has decided: the next pass feeds its tokens.
void Generator::feed(ActiveRequest& one, SearchStep step) {
  const bool is_single = one.request.options.rows() == 1;
  if (one.request.on_token && !one.request.on_token(is_single ? step.chosen[0] : -1)) {
    one.search->interrupt();
    step.ids.clear();
  }
  one.next = step.ids;
  if (step.ids.empty()) return finish(one);
  Ids from, to;
  const std::int64_t first = one.group->index * cache_->rows_per_group() + one.offset;
  for (std::size_t i = 0; i < step.parents.size(); ++i) {
    from.push_back(first + step.parents[i]);
    to.push_back(first + static_cast<std::int64_t>(i));
  }
  if (from != to) cache_->copy_tails(from, to);
}

void Generator::finish(ActiveRequest& one) {
  one.is_finished = true;
  RequestAnswer answer{.id = one.request.id,
                       .prompt_tokens = std::ssize(one.request.prompt),
                       .choices = std::move(one.scores)};
  if (one.search) {
    answer.first_token_entropy = one.search->first_token_entropy();
    answer.grammar = one.request.options.grammar;
    for (Hypothesis& hypothesis : one.search->hypotheses()) {
      Generation generation{std::move(hypothesis)};
      generation.text = answer_text(processor_->tokenizer(), generation.ids, one.request.options);
      answer.generations.push_back(std::move(generation));
    }
  }
  finished_.push_back(std::move(answer));
}

// Requests whose time is over are answered with an error.
void Generator::end_late_requests() {
  const auto end = [this](const ActiveRequest& one) {
    finished_.push_back(
        {.id = one.request.id,
         .error = Error({.what = "the answer took too long",
                         .wanted = concat("at most ", one.request.time_limit_s, " s"),
                         .hint = "--item-timeout sets the limit"})
                      .what()});
  };
  for (auto& group : active_) {
    for (auto& one : group->requests) {
      if (one->is_finished || !one->is_late()) continue;
      one->is_finished = true;
      end(*one);
    }
  }
}

void Generator::remove_finished() {
  for (std::size_t g = active_.size(); g-- > 0;) {
    ActiveGroup& group = *active_[g];
    std::erase_if(group.requests, [](const auto& one) { return one->is_finished; });
    if (!group.requests.empty() || !group.pending.empty()) continue;
    // Groups at work stay side by side: the last one moves into the gap.
    if (g + 1 < active_.size()) {
      cache_->move_group(std::ssize(active_) - 1, static_cast<std::int64_t>(g));
      active_[g] = std::move(active_.back());
      active_[g]->index = static_cast<std::int64_t>(g);
    }
    active_.pop_back();
  }
}

bool Generator::read(ShownMedia& media, double time_limit_s) {
  const Stopwatch watch(timing_.vision_s);
  const bool is_whole = media.read(time_limit_s);
  wait_for(model_->device());
  return is_whole;
}

RequestAnswer Generator::answer(Request request, const Pixels& pixels) {
  RequestGroup group;
  group.requests.push_back(std::move(request));
  if (!pixels.empty()) {
    group.pictures = std::make_shared<PictureFeatures>(PictureFeatures{pixels});
  }
  return answer(std::move(group));
}

// For calls whose requests point into the caller: whatever throws, none of them stays behind.
class Generator::OwnRequests {
 public:
  OwnRequests(Generator& generator, std::int64_t batch_size)
      : generator_(generator), before_(std::exchange(generator.batch_size_, batch_size)) {
    TORCH_CHECK(generator.is_idle(), "the generator is at work for somebody else");
  }
  ~OwnRequests() {
    generator_.batch_size_ = before_;
    if (!generator_.is_idle() || std::uncaught_exceptions() > exceptions_) generator_.abandon();
  }
  OwnRequests(const OwnRequests&) = delete;
  OwnRequests& operator=(const OwnRequests&) = delete;

 private:
  Generator& generator_;
  std::int64_t before_;
  int exceptions_ = std::uncaught_exceptions();
};

RequestAnswer Generator::answer(RequestGroup group) {
  const OwnRequests own(*this, batch_size_);
  submit(std::move(group));
  RequestAnswer answer;
  while (!is_idle()) {
    for (RequestAnswer& one : step()) answer = std::move(one);
  }
  if (!answer.error.empty()) throw Error({.what = answer.error});
  return answer;
}

std::vector<RequestAnswer> Generator::generate(
    const std::vector<EncodedConversation>& prompts, const GenerationOptions& options,
    const std::function<bool(std::size_t, std::int64_t)>& on_token) {
  const OwnRequests own(*this, std::max<std::int64_t>(1, std::ssize(prompts)));
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    Request request{.id = i,
                    .prompt = prompts[i].ids,
                    .layout = prompts[i].layout,
                    .options = options,
                    .stream = i};
    if (on_token) {
      request.on_token = [&on_token, i](std::int64_t id) { return on_token(i, id); };
    }
    RequestGroup group;
    group.requests.push_back(std::move(request));
    if (!prompts[i].pixels.empty()) {
      group.pictures = std::make_shared<PictureFeatures>(PictureFeatures{prompts[i].pixels});
    }
    submit(std::move(group));
  }
  std::vector<RequestAnswer> answers(prompts.size());
  while (!is_idle()) {
    for (RequestAnswer& answer : step()) answers[answer.id] = std::move(answer);
  }
  for (const RequestAnswer& answer : answers) {
    if (!answer.error.empty()) throw Error({.what = answer.error});
  }
  return answers;
}

}  // namespace vlm::infer
