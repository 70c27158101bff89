#include "infer/server/doors/label_job.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "infer/server/api/body_reader.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"
#include "vlm/core/log.h"
#include "vlm/io/error_text.h"

namespace vlm::infer {
namespace {

constexpr std::size_t kAskedAtOnce = 4;  // of one request, so that others get their turn
constexpr std::size_t kMostSchemaBytes = 256 << 10;

void warn_of_left_out(const LabelConfig& config) {
  for (const std::string& tag : config.left_out) {
    log_warning_once(concat("Label Studio's config has a tag that gets no prediction: ", tag));
  }
}

}  // namespace

LabelJob::LabelJob(ServiceParts& parts, Kind kind, std::shared_ptr<const LabelFiles> files,
                   std::shared_ptr<Exchange> exchange, AnswerJob::Asker asker)
    : parts_(parts),
      kind_(kind),
      files_(std::move(files)),
      exchange_(std::move(exchange)),
      asker_(std::move(asker)) {}

// Instances keep predictions by this name and ask again when it changes.
std::string LabelJob::model_version() const {
  const ServedModel& model = parts_.models->base();
  return concat(model.id(), " ", model.fingerprint());
}

void LabelJob::start(WebRequest request, std::vector<HttpHeader> headers) {
  exchange_->facts = facts_;
  request_id_ = request.id;
  headers_ = std::move(headers);
  exchange_->on_gone([weak = weak_from_this(), &writer = parts_.writer] {
    if (const auto self = weak.lock()) writer.post([self] { self->cancel(); });
  });
  const auto body = std::make_shared<std::string>(std::move(request.body));
  parts_.media.post([self = shared_from_this(), body] {
    try {
      self->read(*body);
    } catch (const ApiError& error) {
      self->reply(to_reply(error));
    } catch (const std::exception& error) {
      log_warning(concat(self->request_id_, ": ", error_text(error)));
      self->reply(to_reply(internal_error(self->request_id_)));
    }
  });
}

void LabelJob::read(const std::string& body) {
  const OrderedJson json = parse_body(body);
  if (kind_ == Kind::kSetup) {
    BodyReader reader(json, "");
    return set_up(reader.text("schema", kMostSchemaBytes).value_or(""));
  }
  predict_ = read_predict_request(json);
  warn_of_left_out(predict_.config);
  parts_.writer.post([self = shared_from_this()] {
    self->labels_.resize(self->predict_.tasks.size() * self->controls());
    self->labels_.empty() ? self->finish() : self->ask_more();
  });
}

// A project without a config yet is fine.
void LabelJob::set_up(const std::string& schema) {
  if (!schema.empty()) warn_of_left_out(parse_label_config(schema, "schema"));
  const OrderedJson answer = {{"model_version", model_version()}};
  reply({.body = dump_text(answer)});
}

void LabelJob::ask_more() {
  while (!is_cancelled_ && running_.size() < kAskedAtOnce && next_ < labels_.size()) {
    const std::size_t index = next_++;
    running_[index] = nullptr;
    // Waiting for an instance must not keep those waiting whose media are here.
    (files_ ? parts_.fetching : parts_.media).post([self = shared_from_this(), index] {
      self->ask(index);
    });
  }
}

// In a pool: bodies hold pictures. Whatever happens ends with one call of take.
void LabelJob::ask(std::size_t index) {
  const std::size_t task = index / controls();
  const LabelControl& control = predict_.config.controls[index % controls()];
  const auto fail = [&](const std::string& error) {
    parts_.writer.post(
        [self = shared_from_this(), index, error] { self->take(index, {.error = error}); });
  };
  try {
    LabelQuestion question = make_label_question(predict_.config, control, predict_.tasks[task],
                                                 concat("tasks[", task, "]"), files_.get());
    const auto done = [self = shared_from_this(), index, &control,
                       choices = std::move(question.choices)](const WebReply& reply) {
      if (reply.status == 429 || reply.status == 503) return self->give_up(reply);
      self->take(index, read_label(control, choices, reply));
    };
    auto ask = InnerAsk::start(parts_,
                               {.body = question.body,
                                .id = concat(request_id_, ".", index + 1),
                                .asker = {.key = asker_.key}},
                               done);
    parts_.writer.post([self = shared_from_this(), index, ask] {
      if (self->is_cancelled_) ask->cancel();
      const auto place = self->running_.find(index);
      if (place != self->running_.end()) place->second = ask;
    });
  } catch (const ApiError& error) {
    fail(concat(control.name, ": ", error.what()));
  } catch (const std::exception& error) {
    log_warning(concat(request_id_, ": ", error_text(error)));
    fail(concat(control.name, ": the server failed; its log names request ", request_id_));
  }
}

void LabelJob::take(std::size_t index, Label label) {
  running_.erase(index);
  if (is_cancelled_) return;
  labels_[index] = std::move(label);
  if (++done_ == labels_.size()) return finish();
  ask_more();
}

// There is no room now: the instance may ask again, and keeps no empty prediction meanwhile.
void LabelJob::give_up(const WebReply& refusal) {
  if (is_cancelled_) return;
  cancel();
  reply(refusal);
}

void LabelJob::cancel() {
  is_cancelled_ = true;
  for (const auto& [index, ask] : running_) {
    if (ask) ask->cancel();
  }
  running_.clear();
}

void LabelJob::finish() {
  facts_->model = parts_.models->base().id();
  facts_->was_submitted = true;
  for (const Label& label : labels_) {
    facts_->prompt_tokens += label.prompt_tokens;
    facts_->completion_tokens += label.completion_tokens;
  }
  const bool has_any = std::any_of(labels_.begin(), labels_.end(),
                                   [](const Label& one) { return one.region.has_value(); });
  facts_->finish = has_any || labels_.empty() ? "stop" : "error";
  if (facts_->finish == "error") {
    return reply(to_reply(ApiError(
        {}, {.what = concat("no task could be answered; the first: ", labels_.front().error)})));
  }
  OrderedJson results = OrderedJson::array();
  std::size_t failed = 0;
  for (std::size_t task = 0; task < predict_.tasks.size(); ++task) {
    const auto begin = labels_.begin() + static_cast<std::ptrdiff_t>(task * controls());
    const std::vector<Label> own(begin, begin + static_cast<std::ptrdiff_t>(controls()));
    results.push_back(to_prediction(own, model_version()));
    failed += results.back().contains("error") ? 1 : 0;
  }
  if (failed > 0) {
    log_warning(concat(request_id_, ": ", failed, " of ", results.size(),
                       " tasks have labels without a prediction; the reply says why"));
  }
  const OrderedJson answer = {{"results", std::move(results)}};
  reply({.body = dump_text(answer)});
}

void LabelJob::reply(WebReply reply) {
  reply.headers.insert(reply.headers.end(), headers_.begin(), headers_.end());
  exchange_->reply(std::move(reply));
}

}  // namespace vlm::infer
