// Where the .txt with an item's answer lies: beside its picture or video.
//
//   a.jpg ─► a.txt          with several questions a.QUESTION.txt
//   a.jpg, a.png ─► a.jpg.txt, a.png.txt: names that two items would have take the suffix, too
//
// Items that still have one name (rows about one picture) share it; neither may be written.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_set>

namespace vlm::infer {

// What a name is made from. An empty medium: the item has no file to lie beside.
struct TextFilePlace {
  std::string medium;
  std::string question;  // its id; empty: there is one only
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
  std::unordered_set<std::uint64_t> long_ones_, shared_;  // digests of short names, of names
};

}  // namespace vlm::infer
