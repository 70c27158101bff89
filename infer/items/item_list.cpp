#include "infer/items/item_list.h"

#include <algorithm>
#include <filesystem>

#include "infer/items/item_failure.h"
#include "infer/structured/answer_rule.h"
#include "vlm/core/byte_escape.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

std::string last_text(const std::vector<Message>& messages) {
  std::string text;
  if (messages.empty()) return text;
  for (const ContentPart& part : messages.back().content) text += part.text;
  return text;
}

}  // namespace

ItemList::ItemList(std::unique_ptr<EntrySource> source, ItemListOptions options)
    : source_(std::move(source)), options_(std::move(options)) {
  const auto fields = template_fields(*source_);
  for (const Question& question : options_.questions) {
    templates_.emplace_back(question.text, fields);
  }
  if (!options_.prompt.empty()) prompt_.emplace(options_.prompt, fields);
  if (options_.has_text_files) name_text_files();
  if (!options_.questions.empty()) return;
  bool any_shared = false;
  for (std::int64_t i = 0; i < source_->size(); ++i) {
    const bool is_shared = i > 0 && source_->shares_media(i) && i - begins_.back() < kMostShared;
    any_shared = any_shared || is_shared;
    if (!is_shared) begins_.push_back(i);
  }
  if (!any_shared) begins_ = {};
}

bool ItemList::has_rules() const {
  return source_->has_rules() || std::ranges::any_of(options_.questions, [](const Question& one) {
           return !one.overrides.is_null();
         });
}

std::int64_t ItemList::items() const {
  return first_item(groups());
}

std::int64_t ItemList::groups() const {
  return begins_.empty() ? source_->size() : static_cast<std::int64_t>(begins_.size());
}

std::int64_t ItemList::first_item(std::int64_t group) const {
  if (!templates_.empty()) return group * static_cast<std::int64_t>(templates_.size());
  if (begins_.empty()) return group;
  return group < groups() ? begins_[static_cast<std::size_t>(group)] : source_->size();
}

std::vector<ItemGroup> ItemList::group(std::int64_t index) const {
  std::vector<ItemGroup> groups(1);
  const std::int64_t first = first_item(index);
  if (!templates_.empty()) {
    Entry entry = entry_at(index);
    for (std::size_t q = 0; q < templates_.size(); ++q) {
      groups[0].items.push_back(make_item(entry, q));
      groups[0].items.back().ordinal = first + static_cast<std::int64_t>(q);
    }
    groups[0].media = std::move(entry.media);
    return groups;
  }
  std::optional<std::vector<MediaRef>> shown;  // by the entries so far
  for (std::int64_t i = first; i < first_item(index + 1); ++i) {
    Entry entry = entry_at(i);
    // One that can't be asked shows nothing; its neighbours do.
    const bool shows = entry.error.empty();
    if (shows && shown && entry.media != *shown) groups.emplace_back();
    groups.back().items.push_back(make_item(entry, 0));
    groups.back().items.back().ordinal = i;
    if (!shows) continue;
    shown = entry.media;
    groups.back().media = std::move(entry.media);
  }
  return groups;
}

// Whatever a source meets in one entry is that entry's error.
Entry ItemList::entry_at(std::int64_t index) const {
  try {
    return source_->at(index);
  } catch (const std::exception& error) {
    return {.id = concat("entry ", index), .error = failure_text(error)};
  }
}

std::string ItemList::prompt_of(const Entry& entry, std::size_t question) const {
  if (!templates_.empty()) {
    if (!entry.messages.empty() && !entry.question) {
      throw Error({.what = "the row has its own conversation, and --question was given",
                   .hint = "ask rows with 'messages' without --question"});
    }
    return templates_[question].fill(entry);
  }
  if (entry.question) return *entry.question;
  if (!entry.messages.empty()) return last_text(entry.messages);
  if (!prompt_) throw Error({.what = "the row asks nothing", .hint = "give --question"});
  return prompt_->fill(entry);
}

