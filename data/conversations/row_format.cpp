#include "data/conversations/row_format.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/conversations/columns.h"
#include "data/conversations/conversation_builder.h"
#include "data/conversations/messages.h"
#include "data/conversations/question.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

MediaPlaces places_of(const Columns& columns) {
  const std::string& folder = columns.options().image_folder;
  const auto& row = columns.row();
  return {.root = {.folder = folder.empty() ? row.folder : std::filesystem::path(folder)},
          .members = row.members};
}

std::vector<MediaRef> column_media(const Columns& columns, MediaKind kind) {
  // What a tar's columns say of pictures is where they came from: its members are the pictures.
  const bool is_picture = kind == MediaKind::kPicture;
  if (is_picture && !columns.row().members.empty()) return columns.row().members;
  const std::string name = concat(part_type(kind), "s");
  const Json* column = columns.find(name);
  if (!column) return {};
  return read_media(kind, *column, places_of(columns),
                    concat(columns.row().where, ": ", columns.column(name)));
}

ConversationBuilder make_builder(const Columns& columns, bool clips_first = false) {
  std::vector<MediaRef> media = column_media(columns, MediaKind::kPicture);
  std::vector<MediaRef> clips = column_media(columns, MediaKind::kVideo);
  if (clips_first) media.swap(clips);
  media.insert(media.end(), clips.begin(), clips.end());
  return {columns.row().where, places_of(columns), std::move(media)};
}

// The list of a column.
const Json& require_list(const Columns& columns, const char* name) {
  const Json* list = columns.find(name);
  if (list && list->is_array() && !list->empty()) return *list;
  columns.fail(concat("no ", name), list ? *list : columns.row().columns,
               concat("an object with a list '", name, "'"));
}

// A text is one turn of `role`.
void add_turns(ConversationBuilder& builder, const Columns& columns, const char* name,
               const char* role) {
  const Json* value = columns.find(name);
  if (value && value->is_array()) return add_messages(builder, *value, name);
  if (!value || !value->is_string()) {
    columns.fail(concat("no ", name), value ? *value : columns.row().columns,
                 "a text or a list of messages");
  }
  builder.open(role);
  builder.add_plain_text(value->get<std::string>());
}

// The row's own system message, unless the conversation begins with the same.
void add_system(ConversationBuilder& builder, const Columns& columns, const Json* turns = nullptr) {
  const std::string system = columns.text("system");
  if (system.empty()) return;
  const Json first = turns && turns->is_array() && !turns->empty() ? turns->front() : Json();
  const bool is_message = first.is_object() && first.contains("role");
  if (first.is_object() && first.value(is_message ? "role" : "from", Json()) == "system") {
    const Json first_content = first.value(is_message ? "content" : "value", Json());
    if (first_content == system) return;
    throw Error({.what = "two system messages that differ",
                 .where = columns.row().where,
                 .got = concat("the column's ", describe(system), " and the first turn's ",
                               describe(first_content)),
                 .hint = "field_map {\"system\": null} leaves the column out"});
  }
  builder.open("system");
  builder.add_part_text(system);
}

Sample parse_messages(const Columns& columns) {
  ConversationBuilder builder = make_builder(columns);
  const Json& messages = require_list(columns, "messages");
  add_system(builder, columns, &messages);
  add_messages(builder, messages, "messages");
  return builder.finish();
}

Sample parse_prompt_completion(const Columns& columns) {
  ConversationBuilder builder = make_builder(columns);
  add_system(builder, columns, columns.find("prompt"));
  add_turns(builder, columns, "prompt", "user");
  builder.begin_completion();
  add_turns(builder, columns, "completion", "assistant");
  return builder.finish();
}

Sample parse_conversations(const Columns& columns) {
  ConversationBuilder builder = make_builder(columns);
  const Json& turns = require_list(columns, "conversations");
  add_system(builder, columns, &turns);
  for (std::size_t i = 0; i < turns.size(); ++i) {
    builder.set_place(concat("conversations[", i, "]"));
    add_turn(builder, turns[i]);
  }
  return builder.finish();
}

void add_question(ConversationBuilder& builder, const std::string& question) {
  builder.open("user");
  builder.add_plain_text(question);
}

void add_pair(ConversationBuilder& builder, const std::string& question,
              const std::string& answer) {
  add_question(builder, question);
  builder.open("assistant");
  builder.add_part_text(answer);
}

// The Cauldron's: questions and answers about the row's pictures, one after the other.
Sample parse_texts(const Columns& columns) {
  ConversationBuilder builder = make_builder(columns);
  const Json& texts = require_list(columns, "texts");
  add_system(builder, columns);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    builder.set_place(concat("texts[", i, "]"));
    const std::string& question = require_text(texts[i], "user", builder.where());
    add_pair(builder, question, require_text(texts[i], "assistant", builder.where()));
  }
  return builder.finish();
}

// Turns before the question's: Alpaca's and ms-swift's [[question, answer], …].
void add_history(ConversationBuilder& builder, const Columns& columns) {
  if (!columns.has("history")) return;
  const Json& history = *columns.find("history");
  const std::string where = columns.row().where + ": history";
  for (const Json& turn : history.is_array() ? history : Json::array({history})) {
    if (!turn.is_array() || turn.size() != 2) {
      throw Error({.what = "wrong type",
                   .where = where,
                   .got = describe(turn),
                   .wanted = "a list of pairs [question, answer]"});
    }
    add_pair(builder, text_of(turn[0], where), text_of(turn[1], where));
  }
}

