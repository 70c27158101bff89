// Questions that are asked about every entry: templates with {fields} that each entry fills in.
//
//   "Is {name} a cat?" + an entry of /data/cat.png ─► "Is cat.png a cat?"
//
// Fields are {path}, {name} (file name), {stem} (file name without suffix), {id}, and the entry's
// columns; "{{" and "}}" are braces. --prompt, --question and the lines of --questions
// ({"id", "question"}, the id optional, and response_format or structured_outputs, which say what
// the answer must look like) use these templates.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "infer/items/entry_source.h"

namespace vlm::infer {

class PromptTemplate {
 public:
  // Throws Error for an unmatched brace and for a field that is not in `known`, which it lists.
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
  OrderedJson overrides = {};  // what its answer must look like; null: nothing
};

// Questions of the command line, then those of a file. Their id is the file's "id" or, without one,
// their number in the whole list: "1", "2", …. Throws Error naming the line.
std::vector<Question> load_questions(const std::vector<std::string>& texts,
                                     const std::string& file);

// All fields that templates over entries of the source may use.
std::vector<std::string> template_fields(const EntrySource& source);

}  // namespace vlm::infer
