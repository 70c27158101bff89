#include "infer/server/served_model.h"

#include <c10/core/ScalarType.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <map>
#include <set>

#include "infer/server/api/api_error.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/io/tensor_digest.h"

namespace vlm::infer {
namespace {

// "org/name" as it is, a folder by its last part.
std::string name_of_model(const std::string& model) {
  if (!std::filesystem::is_directory(model)) return model;
  const auto path = std::filesystem::weakly_canonical(model);
  return path.filename().string();
}

// Of the weights as they are stored, adapters merged, and of what they are multiplied in.
std::string fingerprint_of(const VisionLanguageModel& model) {
  return concat("vlm-", digest_tensors(model.weights()).substr(0, 16), "-",
                c10::toString(model.product_dtype));
}

}  // namespace

ServedModel::ServedModel(Identity identity, Session session, const EngineOptions& engine,
                         const ApiLimits& limits)
    : identity_(std::move(identity)),
      session_(std::move(session)),
      maker_(session_.generator->processor(), limits, session_.model->media_token_ids()),
      fingerprint_(fingerprint_of(*session_.model)),
      created_(std::time(nullptr)),
      engine_(std::make_unique<Engine>(*session_.generator, engine)) {}

std::shared_ptr<const AnswerGrammar> ServedModel::compile(const Constraint& constraint) {
  using Kind = Constraint::Kind;
  if (constraint.kind == Kind::kNone || constraint.kind == Kind::kChoice) return nullptr;
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

bool ServedModel::answers_to(const std::string& name) const {
  const auto& aliases = identity_.aliases;
  return name == identity_.id || std::find(aliases.begin(), aliases.end(), name) != aliases.end();
}

ServedModels load_served_models(const ModelSource& source, const RuntimeOptions& runtime,
                                const EngineOptions& engine, const ApiLimits& limits) {
  ServedModel::Identity base{.id = name_of_model(source.choice.model)};
  if (!source.names.empty()) {
    base.id = source.names[0];
    base.aliases.assign(source.names.begin() + 1, source.names.end());
  }
  std::set<std::string> names(base.aliases.begin(), base.aliases.end());
  names.insert(base.id);
  for (const AdapterSource& adapter : source.adapters) {
    if (names.insert(adapter.name).second) continue;
    throw Error({.what = "two models of one name", .where = "--lora-modules", .got = adapter.name});
  }
  ServedModels models;
  const auto add = [&](const ModelChoice& choice, ServedModel::Identity identity) {
    Session session = open_session(choice, runtime);
    session.generator->set_feature_cache(open_feature_cache(source.features, *session.model));
    models.push_back(
        std::make_unique<ServedModel>(std::move(identity), std::move(session), engine, limits));
  };
  add(source.choice, base);
  for (const AdapterSource& adapter : source.adapters) {
    ModelChoice choice = source.choice;
    choice.adapter = adapter.path;
    add(choice, {.id = adapter.name, .parent = base.id});
  }
  return models;
}

}  // namespace vlm::infer
