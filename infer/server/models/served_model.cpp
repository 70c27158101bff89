#include "infer/server/models/served_model.h"

#include <c10/core/ScalarType.h>

#include <algorithm>
#include <map>

#include "infer/server/api/api_error.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/io/tensor_digest.h"

namespace vlm::infer {
namespace {

// Of the weights as they are stored, adapters merged, and of what they are multiplied in.
std::string fingerprint_of(const VisionLanguageModel& model) {
  return concat("vlm-", digest_tensors(model.weights()).substr(0, 16), "-",
                c10::toString(model.product_dtype));
}

}  // namespace

ServedModel::ServedModel(std::string id, std::string parent, Session session,
                         const EngineOptions& engine, const ApiLimits& limits)
    : id_(std::move(id)),
      parent_(std::move(parent)),
      session_(std::move(session)),
      maker_(*session_.processor, limits, session_.model->media_token_ids()),
      fingerprint_(fingerprint_of(*session_.model)),
      engine_(std::make_unique<Engine>(*session_.generator, engine)) {}

std::shared_ptr<const AnswerGrammar> ServedModel::compile(const Constraint& constraint) {
  using Kind = Constraint::Kind;
  static const std::map<Kind, AnswerRule::Kind> kKinds = {
      {Kind::kJsonSchema, AnswerRule::Kind::kJsonSchema},
      {Kind::kJsonObject, AnswerRule::Kind::kJsonObject},
      {Kind::kRegex, AnswerRule::Kind::kRegex},
      {Kind::kGrammar, AnswerRule::Kind::kGrammar}};
  try {
    return session_.rules->compile({.kind = kKinds.at(constraint.kind), .text = constraint.text},
                                   "");
  } catch (const Error& error) {
    ErrorParts parts = error.parts();
    const auto place = std::min(parts.where.find('/'), parts.where.size());  // in the schema
    if (place < parts.where.size()) {
      parts.what = concat(parts.where.substr(place), ": ", parts.what);
    }
    throw ApiError({.code = "unsupported_schema", .param = constraint.param}, std::move(parts));
  }
}

}  // namespace vlm::infer
