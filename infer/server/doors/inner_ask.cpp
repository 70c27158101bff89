#include "infer/server/doors/inner_ask.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"

namespace vlm::infer {

std::shared_ptr<InnerAsk> InnerAsk::start(ServiceParts& parts, Ask asked, Done done) {
  auto ask = std::make_shared<InnerAsk>();
  ask->done_ = std::move(done);
  WebRequest request{.method = "POST", .path = "/v1/chat/completions", .id = std::move(asked.id)};
  request.body = dump_text(asked.body);
  const auto job =
      std::make_shared<AnswerJob>(parts, AnswerJob::Kind::kChat, ask, std::move(asked.asker));
  job->start(std::move(request), {});
  return ask;
}

void InnerAsk::cancel() {
  is_gone_ = true;
  std::function<void()> on_gone;
  {
    const std::lock_guard lock(mutex_);
    done_ = nullptr;
    on_gone = std::exchange(on_gone_, nullptr);
  }
  if (on_gone) on_gone();
}

void InnerAsk::reply(WebReply reply) {
  Done done;
  {
    const std::lock_guard lock(mutex_);
    done = std::exchange(done_, nullptr);
    on_gone_ = nullptr;
  }
  if (done) done(reply);
}

void InnerAsk::on_gone(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (!is_gone_) {
      on_gone_ = std::move(callback);
      return;
    }
  }
  callback();
}

std::string message_of(const WebReply& reply) {
  const OrderedJson body = OrderedJson::parse(reply.body, nullptr, false);
  const bool is_error = body.is_object() && body.contains("error");
  return is_error ? body["error"].value("message", "") : concat("status ", reply.status);
}

}  // namespace vlm::infer
