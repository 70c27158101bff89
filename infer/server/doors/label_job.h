// What a Label Studio instance asks of its backend: POST /setup and /predict.
//
//   body ─► read (media pool) ─► a few InnerAsks at a time ─► predictions, in the tasks' order
//
// A task that can't be answered gets an empty prediction with its error, and the others go on;
// where none can be, the reply is the first one's error, so that the instance shows it; so it is
// where the server has no room. A client that leaves cancels what runs.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "infer/server/doors/inner_ask.h"
#include "infer/server/doors/label_tasks.h"

namespace vlm::infer {

class LabelJob : public std::enable_shared_from_this<LabelJob> {
 public:
  enum class Kind { kSetup, kPredict };

  // `files` of the instance, or null.
  LabelJob(ServiceParts& parts, Kind kind, std::shared_ptr<const LabelFiles> files,
           std::shared_ptr<Exchange> exchange, AnswerJob::Asker asker);

  // On the network thread. `headers` go with the reply.
  void start(WebRequest request, std::vector<HttpHeader> headers);

 private:
  void read(const std::string& body);
  void set_up(const std::string& schema);
  void ask_more();
  void ask(std::size_t index);
  void take(std::size_t index, Label label);
  void give_up(const WebReply& refusal);
  void cancel();
  void finish();
  void reply(WebReply reply);
  std::string model_version() const;
  std::size_t controls() const { return predict_.config.controls.size(); }

  ServiceParts& parts_;
  const Kind kind_;
  const std::shared_ptr<const LabelFiles> files_;
  const std::shared_ptr<Exchange> exchange_;
  const AnswerJob::Asker asker_;  // whose place is one for all that is asked
  const std::shared_ptr<RequestFacts> facts_ = std::make_shared<RequestFacts>();
  std::string request_id_;
  std::vector<HttpHeader> headers_;

  PredictRequest predict_;  // set in the pool, before the writer sees the job

  // The writer's. A question is task × controls + control.
  std::vector<Label> labels_;
  std::size_t next_ = 0, done_ = 0;
  bool is_cancelled_ = false;
  std::map<std::size_t, std::shared_ptr<InnerAsk>> running_;
};

}  // namespace vlm::infer
