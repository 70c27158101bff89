#include "vlm/io/hub/hub_client.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"
#include "vlm/core/run/stop_signal.h"
#include "vlm/io/hub/hub_files.h"

namespace vlm {
namespace {

constexpr int kMostRedirects = 10;
constexpr std::size_t kMostJsonBytes = 16 << 20;
constexpr std::int64_t kMostTextFileBytes = 256LL << 20;

bool is_hex(const std::string& text, std::size_t digits) {
  return text.size() == digits && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

bool is_redirect(long status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

bool is_worth_another_try(const HttpReply& reply) {
  if (!reply.failure.empty()) return reply.may_pass;
  return reply.status == 408 || reply.status == 429 || reply.status >= 500;
}

// "abc" of "abc", \"abc\" and W/\"abc\".
std::string plain_etag(std::string text) {
  if (text.starts_with("W/")) text.erase(0, 2);
  std::erase(text, '"');
  return text;
}

std::optional<std::int64_t> parse_size(const std::string& text) {
  std::int64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || code != std::errc() || end != text.data() + text.size() || value < 0) {
    return std::nullopt;
  }
  return value;
}

std::string first_of(const std::map<std::string, std::string>& headers, const std::string& name) {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

bool is_encrypted(const std::string& url) {
  return url_origin(url).starts_with("https:");
}

// What the server asks to wait: Retry-After, or the hub's own "RateLimit: …;t=55".
std::optional<double> asked_wait(const HttpReply& reply) {
  if (reply.retry_after_s) return reply.retry_after_s;
  const std::string limit = reply.header("ratelimit");
  const auto at = limit.find("t=");
  if (reply.status != 429 || at == std::string::npos) return std::nullopt;
  const std::string seconds_text = limit.substr(at + 2);
  const auto seconds =
      parse_size(seconds_text.substr(0, seconds_text.find_first_not_of("0123456789")));
  return seconds ? std::optional<double>(static_cast<double>(*seconds)) : std::nullopt;
}

void sleep_until_stop(double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (Clock::now() < end && !stop_requested()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

std::string status_text(const HttpReply& reply) {
  if (!reply.failure.empty()) return reply.failure;
  const std::string message = reply.header("x-error-message");
  return concat("HTTP ", reply.status, message.empty() ? "" : ": ", printable(message));
}

}  // namespace

HubClient::HubClient(HubOptions options)
    : options_(std::move(options)),
      origin_(url_origin(options_.endpoint)),
      http_(options_.timeouts) {
  if (!options_.retry.sleep) options_.retry.sleep = sleep_until_stop;
}

std::string HubClient::file_url(const HubName& name, const std::string& commit,
                                const std::string& file) const {
  std::string path;
  for (std::size_t start = 0; start <= file.size();) {
    const auto slash = std::min(file.find('/', start), file.size());
    path += '/';
    path += percent_encode(file.substr(start, slash - start));
    start = slash + 1;
  }
  return concat(options_.endpoint, name.page_path(), "/resolve/", commit, path);
}

// One request and its redirects. With `stop_at_description` the first answer that leaves the
// endpoint is the last, if it has told hash and size: they are for the file it points to.
HubClient::HubResponse HubClient::ask(HttpRequest request, bool stop_at_description) {
  const std::vector<std::string> headers = request.headers;
  bool is_home = true;
  HubResponse response;
  for (int redirect = 0; redirect <= kMostRedirects; ++redirect) {
    is_home = is_home && url_origin(request.url) == origin_;
    request.headers = headers;
    if (is_home && !options_.token.empty()) {
      request.headers.push_back("Authorization: Bearer " + options_.token);
    }
    response.reply = http_.send(request);
    for (const char* header : {"x-repo-commit", "x-linked-etag", "x-linked-size"}) {
      const std::string value = response.reply.header(header);
      if (!value.empty()) response.first.emplace(header, value);
    }
    const std::string location = response.reply.header("location");
    if (!is_redirect(response.reply.status) || location.empty()) return response;
    const std::string next = join_url(request.url, location);
    if (is_encrypted(request.url) && !is_encrypted(next)) {
      throw Error({.what = "a redirect from https to http is not followed",
                   .where = next.substr(0, next.find('?'))});
    }
    const bool is_described =
        response.first.count("x-linked-etag") && response.first.count("x-linked-size");
    if (stop_at_description && is_described && url_origin(next) != origin_) return response;
    request.url = next;
  }
  throw Error({.what = "too many redirects",
               .where = request.url.substr(0, request.url.find('?')),
               .wanted = concat("at most ", kMostRedirects)});
}

void HubClient::wait(const HttpReply& reply, int failed_tries, const std::string& where) const {
  const RetryPolicy& retry = options_.retry;
  double seconds = retry.first_wait_s;
  for (int i = 1; i < failed_tries; ++i) seconds = std::min(seconds * 2, retry.longest_wait_s);
  if (const auto asked = asked_wait(reply)) seconds = std::min(*asked, retry.longest_asked_wait_s);
  log_warning(concat(where, ": ", status_text(reply), "; trying again in ", seconds, " s"));
  retry.sleep(seconds);
}

HubClient::HubResponse HubClient::ask_with_retries(const HttpRequest& request,
                                                   const std::string& where,
                                                   bool stop_at_description) {
  for (int tries = 1;; ++tries) {
    HubResponse response = ask(request, stop_at_description);
    if (!is_worth_another_try(response.reply) || tries >= options_.retry.tries) return response;
    wait(response.reply, tries, where);
  }
}

// The branches and tags of a model for a message; "" when the hub doesn't tell.
std::string HubClient::revisions_of(const HubName& name) {
  std::string body;
  HttpRequest request{.url = concat(options_.endpoint, name.api_path(), "/refs")};
  request.on_body = [&](std::string_view bytes) {
    body += bytes;
    if (body.size() > kMostJsonBytes) throw Error({.what = "the list is too large"});
  };
  try {
    if (ask(request).reply.status != 200) return "";
  } catch (const Error&) {
    return "";  // the error that asks for this list is the one to tell
  }
  const Json refs = Json::parse(body, nullptr, false);
  std::vector<std::string> names;
  for (const char* kind : {"branches", "tags"}) {
    if (!refs.is_object() || !refs.contains(kind) || !refs[kind].is_array()) continue;
    for (const Json& ref : refs[kind]) {
      const bool is_named = ref.is_object() && ref.contains("name") && ref["name"].is_string();
      if (is_named && names.size() < 10) names.push_back(printable(ref["name"].get<std::string>()));
    }
  }
  return names.empty() ? "" : "there are " + join(names);
}

// The error that an answer other than 2xx is.
void HubClient::refuse(const HttpReply& reply, const HubName& name, const std::string& where) {
  const std::string code = reply.header("x-error-code");
  const std::string got = status_text(reply);
  const char* noun = name.type == HubType::kDataset ? "data set" : "model";
  const std::string hint = options_.token.empty()
                               ? "set HF_TOKEN to a token of an account that may read it"
                               : "the token in HF_TOKEN, or of `hf auth login`, may not read it";
  if (!reply.failure.empty() || reply.status >= 500 || reply.status == 429 || reply.status == 408) {
    throw NoAnswerError({.what = concat("no whole answer from ", options_.endpoint),
                         .where = where,
                         .got = got,
                         .hint = "started again, a pull goes on where it stopped"});
  }
  if (code == "RevisionNotFound") {
    throw Error({.what = concat("no revision '", name.revision, "' on the hub"),
                 .where = where,
                 .got = got,
                 .hint = revisions_of(name)});
  }
  if (code == "GatedRepo") {
    throw Error(
        {.what = concat("the ", noun, " is gated: its terms must be accepted on the hub first"),
         .where = where,
         .got = got,
         .hint = hint});
  }
  if (code == "EntryNotFound") {
    throw Error({.what = "no such file on the hub", .where = where, .got = got});
  }
  // The hub answers 401 for models that don't exist, too.
  if (reply.status == 401 || code == "RepoNotFound" || reply.status == 404) {
    throw Error({.what = concat("no such ", noun, " on ", options_.endpoint, ", or a private one"),
                 .where = where,
                 .got = got,
                 .hint = hint});
  }
  if (reply.status == 403) {
    throw Error({.what = "no access", .where = where, .got = got, .hint = hint});
  }
  throw Error(
      {.what = concat("unexpected answer from ", options_.endpoint), .where = where, .got = got});
}

HubListing HubClient::list(const HubName& name) {
  const std::string where = concat(name.repository(), "@", name.revision);
  const std::string url =
      concat(options_.endpoint, name.api_path(), "/revision/", percent_encode(name.revision));
  std::string body;
  HttpRequest request{.url = url, .headers = {"Accept: application/json"}};
  request.on_head = [&](const HttpReply&) { body.clear(); };
  request.on_body = [&](std::string_view bytes) {
    body += bytes;
    if (body.size() <= kMostJsonBytes) return;
    throw Error({.what = "the listing is too large",
                 .where = where,
                 .wanted = concat("at most ", kMostJsonBytes, " bytes")});
  };
  const HttpReply reply = ask_with_retries(request, where).reply;
  if (reply.status != 200 || !reply.failure.empty()) refuse(reply, name, where);

  const Json json = parse_json(body, concat(where, ": listing of ", options_.endpoint));
  const auto bad = [&](const char* what) {
    return Error({.what = what, .where = where, .hint = "is HF_ENDPOINT, or a proxy, a hub?"});
  };
  if (!json.is_object() || !json.contains("sha") || !json["sha"].is_string() ||
      !is_hex(json["sha"].get<std::string>(), 40)) {
    throw bad("the listing names no commit");
  }
  if (!json.contains("siblings") || !json["siblings"].is_array()) {
    throw bad("the listing names no files");
  }
  HubListing listing{.commit = json["sha"].get<std::string>()};
  for (const Json& file : json["siblings"]) {
    if (!file.is_object() || !file.contains("rfilename") || !file["rfilename"].is_string()) {
      throw bad("the listing has a file without a name");
    }
    listing.files.push_back(file["rfilename"].get<std::string>());
    check_file_name(listing.files.back(), where);
  }
  return listing;
}

HubFile HubClient::describe(const HubName& name, const std::string& commit,
                            const std::string& file) {
  const std::string where = concat(name.repository(), "/", file);
  // Without "identity" the size could be that of the compressed bytes.
  const HttpRequest request{.is_head = true,
                            .url = file_url(name, commit, file),
                            .headers = {"Accept-Encoding: identity"}};
  const HubResponse response = ask_with_retries(request, where, /*stop_at_description=*/true);
  const HttpReply& reply = response.reply;
  if (!reply.failure.empty() || (reply.status != 200 && !is_redirect(reply.status))) {
    refuse(reply, name, where);
  }
  const auto either = [&](const char* linked, const char* own) {
    const std::string value = first_of(response.first, linked);
    return value.empty() && reply.status == 200 ? reply.header(own) : value;
  };
  const std::string hash = plain_etag(either("x-linked-etag", "etag"));
  const auto bytes = parse_size(either("x-linked-size", "content-length"));
  const char* hint = "is HF_ENDPOINT, or a proxy, a hub?";
  if (first_of(response.first, "x-repo-commit") != commit) {
    throw Error({.what = "the answer is not of the wanted commit",
                 .where = where,
                 .got = printable(first_of(response.first, "x-repo-commit")),
                 .wanted = commit,
                 .hint = hint});
  }
  if (!is_hex(hash, 40) && !is_hex(hash, 64)) {
    throw Error({.what = "the hub tells no hash that can be verified",
                 .where = where,
                 .got = concat("'", printable(hash), "'"),
                 .wanted = "40 or 64 hex digits",
                 .hint = hint});
  }
  if (!bytes || (!file.ends_with(".safetensors") && *bytes > kMostTextFileBytes)) {
    throw Error({.what = bytes ? "text file is too large" : "the hub tells no size",
                 .where = where,
                 .got = bytes ? concat(*bytes, " bytes") : "",
                 .wanted = bytes ? concat("at most ", kMostTextFileBytes) : ""});
  }
  return {.name = file, .hash = hash, .bytes = *bytes};
}

// One request for what `sink` lacks.
HttpReply HubClient::ask_bytes(const std::string& url, const HubFile& file, HubSink& sink) {
  HttpRequest request{.url = url, .headers = {"Accept-Encoding: identity"}};
  const std::int64_t offset = sink.size();
  if (offset > 0) request.headers.push_back(concat("Range: bytes=", offset, "-"));
  bool is_content = false;
  request.on_head = [&](const HttpReply& reply) {
    const std::string range = reply.header("content-range");
    is_content = reply.status == 200 || reply.status == 206;
    if (reply.status == 206 && !range.starts_with(concat("bytes ", offset, "-"))) {
      throw Error({.what = "the server sends another range than the one asked for",
                   .where = file.name,
                   .got = printable(range),
                   .wanted = concat("bytes ", offset, "-")});
    }
    if (reply.status == 200 && offset > 0) sink.restart();  // it sends the file from its beginning
    if (reply.status == 416) sink.restart();
  };
  request.on_body = [&](std::string_view bytes) {
    if (is_content) sink.append(bytes);
  };
  return ask(request).reply;
}

void HubClient::fetch(const HubName& name, const std::string& commit, const HubFile& file,
                      HubSink& sink) {
  const std::string where = concat(name.repository(), "/", file.name);
  const std::string url = file_url(name, commit, file.name);
  std::int64_t best = sink.size();
  for (int tries = 1; sink.size() < file.bytes; ++tries) {
    HttpReply reply = ask_bytes(url, file, sink);
    if (sink.size() >= file.bytes) return;
    if (sink.size() > best) tries = 1;
    best = std::max(best, sink.size());
    // An answer without failure that ends too early, or a file that ends before the range asked
    // for.
    const bool is_short = reply.status == 200 || reply.status == 206 || reply.status == 416;
    if (is_short && reply.failure.empty()) {
      reply.failure = concat("only ", sink.size(), " of ", file.bytes, " bytes");
      reply.may_pass = true;
    }
    if (!is_worth_another_try(reply) || tries >= options_.retry.tries) refuse(reply, name, where);
    wait(reply, tries, where);
  }
}

}  // namespace vlm
