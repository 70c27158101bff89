#include "vlm/text/bpe/decoder.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "vlm/core/error.h"
#include "vlm/core/json_access.h"
#include "vlm/text/bpe/bpe_pattern.h"
#include "vlm/text/bpe/byte_level.h"
#include "vlm/text/unicode/unicode.h"

namespace vlm {
namespace {

// Without a decoder, tokens are joined with spaces.
class JoinWithSpaces : public DecodeStep {
 public:
  void add(std::string_view token, const Next& next) override {
    if (!first_) next(" ");
    first_ = false;
    next(token);
  }

 private:
  bool first_ = true;
};

// Symbols back to bytes. A token with a character outside the alphabet (an added token, say) stands
// for itself.
class ByteLevelStep : public DecodeStep {
 public:
  void add(std::string_view token, const Next& next) override {
    next(stream_.add(bytes_of(token)));
  }
  void finish(const Next& next) override { next(stream_.finish()); }

  static std::string bytes_of(std::string_view token) {
    std::string bytes;
    std::size_t at = 0;
    while (at < token.size()) {
      const auto byte = byte_of_symbol(next_code_point(token, at));
      if (!byte) return std::string(token);
      bytes += *byte;
    }
    return bytes;
  }

 private:
  Utf8Stream stream_;
};

class ReplaceStep : public DecodeStep {
 public:
  ReplaceStep(std::shared_ptr<const Pattern> pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}

  void add(std::string_view token, const Next& next) override {
    next(pattern_->replace_all(std::string(token), content_));
  }

 private:
  std::shared_ptr<const Pattern> pattern_;
  std::string content_;
};

// "<0xE2>" "<0x82>" "<0xAC>" → "€". A run of such tokens that isn't UTF-8 as a whole becomes one
// U+FFFD a token, so nothing of a run is decided before its end.
class ByteFallbackStep : public DecodeStep {
 public:
  void add(std::string_view token, const Next& next) override {
    if (const auto byte = byte_of(token)) {
      run_ += *byte;
      return;
    }
    finish(next);
    next(token);
  }

  void finish(const Next& next) override {
    if (run_.empty()) return;
    if (is_valid_utf8(run_)) {
      next(run_);
    } else {
      for (std::size_t i = 0; i < run_.size(); ++i) next(to_utf8(kReplacementCharacter));
    }
    run_.clear();
  }

  static std::optional<char> byte_of(std::string_view token) {
    if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return std::nullopt;
    unsigned value = 0;
    const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, value, 16);
    if (error != std::errc() || end != token.data() + 5) return std::nullopt;
    return static_cast<char>(value);
  }

 private:
  std::string run_;
};

// Takes up to `start` characters off the beginning and up to `stop` off the end: of each token, or
// of all text when a Fuse came before.
struct StripOptions {
  std::string content;  // one character
  std::size_t start = 0;
  std::size_t stop = 0;
  bool fused = false;
};

class StripStep : public DecodeStep {
 public:
  explicit StripStep(StripOptions options) : options_(std::move(options)) {}

  void add(std::string_view token, const Next& next) override {
    if (token.empty()) return;
    if (!options_.fused) {
      to_strip_ = options_.start;
      held_.clear();
    }
    while (to_strip_ > 0 && !token.empty()) {
      if (!token.starts_with(options_.content)) {
        to_strip_ = 0;
        break;
      }
      token.remove_prefix(options_.content.size());
      --to_strip_;
    }
    held_ += token;
    // Whatever stands before the last `stop` repeats of the character is decided.
    std::size_t tail = 0;
    std::string_view remaining = held_;
    while (tail < options_.stop && remaining.ends_with(options_.content)) {
      remaining.remove_suffix(options_.content.size());
      ++tail;
    }
    next(std::string(remaining));
    held_.erase(0, remaining.size());
  }