BatchItem ItemList::make_item(const Entry& entry, std::size_t question) const {
  BatchItem item{.id = entry.id, .overrides = entry.overrides, .error = entry.error};
  std::string asked;
  if (item.error.empty()) {
    try {
      asked = prompt_of(entry, question);
      item.messages = conversation_of(entry, asked);
    } catch (const Error& error) {
      item.error = located(error, entry.id).what();
    } catch (const std::exception& error) {
      item.error = concat(entry.id, ": ", failure_text(error));
    }
  }
  const bool has_question = !options_.questions.empty();
  if (has_question && !options_.questions[question].overrides.is_null()) {
    if (item.overrides.is_null()) item.overrides = OrderedJson::object();
    for (const char* name : kRuleNames) item.overrides.erase(name);  // the question's counts
    item.overrides.update(options_.questions[question].overrides);
  }
  item.columns = columns_of(entry, asked);
  if (options_.questions.size() > 1) item.id += "#" + options_.questions[question].id;
  item.text_file = text_names_.name(text_place(entry, question));
  item.shares_text_file = text_names_.is_shared(item.text_file);
  return item;
}

// A whole conversation stays as it is; the run's system message goes in front of questions that
// have none of their own.
std::vector<Message> ItemList::conversation_of(const Entry& entry, const std::string& asked) const {
  if (!templates_.empty() || entry.messages.empty()) {
    return make_conversation(asked, entry.media, options_.system);
  }
  std::vector<Message> messages = entry.messages;
  const bool takes_system = entry.question && messages.front().role != "system";
  if (takes_system && !options_.system.empty()) {
    const ContentPart text{.type = "text", .text = options_.system};
    messages.insert(messages.begin(), Message{.role = "system", .content = {text}});
  }
  return messages;
}

TextFilePlace ItemList::text_place(const Entry& entry, std::size_t question) const {
  const bool has_file = !entry.media.empty() && entry.media[0].is_file();
  return {.medium = has_file ? entry.media[0].name : "",
          .question = options_.questions.size() > 1 ? options_.questions[question].id : ""};
}

void ItemList::name_text_files() {
  text_names_ = TextFileNames([this](const auto& use) {
    for (std::int64_t i = 0; i < source_->size(); ++i) {
      const Entry entry = entry_at(i);
      for (std::size_t q = 0; q < std::max<std::size_t>(templates_.size(), 1); ++q) {
        use(text_place(entry, q));
      }
    }
  });
}

OrderedJson ItemList::columns_of(const Entry& entry, const std::string& question) const {
  OrderedJson columns = OrderedJson::object();
  if (!entry.path.empty()) columns["path"] = escape_bytes(entry.path);
  if (options_.shows_question && !question.empty()) columns["question"] = question;
  for (const auto& [name, value] : entry.columns.items()) {
    columns[shown_name(name)] = exact_numbers(value);
  }
  return columns;
}

std::string ItemList::shown_name(const std::string& column) const {
  const auto holds = [&](const std::vector<std::string>& names) {
    return std::find(names.begin(), names.end(), column) != names.end();
  };
  const bool is_taken = column == "id" || column == "path" || column == "question" ||
                        holds(options_.reserved) || holds(options_.media_columns);
  return is_taken ? "input_" + column : column;
}

std::vector<std::string> ItemList::columns() const {
  std::vector<std::string> names = {"path"};
  if (options_.shows_question) names.emplace_back("question");
  for (const std::string& name : source_->columns()) names.push_back(shown_name(name));
  names.insert(names.end(), options_.media_columns.begin(), options_.media_columns.end());
  return names;
}

void ItemList::for_each_file(bool with_media,
                             const std::function<void(const std::string&)>& use) const {
  for (const std::string& file : source_->files()) use(file);
  for (std::int64_t i = 0; with_media && i < source_->size(); ++i) {
    for (const MediaRef& medium : entry_at(i).media) {
      if (medium.is_file()) use(medium.name);
    }
  }
}

std::string ItemList::digest() const {
  ListDigest digest;
  digest.add(static_cast<std::uint64_t>(items()));
  source_->add_to(digest);
  return digest.hex();
}

}  // namespace vlm::infer
