// A chat completion that is asked from within the program, without a socket.
//
//   body of a chat request ─► AnswerJob ─► the reply that an HTTP client would get
//
// So other front doors share the whole way of a request: media, limits, queue, adapters, metrics.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "infer/server/answer_job.h"

namespace vlm::infer {

class InnerAsk : public Exchange {
 public:
  // Called once, on a thread of the service, unless the request is cancelled.
  using Done = std::function<void(const WebReply&)>;

  struct Ask {
    const OrderedJson& body;
    std::string id;  // names the request in the log
    AnswerJob::Asker asker = {};
  };
  // Any thread.
  static std::shared_ptr<InnerAsk> start(ServiceParts& parts, Ask asked, Done done);
  // Any thread; done isn't called any more.
  void cancel();

  void reply(WebReply reply) override;
  // Streams aren't asked for: the answer comes whole.
  void begin_stream(WebReply /*head*/, std::string /*beat*/) override {}
  void send(std::string /*piece*/) override {}
  void end_stream() override {}
  bool is_gone() const override { return is_gone_; }
  void on_gone(std::function<void()> callback) override;

 private:
  std::atomic<bool> is_gone_{false};
  std::mutex mutex_;  // of the two below
  Done done_;
  std::function<void()> on_gone_;
};

// The text of an error's message in such a reply.
std::string message_of(const WebReply& reply);

}  // namespace vlm::infer
