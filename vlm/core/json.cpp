#include "vlm/core/json.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "vlm/core/ascii.h"
#include "vlm/core/concat.h"
#include "vlm/core/durable_file.h"
#include "vlm/core/error.h"
#include "vlm/core/text_file.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

// The last part of nlohmann's message: "[json.exception.parse_error.101] parse error at line 1 …:
// reason".
std::string reason_of(const std::exception& error) {
  const std::string text = error.what();
  const auto at = text.find("] ");
  return at == std::string::npos ? text : text.substr(at + 2);
}

// The type of nlohmann's binary values that stand for numbers as written.
constexpr std::uint64_t kWrittenNumber = 0x6e;

template <typename AnyJson>
AnyJson written_number(const std::string& text) {
  return AnyJson::binary({text.begin(), text.end()}, kWrittenNumber);
}

template <typename AnyJson>
bool is_written_number(const AnyJson& value) {
  return value.is_binary() && value.get_binary().has_subtype() &&
         value.get_binary().subtype() == kWrittenNumber;
}

template <typename AnyJson>
std::string written_text(const AnyJson& value) {
  const auto& bytes = value.get_binary();
  return {bytes.begin(), bytes.end()};
}

// What nlohmann's parser reports → a value, without what that lets pass: repeated keys and
// bottomless nesting.
template <typename AnyJson>
class Builder {
 public:
  Builder(const std::string& where, Numbers numbers) : where_(where), numbers_(numbers) {}

  bool null() { return add(nullptr); }
  bool boolean(bool value) { return add(value); }
  bool string(std::string& value) { return add(std::move(value)); }
  bool binary(typename AnyJson::binary_t& value) { return add(std::move(value)); }
  bool number_unsigned(std::uint64_t value) { return add(value); }

  // Zero is unsigned: as a signed number it was "-0".
  bool number_integer(std::int64_t value) {
    const bool is_kept = numbers_ == Numbers::kPlain || value != 0;
    return add(is_kept ? AnyJson(value) : written_number<AnyJson>("-0"));
  }

  // Whole numbers of more than 64 bits come here too.
  bool number_float(double value, const std::string& text) {
    if (numbers_ == Numbers::kPlain) return add(value);
    std::string written = text;
    for (char& c : written) {  // the parser writes the point of the C locale that is set
      if (!is_digit(c) && std::string_view("eE+-").find(c) == std::string_view::npos) c = '.';
    }
    AnyJson plain = value;
    return add(plain.dump() == written ? std::move(plain) : written_number<AnyJson>(written));
  }

  bool start_object(std::size_t) { return open(AnyJson::object()); }
  bool start_array(std::size_t) { return open(AnyJson::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }

  bool key(std::string& name) {
    auto& members = open_.back()->template get_ref<typename AnyJson::object_t&>();
    const auto [member, is_new] = members.emplace(name, nullptr);
    if (!is_new) {
      throw Error({.what = "key given twice", .where = where_, .got = Json(name).dump()});
    }
    place_ = &member->second;
    return true;
  }

  template <typename Exception>
  bool parse_error(std::size_t, const std::string&, const Exception& error) {
    throw Error({.what = "not valid JSON", .where = where_, .got = reason_of(error)});
  }

  AnyJson release() { return std::move(root_); }

 private:
  bool add(AnyJson value) {
    if (!open_.empty() && open_.back()->is_array()) {
      auto& elements = open_.back()->template get_ref<typename AnyJson::array_t&>();
      elements.push_back(std::move(value));
      place_ = &elements.back();
    } else {
      *place_ = std::move(value);
    }
    return true;
  }

  // What is open is the last of what holds it, so nothing moves it until it is closed.
  bool open(AnyJson value) {
    if (open_.size() >= kMaxJsonDepth) {
      throw Error({.what = "JSON is nested too deeply",
                   .where = where_,
                   .wanted = concat("at most ", kMaxJsonDepth, " levels")});
    }
    add(std::move(value));
    open_.push_back(place_);
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  const std::string& where_;
  const Numbers numbers_;
  AnyJson root_;
  AnyJson* place_ = &root_;     // of the next member, or of the whole
  std::vector<AnyJson*> open_;  // objects and arrays, the outermost first
};

template <typename AnyJson>
AnyJson build(std::string_view text, const std::string& where, Numbers numbers) {
  Builder<AnyJson> builder(where, numbers);
  text.remove_prefix(mark_size(text, where));
  AnyJson::sax_parse(text.begin(), text.end(), &builder);
  return builder.release();
}

// True when the digits that count are few enough for any double near that value.
bool fits_double(std::string_view text) {
  std::string digits;
  for (const char c : text.substr(0, text.find_first_of("eE"))) {
    if (is_digit(c) && (c != '0' || !digits.empty())) digits += c;
  }
  const std::size_t last = digits.find_last_not_of('0');
  if (last == std::string::npos) return true;
  return last < 15 && parse_json(text, "").get<double>() != 0;  // 1e-400 is none
}

Error file_error(const fs::path& path, const std::string& what) {
  return Error({.what = what, .where = path.string(), .got = std::strerror(errno)});
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where, Numbers numbers) {
  return build<Json>(text, where, numbers);
}

OrderedJson parse_ordered_json(std::string_view text, const std::string& where, Numbers numbers) {
  return build<OrderedJson>(text, where, numbers);
}

bool is_any_number(const Json& value) {
  return value.is_number() || is_written_number(value);
}

std::string number_text(const Json& value) {
  return is_written_number(value) ? written_text(value) : value.dump();
}

Json plain_numbers(Json value) {
  if (is_written_number(value)) return parse_json(written_text(value), "");
  if (value.is_structured()) {
    for (Json& one : value) one = plain_numbers(std::move(one));
  }
  return value;
}

OrderedJson exact_numbers(OrderedJson value) {
  if (is_written_number(value)) {
    const std::string text = written_text(value);
    return fits_double(text) ? parse_ordered_json(text, "") : OrderedJson(text);
  }
  if (value.is_structured()) {
    for (OrderedJson& one : value) one = exact_numbers(std::move(one));
  }
  return value;
}

Json load_json(const fs::path& path) {
  return parse_json(load_text(path), path.string());
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
  NewFile file(path);
  file.write(text);
  file.commit();
}

std::string describe(const Json& value) {
  if (value.is_object() || value.is_array() || value.is_null()) return value.type_name();
  if (is_written_number(value)) return concat("number ", written_text(value));
  if (value.is_binary()) return concat(value.get_binary().size(), " bytes");
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return concat(value.type_name(), " ", text);
}

}  // namespace vlm
