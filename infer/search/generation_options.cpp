#include "infer/search/generation_options.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"
#include "vlm/models/registry.h"
#include "vlm/text/chat_template.h"

namespace vlm::infer {
namespace {

constexpr std::int64_t kMostRows = 256;
constexpr std::int64_t kMostGuesses = 15;

// One value or a list of values; null and absence leave the list empty.
Json read_list(const Json& json, const char* key) {
  const auto found = json.is_object() ? json.find(key) : json.end();
  if (!json.is_object() || found == json.end() || found->is_null()) return Json::array();
  return found->is_array() ? *found : Json::array({*found});
}

[[noreturn]] void refuse_type(const Json& json, const char* key, const std::string& where,
                              const std::string& wanted) {
  throw Error({.what = "wrong type",
               .where = where + ": " + key,
               .got = describe(json[key]),
               .wanted = wanted});
}

std::vector<std::int64_t> read_ids(const Json& json, const char* key, const std::string& where) {
  std::vector<std::int64_t> ids;
  for (const Json& id : read_list(json, key)) {
    if (!id.is_number_integer()) refuse_type(json, key, where, "an id or a list of ids");
    ids.push_back(id.get<std::int64_t>());
  }
  return ids;
}

std::vector<std::string> read_strings(const Json& json, const char* key, const std::string& where) {
  std::vector<std::string> strings;
  for (const Json& text : read_list(json, key)) {
    if (!text.is_string()) refuse_type(json, key, where, "a string or a list of strings");
    strings.push_back(text.get<std::string>());
  }
  return strings;
}

std::vector<std::vector<std::int64_t>> read_id_lists(const Json& json, const char* key,
                                                     const std::string& where) {
  std::vector<std::vector<std::int64_t>> lists;
  for (const Json& list : read_list(json, key)) {
    if (!list.is_array()) refuse_type(json, key, where, "a list of lists of ids");
    lists.push_back(read_ids({{key, list}}, key, where));
  }
  return lists;
}

// true, false or "never" in the file.
std::string read_early_stopping(const Json& json, const std::string& where) {
  const char* key = "early_stopping";
  if (!json.contains(key) || json[key].is_null()) return "false";
  if (json[key].is_boolean()) return json[key].get<bool>() ? "true" : "false";
  if (json[key] == "never") return "never";
  refuse_type(json, key, where, "true, false or \"never\"");
}

// config.json names ids at the top or, in older files, in text_config.
std::vector<std::int64_t> config_ids(const Json& config, const char* key,
                                     const std::string& where) {
  auto ids = read_ids(config, key, where);
  if (ids.empty() && config.contains("text_config")) {
    ids = read_ids(config["text_config"], key, where + ": text_config");
  }
  return ids;
}

// The token that tokenizer_config.json calls the end of a sequence, for files that name no ids.
std::vector<std::int64_t> tokenizer_end(const std::filesystem::path& folder) {
  const auto tokens = load_special_tokens(folder);
  const auto end = tokens.find("eos_token");
  const auto path = folder / "tokenizer.json";
  if (end == tokens.end() || !std::filesystem::exists(path)) return {};
  const Json json = load_json(path);
  const auto added = json.is_object() ? json.find("added_tokens") : json.end();
  if (!json.is_object() || added == json.end() || !added->is_array()) return {};
  for (const Json& token : *added) {
    const bool is_end = token.is_object() && token.value("content", Json()) == end->second &&
                        token.value("id", Json()).is_number_integer();
    if (is_end) return {token["id"].get<std::int64_t>()};
  }
  return {};
}

// Of config.json or, where it has none, the tokenizer's.
std::vector<std::int64_t> other_ends(const std::filesystem::path& folder) {
  const auto config = folder / "config.json";
  const auto ids = config_ids(load_json(config), "eos_token_id", config.string());
  return ids.empty() ? tokenizer_end(folder) : ids;
}

// Settings of GenerationConfig that would change answers, with the values that change nothing.
void warn_about_unsupported(const Json& json, bool samples, const std::string& where) {
  const std::vector<std::pair<const char*, Json>> neutral = {
      {"assistant_early_exit", nullptr},
      {"begin_suppress_tokens", nullptr},
      {"constraints", nullptr},
      {"diversity_penalty", 0.0},
      {"dola_layers", nullptr},
      {"encoder_no_repeat_ngram_size", 0},
      {"encoder_repetition_penalty", 1.0},
      {"exponential_decay_length_penalty", nullptr},
      {"force_words_ids", nullptr},
      {"forced_bos_token_id", nullptr},
      {"forced_eos_token_id", nullptr},
      {"guidance_scale", 1},
      {"max_time", nullptr},
      {"min_length", 0},
      {"num_beam_groups", 1},
      {"penalty_alpha", nullptr},
      {"renormalize_logits", false},
      {"sequence_bias", nullptr},
      {"suppress_tokens", nullptr},
      {"token_healing", false},
      {"watermarking_config", nullptr}};
  const std::vector<std::pair<const char*, Json>> neutral_in_sampling = {
      {"epsilon_cutoff", 0.0}, {"eta_cutoff", 0.0}, {"top_h", nullptr}};
  const auto warn = [&](const auto& settings) {
    for (const auto& [key, value] : settings) {
      if (!json.contains(key) || json[key].is_null() || json[key] == value) continue;
      log_warning_once(concat(where, ": ", key, " is not supported: answers are made without it"));
    }
  };
  warn(neutral);
  if (samples) warn(neutral_in_sampling);
}

// What a file says of sampling, and where that is of use.
bool is_usable(const std::string& key, const Json& value) {
  if (value.is_null()) return true;
  if (!value.is_number()) return false;
  const double number = value.get<double>();
  if (key == "top_k") return number >= 0;
  if (key == "min_p") return number >= 0 && number <= 1;
  return key == "top_p" ? number >= 0 : number > 0;
}

// As transformers treats what it doesn't refuse: a filter that would let everything pass is none,
// and what sampling would need is looked at for sampling alone.
void neutralize_unused_settings(Json& json, GenerationOptions& options, const std::string& where) {
  Json& samples = json["do_sample"];
  if (samples.is_number()) samples = samples != 0;
  for (const char* key : {"no_repeat_ngram_size", "min_new_tokens"}) {
    if (json.contains(key) && json[key].is_number() && json[key] < 0) json[key] = 0;
  }
  for (const char* key : {"top_p", "typical_p"}) {
    if (json.contains(key) && json[key].is_number() && json[key] > 1) json[key] = 1.0;
  }
  if (json.value("num_return_sequences", Json()) == 0) json["num_return_sequences"] = 1;
  for (const char* key : {"temperature", "top_k", "top_p", "typical_p", "min_p"}) {
    if (samples == true || !json.contains(key) || is_usable(key, json[key])) continue;
    options.unusable.push_back(concat(where, ": ", key, " is ", json[key].dump(),
                                      ": sampling goes on as if it weren't set"));
    json.erase(key);
  }
  // The likeliest token alone.
  if (json.value("top_p", Json()) == 0) json["top_p"] = std::numeric_limits<double>::min();
}

void check(bool is_right, const std::string& where, const char* what, const std::string& got,
           const std::string& wanted) {
  if (is_right) return;
  throw Error(
      {.what = concat(what, " is out of range"), .where = where, .got = got, .wanted = wanted});
}

}  // namespace

std::int64_t GenerationOptions::rows() const {
  return num_beams > 1 ? num_beams : num_return_sequences;
}

void GenerationOptions::validate(const std::string& where) const {
  const auto share = [&](const char* name, double value) {
    check(value > 0 && value <= 1, where, name, concat(value), "above 0, at most 1");
  };
  const auto count = [&](const char* name, std::int64_t value, std::int64_t least) {
    check(value >= least && value <= kMostRows, where, name, concat(value),
          concat(least, " to ", kMostRows));
  };
  check(temperature > 0, where, "temperature", concat(temperature), "above 0");
  check(repetition_penalty > 0, where, "repetition_penalty", concat(repetition_penalty), "above 0");
  check(top_k >= 0, where, "top_k", concat(top_k), "0 or more");
  check(no_repeat_ngram_size >= 0, where, "no_repeat_ngram_size", concat(no_repeat_ngram_size),
        "0 or more");
  check(max_new_tokens >= 0, where, "max_new_tokens", concat(max_new_tokens), "0 or more");
  check(min_new_tokens >= 0, where, "min_new_tokens", concat(min_new_tokens), "0 or more");
  share("top_p", top_p);
  share("typical_p", typical_p);
  if (min_p) check(*min_p >= 0 && *min_p <= 1, where, "min_p", concat(*min_p), "0 to 1");
  count("num_beams", num_beams, 1);
  count("num_return_sequences", num_return_sequences, 1);
  check(prompt_lookup_num_tokens >= 0 && prompt_lookup_num_tokens <= kMostGuesses, where,
        "prompt_lookup_num_tokens", concat(prompt_lookup_num_tokens),
        concat("0 to ", kMostGuesses));
  for (const std::string& stop : stop_strings) {
    check(!stop.empty(), where, "stop_strings", "an empty string", "text");
  }
  for (const auto& word : bad_words_ids) {
    check(!word.empty(), where, "bad_words_ids", "an empty list", "ids");
  }
  for (const std::string& setting : unusable) {
    if (do_sample) log_warning_once(setting);
  }
  const bool can_return =
      num_beams > 1 ? num_return_sequences <= num_beams : do_sample || num_return_sequences == 1;
  if (!can_return) {
    throw Error({.what = "num_return_sequences doesn't go with the search",
                 .where = where,
                 .got = concat(num_return_sequences),
                 .wanted = num_beams > 1 ? concat("at most num_beams = ", num_beams) : "1",
                 .hint = num_beams > 1 ? "" : "several answers need do_sample or num_beams"});
  }
}

GenerationOptions load_generation_options(const std::filesystem::path& folder) {
  GenerationOptions options;
  const std::vector<std::int64_t> own_ends = answer_ends(folder);
  const auto path = folder / "generation_config.json";
  if (!std::filesystem::exists(path)) {
    options.eos_token_ids = own_ends.empty() ? other_ends(folder) : own_ends;
    return options;
  }
  const std::string where = path.string();
  Json json = load_json(path);
  if (json.is_object()) neutralize_unused_settings(json, options, where);
  const Fields fields = {{"max_new_tokens", &options.max_new_tokens},
                         {"min_new_tokens", &options.min_new_tokens},
                         {"do_sample", &options.do_sample},
                         {"temperature", &options.temperature},
                         {"top_k", &options.top_k},
                         {"top_p", &options.top_p},
                         {"min_p", &options.min_p},
                         {"typical_p", &options.typical_p},
                         {"repetition_penalty", &options.repetition_penalty},
                         {"no_repeat_ngram_size", &options.no_repeat_ngram_size},
                         {"num_beams", &options.num_beams},
                         {"length_penalty", &options.length_penalty},
                         {"num_return_sequences", &options.num_return_sequences},
                         {"prompt_lookup_num_tokens", &options.prompt_lookup_num_tokens}};
  read_fields(json, fields, UnknownKeys::kIgnore, where);
  options.eos_token_ids = own_ends.empty() ? read_ids(json, "eos_token_id", where) : own_ends;
  if (options.eos_token_ids.empty() && std::filesystem::exists(folder / "config.json")) {
    options.eos_token_ids = other_ends(folder);
  }
  options.stop_strings = read_strings(json, "stop_strings", where);
  options.bad_words_ids = read_id_lists(json, "bad_words_ids", where);
  options.early_stopping = read_early_stopping(json, where);
  options.validate(where);
  warn_about_unsupported(json, options.do_sample, where);
  return options;
}

}  // namespace vlm::infer
