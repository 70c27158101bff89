#include "infer/generator.h"

#include <ATen/DeviceAccelerator.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <functional>
#include <utility>

#include "infer/answer_text.h"
#include "infer/search/stop_strings.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/run/stopwatch.h"

namespace vlm::infer {
namespace {

using Ids = std::vector<std::int64_t>;

constexpr std::int64_t kMostPrefillTokens = 4096;  // of one pass, padding included
constexpr std::int64_t kMostLookahead = 64;        // waiting groups whose pictures may be encoded

}  // namespace

double GenerationTiming::decode_tokens_per_s() const {
  return decode_s > 0 ? static_cast<double>(decoded_tokens) / decode_s : 0;
}

Generator::Generator(ModelPtr model, std::shared_ptr<const Processor> processor)
    : model_(std::move(model)),
      processor_(std::move(processor)),
      encoder_(std::make_unique<PictureEncoder>(model_)),
      step_(model_),
      kv_storage_(choose_kv_storage("auto", *model_)) {}
Generator::~Generator() = default;
Generator::Generator(Generator&&) noexcept = default;

// Until a GPU has done what it was asked to, so that the time is that of the work. Prefill and
// decoding end with a token, which is waited for anyway.
void Generator::wait_for_device() const {
  const at::Device device = model_->device();
  if (!device.is_cpu()) at::accelerator::synchronizeDevice(device.index());
}

std::unique_ptr<Search> Generator::start_search(const Request& request) const {
  SearchContext context{
      .options = request.options, .prompt = request.prompt, .stream = request.stream};
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
  const Outcome outcome = std::exchange(answer.outcome, Outcome::kRefused);
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
    answer.outcome = outcome;
    answer.generations.resize(1);
    answer.generations[0].finish_reason = "length";
  }
  rejected_.push_back(std::move(answer));
  return true;
}

void Generator::submit(RequestGroup group) {
  std::erase_if(group.requests, [this](const Request& one) { return reject_if_impossible(one); });
  if (group.requests.empty()) return;
  for (Request& one : group.requests) {
    const std::int64_t room = model_->max_positions() - std::ssize(one.prompt);
    one.options.max_new_tokens = std::min(one.options.max_new_tokens, room);
  }
  const auto is_media = [ids = model_->media_token_ids()](std::int64_t id) {
    return std::ranges::find(ids, id) != ids.end();
  };
  if (group.pictures && is_serving()) encoder_->prepare(*group.pictures);
  for (auto& made :
       make_groups(std::move(group), is_serving() ? kMostSpreadChoiceRows : kMostChoiceRows)) {
    for (ActiveRequest& one : made->pending) {
      one.media_tokens = std::ranges::count_if(one.request.prompt, is_media);
      if (one.request.choices.empty()) one.search = start_search(one.request);
    }
    waiting_.push_back(std::move(made));
  }
}

std::vector<RequestAnswer> Generator::step(bool takes_prompts) {
  const c10::InferenceMode inference;
  if (is_serving()) {
    enter_waiting();
    if (takes_prompts) work_on_entering();
  } else {
    admit();
  }
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
  entering_.clear();
  active_.clear();
  places_.clear();
  rejected_.clear();
  finished_.clear();
  cache_.reset();
}

// The oldest waiting groups, as many as there is room for.
Generator::Groups Generator::pop_waiting_groups() {
  const std::int64_t room = batch_size_ - std::ssize(active_);
  Groups newcomers;
  // Prompts are prefilled several at a time: while others decode, a single free place waits.
  if (!active_.empty() && room < std::max<std::int64_t>(1, batch_size_ / 4)) return newcomers;
  while (!waiting_.empty() && std::ssize(newcomers) < room) {
    const std::int64_t rows = waiting_.front()->rows_needed();
    if (!cache_ || rows > cache_->rows_per_group()) {
      if (!active_.empty() || !newcomers.empty()) break;  // a cache of more rows once this is empty
      make_cache(rows);
    }
    newcomers.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
  return newcomers;
}

// Encodes the newcomers' pictures and, to fill the encoder's last chunk, some of those that wait.
void Generator::encode_pictures(const Groups& newcomers) {
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
  if (!pictures.empty()) wait_for_device();
}

void Generator::admit() {
  Groups newcomers = pop_waiting_groups();
  if (newcomers.empty()) return;
  for (auto& group : newcomers) group->enter();
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
    give_places(*group);
    group->encoded = begun;
    for (ActiveRequest& one : group->pending) one.begun = begun;
    pass.push_back(group.get());
    active_.push_back(std::move(group));
  }
  prefill(pass);
}