// A row that asks nothing itself is asked the run's prompt. What its task says is then not asked.
std::string question_of(const Columns& columns, bool has_media) {
  if (const auto asked = ask_columns(columns)) return *asked;
  if (columns.has("task")) {
    throw Error(
        {.what = "a task without a question",
         .where = columns.row().where,
         .got = describe(*columns.find("task")),
         .hint = "field_map {\"query\": \"task\"} asks it, {\"task\": null} leaves it out"});
  }
  if (!has_media) {
    columns.fail("neither a question nor a picture", columns.row().columns,
                 "a column 'query', 'question', 'images' or 'file_name', or a field_map");
  }
  return ask_columns(columns, columns.options().prompt).value_or("");
}

Sample parse_query_response(const Columns& columns) {
  const Answers answers = read_answers(columns);
  ConversationBuilder builder = make_builder(columns);
  add_system(builder, columns);
  add_history(builder, columns);
  add_pair(builder, question_of(columns, builder.has_media()), answers.learned);
  Sample sample = builder.finish();
  sample.references = answers.all;
  return sample;
}

Sample parse_format(const Columns& columns, const std::string& format) {
  return format == "messages"            ? parse_messages(columns)
         : format == "prompt_completion" ? parse_prompt_completion(columns)
         : format == "conversations"     ? parse_conversations(columns)
         : format == "texts"             ? parse_texts(columns)
                                         : parse_query_response(columns);
}

// The row's format, where that is one of whole conversations; else "query_response". A prompt of
// messages begins a conversation, one of text is a question like others.
std::string request_format(const Columns& columns) {
  if (columns.options().format != "auto") return columns.options().format;
  for (const char* name : {"messages", "conversations", "texts"}) {
    if (columns.find(name)) return name;
  }
  const Json* prompt = columns.has("prompt") ? columns.find("prompt") : nullptr;
  const bool is_chat = prompt && prompt->is_array() && columns.has("completion");
  return is_chat ? "prompt_completion" : "query_response";
}

RowRequest parse_question(const Columns& columns, bool clips_first) {
  ConversationBuilder builder = make_builder(columns, clips_first);
  const auto asked = ask_columns(columns);
  if (!asked) {
    Sample silent{.messages = {}, .media = builder.media(), .where = columns.row().where};
    return {.sample = std::move(silent)};
  }
  const bool has_history = columns.has("history");
  add_system(builder, columns);
  add_history(builder, columns);
  add_question(builder, *asked);
  RowRequest request{.sample = builder.finish()};
  if (!has_history) request.question = *asked;
  return request;
}

RowRequest parse_conversation(const Columns& columns, const std::string& format) {
  if (format == "messages" && columns.has("query")) {
    throw Error({.what = concat("both 'messages' and '", columns.column("query"), "'"),
                 .where = columns.row().where,
                 .wanted = "one of them"});
  }
  RowRequest request{.sample = parse_format(columns, format)};
  const auto& messages = request.sample.messages;
  if (format != "messages" && messages.back().role == "assistant") drop_last_turn(request.sample);
  if (!messages.empty() && messages.back().role == "user") return request;
  throw Error({.what = "the conversation doesn't end with a user's turn",
               .where = columns.row().where,
               .got = messages.empty() ? "no turn before the answer"
                                       : concat("a last turn of the ", messages.back().role, "'s"),
               .hint = "vlm evaluate asks what stands before an answer"});
}

}  // namespace

const std::vector<std::string>& row_formats() {
  static const std::vector<std::string> formats = {"auto",          "messages", "prompt_completion",
                                                   "conversations", "texts",    "query_response"};
  return formats;
}

void check_row(const Row& row) {
  if (row.columns.is_object()) return;
  throw Error({.what = "not a row",
               .where = row.where,
               .got = describe(row.columns),
               .wanted = "an object"});
}

std::string detect_format(const Row& row, const DataOptions& options) {
  const Columns columns(row, options);
  if (columns.find("messages")) return "messages";
  if (columns.find("conversations")) return "conversations";
  if (columns.find("texts")) return "texts";
  if (columns.find("prompt") && columns.find("completion")) return "prompt_completion";
  if (columns.find("response")) return "query_response";
  if (columns.has("chosen") || columns.has("rejected")) columns.check_all_read();
  std::vector<std::string> there;
  for (const auto& [column, value] : row.columns.items()) there.push_back(column);
  throw Error(
      {.what = "a row of no known format",
       .where = row.where,
       .got = concat("columns ", join(there)),
       .wanted = concat("messages, conversations, texts, prompt and completion, or an answer in '",
                        options.text_column, "'"),
       .hint = "field_map names other columns"});
}

Sample parse_row(const Row& row, const DataOptions& options) {
  check_row(row);
  const Columns columns(row, options);
  Sample sample = parse_format(
      columns, options.format == "auto" ? detect_format(row, options) : options.format);
  columns.check_all_read();
  if (const Json* references = columns.find("references")) {
    if (!references->is_array()) columns.fail("wrong type", *references, "a list 'references'");
    sample.references.clear();
    for (const Json& reference : *references) {
      sample.references.push_back(text_of(reference, row.where + ": references"));
    }
  }
  return sample;
}

void drop_last_turn(Sample& sample) {
  for (const ContentPart& part : sample.messages.back().content) {
    if (part.type != "text") sample.media.pop_back();
  }
  sample.messages.pop_back();
}

RowRequest parse_request(const Row& row, const DataOptions& options, bool clips_first) {
  check_row(row);
  const Columns columns(row, options);
  const std::string format = request_format(columns);
  RowRequest request = format == "query_response" ? parse_question(columns, clips_first)
                                                  : parse_conversation(columns, format);
  const bool asks = !request.sample.messages.empty();
  columns.check_all_read(asks ? Columns::Use::kAsked : Columns::Use::kShown);
  return request;
}

}  // namespace vlm::data
