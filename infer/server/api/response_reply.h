// Answers in the form of OpenAI's Responses: one message of one text.
#pragma once

#include <string>

#include "infer/server/api/reply_writer.h"
#include "infer/server/api/response_request.h"

namespace vlm::infer {

class ResponseWriter : public ReplyWriter {
 public:
  ResponseWriter(ReplyHead head, AskedAnswer asked, ResponseEcho echo);

  std::string whole(const ReplyParts& parts) override;
  std::string begin() override;
  std::string piece(std::int64_t index, const ReplyChoice& more) override;
  std::string end(const ReplyParts& parts) override;
  std::string fail(const ApiError& error) override;

 private:
  OrderedJson response(const std::string& status, OrderedJson output, OrderedJson usage) const;
  OrderedJson item(const std::string& status, OrderedJson content) const;
  OrderedJson text_part(const ReplyChoice& answer) const;
  // "event: …" and "data: …"; `fields` go behind type and number.
  std::string event(const std::string& type, const OrderedJson& fields);
  OrderedJson place() const;

  const ReplyHead head_;
  const AskedAnswer asked_;
  const ResponseEcho echo_;
  const std::string item_id_;
  std::int64_t events_ = 0;
  ReplyChoice streamed_;  // so far
};

}  // namespace vlm::infer