// Lets requests of the groups enter rows that are free.
void Generator::start_pending() {
  Requests suffixes, choices;
  for (auto& group : active_) {
    const std::size_t rows =
        group->places.size() * static_cast<std::size_t>(cache_->rows_per_group());
    while (!group->pending.empty()) {
      const std::int64_t width = group->pending.front().width;
      std::vector<bool> is_taken(rows, false);
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
      if (one->is_finished) continue;
      if (!one->search) choices.push_back(one.get());
      if (one->search && !one->is_started && !one->suffix.empty()) {
        suffixes.push_back(one.get());
      }
    }
  }
  const Stopwatch watch(timing_.prefill_s);
  run_apart(suffixes, [this](const Requests& some) { extend_suffixes(some); });
  run_apart(choices, [this](const Requests& some) { score_choices(some); });
}

// Takes the search one step further, and moves its rows' tails to where it goes on. In serving,
// what fails here fails its request.
void Generator::advance(ActiveRequest& one, const Logits& logits) {
  if (!is_serving()) return feed(one, one.search->advance(logits));
  try {
    feed(one, one.search->advance(logits));
  } catch (const std::exception& error) {
    fail(one, error);
  }
}

// Does what the search has decided: the next pass feeds its tokens.
void Generator::feed(ActiveRequest& one, SearchStep step) {
  if (one.first_token == Moment()) one.first_token = std::chrono::steady_clock::now();
  if (one.request.on_step && !one.request.on_step(one.search->answers())) {
    one.search->interrupt();
    step.ids.clear();
  }
  one.next = step.ids;
  if (step.ids.empty()) return finish(one);
  Ids from, to;
  for (std::size_t i = 0; i < step.parents.size(); ++i) {
    from.push_back(row_of(one, step.parents[i]));
    to.push_back(row_of(one, static_cast<std::int64_t>(i)));
  }
  if (from != to) cache_->copy_tails(from, to);
}

// All but the answer itself.
RequestAnswer Generator::begin_answer(const ActiveRequest& one) const {
  const auto seconds = [](Moment begin, Moment end) {
    return begin == Moment() || end == Moment()
               ? 0
               : std::chrono::duration<double>(end - begin).count();
  };
  const Moment now = std::chrono::steady_clock::now();
  const ActiveGroup& group = *one.group;
  return {.id = one.request.id,
          .prompt_tokens = std::ssize(one.request.prompt),
          .media_tokens = one.media_tokens,
          .cached_tokens = group.cached,
          .queue_s = seconds(group.submitted, group.entered == Moment() ? now : group.entered),
          .vision_s = seconds(group.entered, group.encoded),
          .prefill_s = seconds(group.encoded, one.first_token == Moment() ? now : one.first_token),
          .decode_s = seconds(one.first_token, now)};
}

void Generator::finish(ActiveRequest& one) {
  one.is_finished = true;
  RequestAnswer answer = begin_answer(one);
  answer.choices = std::move(one.scores);
  if (one.search) {
    answer.first_token_entropy = one.search->first_token_entropy();
    answer.mask_s = one.search->mask_s();
    if (one.request.options.prompt_lookup_num_tokens > 0 && one.request.options.rows() == 1) {
      lookup_.remember(one.search->answers()[0].ids);
    }
    answer.grammar = one.request.options.grammar;
    for (Hypothesis& hypothesis : one.search->hypotheses()) {
      Generation generation{std::move(hypothesis)};
      generation.text = answer_text(processor_->tokenizer(), generation.ids, one.request.options);
      answer.generations.push_back(std::move(generation));
    }
  }
  finished_.push_back(std::move(answer));
}

// Ends it without an answer, but for what there is of one when its caller left.
void Generator::end(ActiveRequest& one, Outcome outcome, std::string error) {
  if (outcome == Outcome::kCancelled && one.search && one.first_token != Moment()) {
    one.search->interrupt();
    finish(one);
  } else {
    one.is_finished = true;
    finished_.push_back(begin_answer(one));
  }
  finished_.back().outcome = outcome;
  finished_.back().error = std::move(error);
}

bool Generator::read(ShownMedia& media, const ReadLimits& limits) {
  const Stopwatch watch(timing_.vision_s);
  const bool is_whole = media.read(limits);
  wait_for_device();
  return is_whole;
}

ReadState Generator::read_piece(ShownMedia& media, const ReadLimits& limits,
                                std::chrono::milliseconds patience) {
  const Stopwatch watch(timing_.vision_s);
  const ReadState state = media.read_piece(limits, patience);
  wait_for_device();
  return state;
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
      request.on_step = [&on_token, i,
                         told = std::size_t{0}](std::span<const Hypothesis> answers) mutable {
        const bool is_new = answers.size() == 1 && answers[0].ids.size() > told;
        if (is_new) told = answers[0].ids.size();
        return on_token(i, is_new ? answers[0].ids.back() : -1);
      };
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