 private:
  StripOptions options_;
  std::size_t to_strip_ = options_.start;
  std::string held_;
};

std::size_t get_count(const Json& json, const std::string& key, const std::string& where) {
  const Json& value = get_member(json, key, where);
  if (value.is_number_unsigned()) return value.get<std::size_t>();
  throw Error({.what = "wrong type",
               .where = inside(where, key),
               .got = describe(value),
               .wanted = "count"});
}

StripOptions read_strip(const Json& json, const std::string& where, bool fused) {
  StripOptions options{.content = get_string(json, "content", where),
                       .start = get_count(json, "start", where),
                       .stop = get_count(json, "stop", where),
                       .fused = fused};
  if (options.content.empty() ||
      utf8_size(static_cast<unsigned char>(options.content[0])) != options.content.size()) {
    throw Error({.what = "wrong value",
                 .where = inside(where, "content"),
                 .got = "\"" + options.content + "\"",
                 .wanted = "one character"});
  }
  return options;
}

}  // namespace

std::string DecodeChain::add(std::string_view token) {
  std::string text;
  feed(0, token, text);
  return text;
}

std::string DecodeChain::finish() {
  std::string text;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    steps_[i]->finish([&](std::string_view token) { feed(i + 1, token, text); });
  }
  return text;
}

void DecodeChain::feed(std::size_t step, std::string_view token, std::string& text) {
  if (step == steps_.size()) {
    text += token;
    return;
  }
  steps_[step]->add(token, [&](std::string_view result) { feed(step + 1, result, text); });
}

Decoder::Decoder(const Json* json, const std::string& where) {
  if (json == nullptr) {
    makers_.emplace_back([] { return std::make_unique<JoinWithSpaces>(); });
  } else {
    add_steps(*json, where);
  }
}

void Decoder::add_steps(const Json& json, const std::string& where) {
  const std::string type = get_string(json, "type", where);
  if (fused_ && type != "Strip" && type != "Fuse" && type != "Sequence") {
    throw Error({.what = "component is not supported behind Fuse",
                 .where = inside(where, "type"),
                 .got = "\"" + type + "\"",
                 .wanted = "Strip"});
  }
  if (type == "Sequence") {
    const Json& parts = get_array(json, "decoders", where);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      add_steps(parts[i], inside(inside(where, "decoders"), i));
    }
  } else if (type == "ByteLevel") {
    makers_.emplace_back([] { return std::make_unique<ByteLevelStep>(); });
    to_bytes_.emplace_back([](const std::string& token) { return ByteLevelStep::bytes_of(token); });
    fused_ = true;
  } else if (type == "Replace") {
    const auto pattern = std::make_shared<const Pattern>(
        parse_pattern(get_member(json, "pattern", where), inside(where, "pattern")));
    makers_.emplace_back([pattern, content = get_string(json, "content", where)] {
      return std::make_unique<ReplaceStep>(pattern, content);
    });
    to_bytes_.emplace_back(
        [pattern, content = get_string(json, "content", where)](const std::string& token) {
          return pattern->replace_all(token, content);
        });
  } else if (type == "ByteFallback") {
    makers_.emplace_back([] { return std::make_unique<ByteFallbackStep>(); });
    to_bytes_.emplace_back([](const std::string& token) {
      const auto byte = ByteFallbackStep::byte_of(token);
      return byte ? std::string(1, *byte) : token;
    });
  } else if (type == "Fuse") {
    fused_ = true;
  } else if (type == "Strip") {
    makers_.emplace_back([options = read_strip(json, where, fused_)] {
      return std::make_unique<StripStep>(options);
    });
  } else {
    refuse_component(type, inside(where, "type"),
                     "ByteLevel, Replace, ByteFallback, Fuse, Strip or Sequence");
  }
}

// Fuse and Strip don't change what stands inside a text.
std::string Decoder::bytes_of(const std::string& token) const {
  if (to_bytes_.empty()) {
    throw Error({.what = "the bytes of a token aren't known",
                 .where = "decoder",
                 .got = "none that says what tokens stand for",
                 .wanted = "ByteLevel, Replace or ByteFallback"});
  }
  std::string bytes = token;
  for (const auto& step : to_bytes_) bytes = step(bytes);
  return bytes;
}

DecodeChain Decoder::start() const {
  std::vector<std::unique_ptr<DecodeStep>> steps;
  for (const auto& make : makers_) steps.push_back(make());
  return DecodeChain(std::move(steps));
}

}  // namespace vlm
