// The bytes of an answer, whole or streamed, in the form of one of the APIs.
//
//   begin, piece …, end (or fail) ─► events        whole ─► the body of a reply
//
// Of one request; used by one thread at a time.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "infer/server/api/api_error.h"
#include "infer/server/api/chat_reply.h"

namespace vlm::infer {

class ReplyWriter {
 public:
  virtual ~ReplyWriter() = default;

  virtual std::string whole(const ReplyParts& parts) = 0;

  virtual std::string begin() = 0;
  // More of the index-th answer.
  virtual std::string piece(std::int64_t index, const ReplyChoice& more) = 0;
  // The choices of `parts` say how they ended.
  virtual std::string end(const ReplyParts& parts) = 0;
  virtual std::string fail(const ApiError& error) = 0;
};

// Chat completions, and plain ones.
class ChatWriter : public ReplyWriter {
 public:
  ChatWriter(ReplyHead head, AskedAnswer asked)
      : head_(std::move(head)), asked_(std::move(asked)) {}

  std::string whole(const ReplyParts& parts) override;
  std::string begin() override;
  std::string piece(std::int64_t index, const ReplyChoice& more) override;
  std::string end(const ReplyParts& parts) override;
  std::string fail(const ApiError& error) override;

 private:
  ReplyHead head_;
  AskedAnswer asked_;
  std::map<std::int64_t, std::int64_t> characters_;  // of each answer, that were sent
};

}  // namespace vlm::infer
