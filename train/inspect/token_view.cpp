#include "train/inspect/token_view.h"

#include "vlm/core/concat.h"

namespace vlm::train {
namespace {

constexpr const char* kGreen = "\033[1;32m";
constexpr const char* kBlue = "\033[34m";
constexpr const char* kGrey = "\033[90m";
constexpr const char* kReset = "\033[0m";

// Line breaks and tabs made visible, other control characters as "·".
std::string visible(const std::string& text) {
  std::string shown;
  for (const char c : text) {
    if (c == '\n') {
      shown += "↵\n";
    } else if (c == '\t') {
      shown += "→";
    } else if (static_cast<unsigned char>(c) < 32) {
      shown += "·";
    } else {
      shown += c;
    }
  }
  return shown;
}

std::string colored(const TokenView& token) {
  const std::string text = visible(token.text);
  switch (token.kind) {
    case TokenView::Kind::kLearned:
      return concat(kGreen, text, kReset);
    case TokenView::Kind::kMedium:
      return concat(kBlue, "[", text, "]", kReset);
    case TokenView::Kind::kCut:
      return concat(kGrey, text, kReset);
    default:
      return text;
  }
}

std::string with_colors(const std::vector<TokenView>& tokens) {
  std::string out;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const bool begins_line = out.ends_with('\n') || i == 0;
    if (!begins_line) out += concat(kGrey, "|", kReset);
    out += colored(tokens[i]);
  }
  return out;
}

// [[ ]] around learned stretches, ~~ ~~ around what is cut off.
std::string with_marks(const std::vector<TokenView>& tokens) {
  using Kind = TokenView::Kind;
  const auto opening = [](Kind kind) {
    return kind == Kind::kLearned ? "[[" : kind == Kind::kCut ? "~~" : "";
  };
  const auto closing = [](Kind kind) {
    return kind == Kind::kLearned ? "]]" : kind == Kind::kCut ? "~~" : "";
  };
  std::string out;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const Kind kind = tokens[i].kind;
    const bool begins = i == 0 || tokens[i - 1].kind != kind;
    const bool ends = i + 1 == tokens.size() || tokens[i + 1].kind != kind;
    if (i > 0 && !out.ends_with('\n')) out += "|";
    if (begins) out += opening(kind);
    const std::string text = visible(tokens[i].text);
    out += kind == Kind::kMedium ? concat("[", text, "]") : text;
    if (ends) out += closing(kind);
  }
  return out;
}

}  // namespace

std::vector<TokenView> view_tokens(const data::Preview& preview, const Tokenizer& tokenizer) {
  const auto& encoded = preview.encoded;
  // Without an example the whole is shown, with what would have been learned.
  const bool has_example = !preview.example.ids.empty();
  const std::size_t kept = has_example ? preview.example.ids.size() : encoded.ids.size();
  std::vector<TokenView> views;
  StreamDecoder decoder(tokenizer, /*skip_special_tokens=*/false);
  std::int64_t places = 0;  // tokens of the medium at hand
  for (std::size_t t = 0; t < encoded.ids.size(); ++t) {
    const std::int64_t medium = encoded.layout.medium_at(static_cast<std::int64_t>(t));
    std::string text = decoder.add(encoded.ids[t]);
    if (medium >= 0) {
      if (views.empty() || views.back().medium != medium) {
        places = 0;
        views.push_back({.kind = TokenView::Kind::kMedium, .medium = medium});
      }
      const auto& described = preview.texts.at(static_cast<std::size_t>(medium));
      views.back().text = concat(describe_medium(described, medium + 1), ", ", ++places, " tokens");
      continue;
    }
    const auto kind = t >= kept                        ? TokenView::Kind::kCut
                      : encoded.is_trained[t] && t > 0 ? TokenView::Kind::kLearned
                                                       : TokenView::Kind::kPlain;
    views.push_back({.kind = kind, .text = std::move(text), .id = encoded.ids[t]});
  }
  return views;
}

std::string describe_medium(const MediumText& text, std::int64_t number) {
  if (text.kind == MediumText::Kind::kVideo) return concat("clip ", number);
  if (text.rows == 0) return concat("picture ", number, ": not split");
  return concat("picture ", number, ": ", text.rows, " × ", text.cols, " tiles and the whole");
}

std::string render_tokens(const std::vector<TokenView>& tokens, bool uses_color) {
  return uses_color ? with_colors(tokens) : with_marks(tokens);
}

}  // namespace vlm::train
