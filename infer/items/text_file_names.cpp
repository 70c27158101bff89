#include "infer/items/text_file_names.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "vlm/io/list_digest.h"

namespace vlm::infer {
namespace {

std::string make_name(const TextFilePlace& place, bool has_suffix) {
  std::filesystem::path file(place.medium);
  if (!has_suffix) file.replace_extension();
  return file.string() + (place.question.empty() ? "" : "." + place.question) + ".txt";
}

}  // namespace

TextFileNames::TextFileNames(
    const std::function<void(const std::function<void(const TextFilePlace&)>&)>& visit) {
  struct Named {
    std::uint64_t name, short_name;
  };
  // A name that got longer may be another item's: until nothing changes any more.
  for (std::size_t before = 1; before != long_names_.size();) {
    before = long_names_.size();
    std::vector<Named> names;
    visit([&](const TextFilePlace& place) {
      if (place.medium.empty()) return;
      names.push_back({digest_of(name(place)), digest_of(make_name(place, false))});
    });
    std::sort(names.begin(), names.end(),
              [](const Named& a, const Named& b) { return a.name < b.name; });
    shared_.clear();
    for (std::size_t i = 1; i < names.size(); ++i) {
      if (names[i].name != names[i - 1].name) continue;
      shared_.insert(names[i].name);
      for (const Named& named : {names[i - 1], names[i]}) long_names_.insert(named.short_name);
    }
  }
}

std::string TextFileNames::name(const TextFilePlace& place) const {
  if (place.medium.empty()) return "";
  const std::string name = make_name(place, false);
  return long_names_.count(digest_of(name)) > 0 ? make_name(place, true) : name;
}

bool TextFileNames::is_shared(const std::string& name) const {
  return shared_.count(digest_of(name)) > 0;
}

}  // namespace vlm::infer
