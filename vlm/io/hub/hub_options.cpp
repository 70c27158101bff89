#include "vlm/io/hub/hub_options.h"

#include <algorithm>
#include <cctype>

#include "vlm/core/ascii.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/io/hub/hub_cache.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

bool is_true(const std::string& text) {
  const std::string lower = ascii_lower(text);
  return lower == "1" || lower == "on" || lower == "yes" || lower == "true";
}

// HF_TOKEN, else what `hf auth login` has left.
std::string token_of_environment() {
  std::string token(trimmed(environment_value("HF_TOKEN"))), where = "HF_TOKEN";
  if (token.empty()) {
    const std::string named = environment_value("HF_TOKEN_PATH");
    const fs::path path = named.empty() ? hub_home_folder() / "token" : fs::path(named);
    where = path.string();
    std::error_code absent;
    if (fs::is_regular_file(path, absent)) token = trimmed(load_text(path, 1 << 16));
  }
  // It becomes a line of the request: a line break in it would write further ones.
  const bool is_word =
      std::all_of(token.begin(), token.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  if (!is_word)
    throw Error({.what = "not a token: spaces or unprintable bytes in it", .where = where});
  return token;
}

}  // namespace

HubOptions hub_options() {
  HubOptions options{.token = token_of_environment(), .cache = hub_cache_folder()};
  if (std::string endpoint = environment_value("HF_ENDPOINT"); !endpoint.empty()) {
    while (endpoint.ends_with('/')) endpoint.pop_back();
    try {
      url_origin(endpoint);
    } catch (const Error& error) {
      throw located(error, "HF_ENDPOINT");
    }
    options.endpoint = endpoint;
  }
  const std::string offline = environment_value("HF_HUB_OFFLINE");
  options.is_offline =
      is_true(offline.empty() ? environment_value("TRANSFORMERS_OFFLINE") : offline);
  return options;
}

}  // namespace vlm
