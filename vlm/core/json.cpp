#include "vlm/core/json.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

// Watches the parser for what nlohmann/json lets pass: repeated keys and bottomless nesting.
// An object that ends with fewer members than it had keys repeats one. To name that key the names
// have to be kept, which is dear for a vocabulary of 50,000: only a second pass does it.
class StructureCheck {
 public:
  enum class Pass { kCount, kName };

  StructureCheck(const std::string& where, Pass pass) : where_(where), pass_(pass) {}

  bool operator()(int depth, Json::parse_event_t event, Json& value) {
    using Event = Json::parse_event_t;
    if (depth > kMaxJsonDepth) {
      throw Error({.what = "JSON is nested too deeply",
                   .where = where_,
                   .wanted = concat("at most ", kMaxJsonDepth, " levels")});
    }
    if (event == Event::object_start) open_.emplace_back();
    if (event == Event::key) add_key(value);
    if (event == Event::object_end) {
      has_repeats_ = has_repeats_ || open_.back().keys != value.size();
      open_.pop_back();
    }
    return true;
  }

  bool has_repeats() const { return has_repeats_; }

 private:
  struct Object {
    std::size_t keys = 0;
    std::set<std::string> names;
  };

  void add_key(const Json& key) {
    ++open_.back().keys;
    if (pass_ == Pass::kCount) return;
    if (open_.back().names.insert(key.get_ref<const std::string&>()).second) return;
    throw Error({.what = "key given twice", .where = where_, .got = key.dump()});
  }

  std::string where_;
  Pass pass_;
  bool has_repeats_ = false;
  std::vector<Object> open_;
};

Json parse_checked(std::string_view text, StructureCheck& check) {
  return Json::parse(text.begin(), text.end(), std::ref(check));
}

// The last part of nlohmann's message: "[json.exception.parse_error.101] parse error at line 1 …:
// reason".
std::string reason_of(const std::exception& error) {
  const std::string text = error.what();
  const auto at = text.find("] ");
  return at == std::string::npos ? text : text.substr(at + 2);
}

Error file_error(const fs::path& path, const std::string& what) {
  return Error({.what = what, .where = path.string(), .got = std::strerror(errno)});
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where) {
  StructureCheck check(where, StructureCheck::Pass::kCount);
  try {
    Json parsed = parse_checked(text, check);
    if (check.has_repeats()) {
      StructureCheck naming(where, StructureCheck::Pass::kName);
      parse_checked(text, naming);
    }
    return parsed;
  } catch (const Json::exception& error) {
    throw Error({.what = "not valid JSON", .where = where, .got = reason_of(error)});
  }
}

Json load_json(const fs::path& path) {
  return parse_json(load_text(path), path.string());
}

OrderedJson parse_ordered_json(std::string_view text, const std::string& where) {
  parse_json(text, where);  // the checks of structure
  return OrderedJson::parse(text);
}

OrderedJson load_ordered_json(const fs::path& path) {
  return parse_ordered_json(load_text(path), path.string());
}

std::string load_text(const fs::path& path, std::size_t max_bytes) {
  std::error_code code;
  if (fs::is_directory(path, code)) {
    throw Error({.what = "is a folder, not a file", .where = path.string()});
  }
  std::ifstream in(path, std::ios::binary);
  if (!in) throw file_error(path, "can't open the file");
  std::string text;
  char block[1 << 16];
  while (in.read(block, sizeof block) || in.gcount() > 0) {
    text.append(block, static_cast<std::size_t>(in.gcount()));
    if (text.size() > max_bytes) {
      throw Error({.what = "file is too large",
                   .where = path.string(),
                   .wanted = concat("at most ", max_bytes, " bytes")});
    }
  }
  if (in.bad()) throw file_error(path, "can't read the file");
  return text;
}

void save_text(const fs::path& path, std::string_view text) {
  const fs::path temporary = concat(path.string(), ".tmp", ::getpid());
  std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
  if (!out) throw file_error(path, "can't write the file");
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  out.close();
  if (!out || std::rename(temporary.c_str(), path.c_str()) != 0) {
    const Error error = file_error(path, "can't write the file");
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw error;
  }
}

std::string describe(const Json& value) {
  if (value.is_object() || value.is_array() || value.is_null()) return value.type_name();
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return concat(value.type_name(), " ", text);
}

}  // namespace vlm
