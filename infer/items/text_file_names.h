// The path of the .txt file with an item's answer: next to its picture or video.
//
//   a.jpg ─► a.txt, with several questions a.QUESTION.txt
//   a.jpg and a.png ─► a.jpg.txt and a.png.txt: two items can't both have a.txt
//
// Where two items still get one name (rows about the same picture), neither file is written.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_set>

namespace vlm::infer {

// What a name is made from. Empty medium: the item has no picture or video file.
struct TextFilePlace {
  std::string medium;
  std::string question;  // its id; empty: there is only one question
};

class TextFileNames {
 public:
  TextFileNames() = default;
  // `visit` calls its argument with the place of every item.
  explicit TextFileNames(
      const std::function<void(const std::function<void(const TextFilePlace&)>&)>& visit);

  std::string name(const TextFilePlace& place) const;
  bool is_shared(const std::string& name) const;

 private:
  std::unordered_set<std::uint64_t> long_names_,
      shared_;  // digests of names without the suffix, of all names
};

}  // namespace vlm::infer
