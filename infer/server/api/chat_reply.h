// Answers → the JSON that OpenAI's clients read, whole or as events of a stream.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "infer/engine/answer_pieces.h"
#include "infer/request.h"
#include "infer/server/api/request.h"

namespace vlm::infer {

// What every object of one answer says.
struct ReplyHead {
  std::string id;  // "chatcmpl-…", "cmpl-…"
  std::int64_t created = 0;
  std::string model, fingerprint;
  bool is_chat = true;  // else a plain completion: "text" in place of a message
};

// One of the answers to a request.
struct ReplyChoice {
  std::string text;
  std::vector<PieceToken> tokens;  // with log-probabilities, where they were asked for
  std::string finish_reason;
  std::int64_t characters_before = 0;  // of the answer, in pieces that were sent
};

// The whole reply. `own` is the member "vlm", left out when it is null; so are `timings`.
struct ReplyParts {
  std::vector<ReplyChoice> choices;
  OrderedJson usage;
  OrderedJson own, timings;
};
std::string whole_reply(const ReplyHead& head, const AskedAnswer& asked, const ReplyParts& parts);

// The member "logprobs" of a choice; null where they weren't asked for.
OrderedJson logprobs_json(const AskedAnswer& asked, const std::vector<PieceToken>& tokens);
// The same in the form of plain completions: lists beside each other, and where tokens begin.
OrderedJson plain_logprobs_json(const AskedAnswer& asked, const ReplyChoice& choice);
// Characters of a text, or of a part of one: bytes that don't begin one don't count.
std::int64_t count_characters(const std::string& bytes);

OrderedJson usage_of(const RequestAnswer& answer);
// Token counts and times under llama.cpp's names.
OrderedJson timings_of(const RequestAnswer& answer);
// mean_logprob, min_logprob and first_token_entropy; a list of them for several answers.
OrderedJson confidence_of(const RequestAnswer& answer);

// Events of a stream, each "data: …" with an empty line behind it.
std::string role_event(const ReplyHead& head, const AskedAnswer& asked, std::int64_t index);
std::string piece_event(const ReplyHead& head, const AskedAnswer& asked, std::int64_t index,
                        const ReplyChoice& piece);
std::string finish_event(const ReplyHead& head, const AskedAnswer& asked, std::int64_t index,
                         const std::string& finish_reason);
// The last one, when it is asked for, or when there is something of our own to say.
std::string usage_event(const ReplyHead& head, const ReplyParts& parts);
std::string data_event(const OrderedJson& json);
inline constexpr const char* kDoneEvent = "data: [DONE]\n\n";
inline constexpr const char* kBeatEvent = ": keep-alive\n\n";

}  // namespace vlm::infer
