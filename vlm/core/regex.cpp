#include "vlm/core/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm {
namespace {

constexpr std::size_t kMaxRegexBytes = 1 << 16;
constexpr std::size_t kJitStackStart = 32 << 10;
constexpr std::size_t kJitStackMax = 16 << 20;
// Steps of backtracking a match may take: enough for long runs of spaces, an end for (a+)+b.
constexpr std::uint32_t kMinMatchLimit = 20'000'000;
// Groups whose place a match keeps; more are matched, and can't be asked for.
constexpr std::uint32_t kMostGroups = 32;

// What a match writes to, one for each thread.
struct MatchState {
  MatchState()
      : data(pcre2_match_data_create(kMostGroups + 1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr)) {
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~MatchState() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  MatchState(const MatchState&) = delete;
  MatchState& operator=(const MatchState&) = delete;

  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

MatchState& match_state() {
  thread_local MatchState state;
  return state;
}

// Refuses what Python's `re` doesn't have, or reads differently from PCRE2.
class PythonCheck {
 public:
  PythonCheck(const std::string& regex, const std::string& where) : regex_(regex), where_(where) {}

  void run() {
    bool in_class = false;
    for (std::size_t at = 0; at < regex_.size(); ++at) {
      const std::string_view remaining = std::string_view(regex_).substr(at);
      if (remaining[0] == '\\') {
        check_escape(remaining);
        ++at;
      } else if (in_class) {
        if (is_any_of(remaining.substr(0, 2), {"[:", "[=", "[."})) refuse(remaining.substr(0, 2));
        in_class = remaining[0] != ']';
      } else if (remaining[0] == '[') {
        in_class = true;
        at += remaining.substr(0, 2) == "[^" ? 1 : 0;
        if (at + 1 < regex_.size() && regex_[at + 1] == ']') ++at;  // stands for itself
      } else {
        check_outside(remaining);
      }
    }
  }

 private:
  static bool is_any_of(std::string_view text, std::initializer_list<std::string_view> known) {
    return std::find(known.begin(), known.end(), text) != known.end();
  }

  [[noreturn]] void refuse(std::string_view construct) const {
    throw Error({.what = "regular expression uses a construct that Python doesn't have, or reads "
                         "differently",
                 .where = where_,
                 .got = concat("\"", construct, "\" in \"", regex_, "\"")});
  }

  void check_escape(std::string_view remaining) const {
    const char c = remaining.size() > 1 ? remaining[1] : '\\';
    const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (is_letter && std::string_view("AbBdDsSwWZafnrtx").find(c) == std::string_view::npos) {
      refuse(remaining.substr(0, 2));
    }
  }

  void check_outside(std::string_view remaining) const {
    if (is_any_of(remaining.substr(0, 2), {"(*", "{,"})) refuse(remaining.substr(0, 2));
    if (remaining.substr(0, 2) != "(?" || remaining.size() < 3) return;
    if (is_any_of(remaining.substr(2, 2), {"P<", "P=", "<=", "<!"})) return;
    const char c = remaining[2];
    if (std::string_view(":=!>#(-imsx").find(c) == std::string_view::npos) {
      refuse(remaining.substr(0, 3));
    }
  }

  const std::string& regex_;
  const std::string& where_;
};

}  // namespace

struct Regex::Code {
  Code(const std::string& expression, std::string place, const std::string& shown)
      : where(std::move(place)) {
    if (expression.size() > kMaxRegexBytes) {
      throw Error({.what = "regular expression is too long",
                   .where = where,
                   .got = concat(expression.size(), " bytes"),
                   .wanted = concat("at most ", kMaxRegexBytes)});
    }
    pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int error = 0;
    PCRE2_SIZE offset = 0;
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                         PCRE2_UTF | PCRE2_UCP, &error, &offset, context);
    pcre2_compile_context_free(context);
    if (code == nullptr) refuse(shown, error);
    // Without executable memory this fails, and matching falls back to the interpreter.
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  }
  ~Code() { pcre2_code_free(code); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;

  [[noreturn]] void refuse(const std::string& shown, int error) const {
    unsigned char message[256] = "";
    pcre2_get_error_message(error, message, sizeof message);
    throw Error({.what = concat("not a regular expression: ", message),
                 .where = where,
                 .got = concat("\"", shown, "\"")});
  }

  // Fills this thread's match_state; false where nothing matches.
  bool match(std::string_view text, std::size_t from, std::uint32_t options) const {
    MatchState& state = match_state();
    const auto limit = std::min<std::size_t>(text.size() * 16, 0xFFFFFFFF);
    pcre2_set_match_limit(state.context,
                          std::max(kMinMatchLimit, static_cast<std::uint32_t>(limit)));
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    options |= PCRE2_NO_UTF_CHECK;
    int rc = pcre2_match(code, subject, text.size(), from, options, state.data, state.context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      options |= PCRE2_NO_JIT;
      rc = pcre2_match(code, subject, text.size(), from, options, state.data, state.context);
    }
    if (rc == PCRE2_ERROR_NOMATCH) return false;
    if (rc >= 0) return true;
    throw Error({.what = "regular expression needs too many steps for this text",
                 .where = where,
                 .got = concat("code ", rc, " for ", text.size(), " bytes")});
  }

  pcre2_code* code = nullptr;
  std::string where;
};

Regex::Regex(std::unique_ptr<Code> code) : code_(std::move(code)) {}
Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

Regex Regex::compile(const std::string& expression, const std::string& where,
                     const std::string& shown) {
  return Regex(std::make_unique<Code>(expression, where, shown));
}

Regex Regex::from_python(const std::string& expression, const std::string& where) {
  PythonCheck(expression, where).run();
  return compile(expression, where, expression);
}

std::optional<std::pair<std::size_t, std::size_t>> Regex::find(std::string_view text,
                                                               std::size_t from) const {
  if (!code_->match(text, from, 0)) return std::nullopt;
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(match_state().data);
  return std::pair<std::size_t, std::size_t>(ends[0], ends[1]);
}

bool Regex::matches_whole(std::string_view text) const {
  return code_->match(text, 0, PCRE2_ANCHORED | PCRE2_ENDANCHORED);
}

bool Regex::matches_begin(std::string_view text) const {
  return code_->match(text, 0, PCRE2_ANCHORED);
}

std::optional<std::string> Regex::group(std::string_view text, const std::string& name) const {
  if (!matches_begin(text)) return std::nullopt;
  const int number =
      pcre2_substring_number_from_name(code_->code, reinterpret_cast<PCRE2_SPTR>(name.c_str()));
  if (number < 1 || number > static_cast<int>(kMostGroups)) return std::nullopt;
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(match_state().data) + 2 * number;
  if (ends[0] == PCRE2_UNSET) return std::nullopt;
  return std::string(text.substr(ends[0], ends[1] - ends[0]));
}

}  // namespace vlm
