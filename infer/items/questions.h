// Questions put to every entry: templates whose {fields} are the entry's own.
//
// A field is {path}, {name} (of the file, without its folder), {stem} (without its suffix), {id} or
// a column of the entry; "{{" and "}}" stand for braces. The same rules hold for --prompt,
// --question and the lines of --questions, which are {"id"?, "question"}.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "infer/items/entry_source.h"

namespace vlm::infer {

class PromptTemplate {
 public:
  // Throws Error for an unmatched brace, and for a field that is not in `known`; it names those.
  PromptTemplate(const std::string& text, const std::vector<std::string>& known);

  // Throws Error when the entry has no value for a field. Values that are not text are their JSON.
  std::string fill(const Entry& entry) const;

 private:
  struct Piece {
    std::string text;
    bool is_field;
  };
  std::vector<Piece> pieces_;
};

struct Question {
  std::string id;  // no "/", so that it can be part of a file's name; unique in its list
  std::string text;
};

// Questions of the command line, called "1", "2", …, and behind them those of a file, called by
// their "id" or their place in the whole list. Throws Error naming the line.
std::vector<Question> load_questions(const std::vector<std::string>& texts,
                                     const std::string& file);

// All fields that templates over entries of the source may use.
std::vector<std::string> template_fields(const EntrySource& source);

}  // namespace vlm::infer
