// Entries × questions → numbered items, in groups that show the same media.
//
// With questions of the command line, each entry becomes a group with one item for each question.
// Without them, each entry is one item, with the question of its row or the default prompt; entries
// that follow each other with the same media share a group, kMostShared at most. Items are made
// when their group is asked for, so memory doesn't grow with their number.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "infer/items/entry_source.h"
#include "infer/items/questions.h"
#include "infer/items/text_file_names.h"

namespace vlm::infer {

struct ItemListOptions {
  std::vector<Question> questions = {};  // asked about every entry, in place of the row's question
  std::string prompt = {};               // for entries that ask nothing; empty: an error of the row
  std::string system = {};               // first message, except where a row has a conversation
  bool shows_question = true;            // false: rows have no column "question"
  std::vector<std::string> reserved = {};       // names of the answer's columns
  std::vector<std::string> media_columns = {};  // columns filled in when media are read; reserved
  bool has_text_files = false;                  // fills in BatchItem::text_file
};

class ItemList {
 public:
  // Throws Error for a template's unknown field.
  ItemList(std::unique_ptr<EntrySource> source, ItemListOptions options);

  std::int64_t items() const;
  std::int64_t groups() const;
  bool shows_videos() const { return source_->shows_videos(); }
  // True when some items say what their answer must look like.
  bool has_rules() const;
  bool has_left_out() const { return !source_->left_out().empty(); }
  // Ordinal of the group's first item; for groups(), the number of items.
  std::int64_t first_item(std::int64_t group) const;

  // The group's items, in order. Usually one ItemGroup; several when reading the rows showed that
  // their media differ. Thread-safe.
  std::vector<ItemGroup> group(std::int64_t index) const;

  // Names of the columns that rows may have after the id. An input column with a name that output
  // rows use for something else is renamed to "input_…".
  std::vector<std::string> columns() const;

  // Calls `use` with every file that items come from: first the files that hold entries, then, with
  // `with_media`, the pictures and videos that are known without reading rows.
  void for_each_file(bool with_media, const std::function<void(const std::string&)>& use) const;

  // A digest that differs for every other list of items.
  std::string digest() const;

 private:
  static constexpr std::int64_t kMostShared = 64;

  Entry entry_at(std::int64_t index) const;
  BatchItem make_item(const Entry& entry, std::size_t question) const;
  std::vector<Message> conversation_of(const Entry& entry, const std::string& asked) const;
  TextFilePlace text_place(const Entry& entry, std::size_t question) const;
  void name_text_files();
  std::string prompt_of(const Entry& entry, std::size_t question) const;
  OrderedJson columns_of(const Entry& entry, const std::string& question) const;
  std::string shown_name(const std::string& column) const;

  std::unique_ptr<EntrySource> source_;
  ItemListOptions options_;
  std::vector<PromptTemplate> templates_;  // of the questions
  std::optional<PromptTemplate> prompt_;   // of the default prompt
  std::vector<std::int64_t> begins_;       // first entry of each group, when groups share pictures
  TextFileNames text_names_;
};

}  // namespace vlm::infer
