#include "infer/server/adapter_requests.h"

#include <algorithm>
#include <filesystem>

#include "infer/server/api/body_reader.h"
#include "vlm/core/concat.h"
#include "vlm/core/log.h"
#include "vlm/io/error_text.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostLoraName = 128, kMostLoraPath = 4096;

// It stands in labels of metrics and in the log.
std::string read_lora_name(BodyReader& body) {
  const std::string name = body.text("lora_name", kMostLoraName).value_or("");
  const bool is_plain =
      std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c < 0x7f; });
  if (!name.empty() && is_plain) return name;
  throw bad_value("lora_name", concat("'", shown(name), "'"),
                  concat("1 to ", kMostLoraName, " characters of ASCII without spaces"));
}

// One answer for whatever isn't a folder below, so that nothing is told about others.
std::string read_lora_path(BodyReader& body, const std::string& folder) {
  const std::string path = body.text("lora_path", kMostLoraPath).value_or("");
  std::error_code code;
  const fs::path root = fs::canonical(folder, code);
  const bool is_text = !path.empty() && path.find('\0') == std::string::npos;
  const fs::path real = code || !is_text ? fs::path() : fs::canonical(root / path, code);
  const fs::path relative = code ? fs::path() : real.lexically_relative(root);
  const bool is_below = !relative.empty() && *relative.begin() != "..";
  if (is_text && is_below && fs::is_directory(real, code)) return real.string();
  throw ApiError({.param = "lora_path"},
                 {.what = "no folder that may be loaded",
                  .wanted = "a path below the server's folder of adapters"});
}

struct ChangeReply {
  std::shared_ptr<Exchange> exchange;
  std::vector<HttpHeader> headers;

  void done(const std::string& text) const {
    exchange->reply({.body = text, .content_type = "text/plain", .headers = headers});
  }
  void fail(const ApiError& error) const {
    WebReply reply = to_reply(error);
    reply.headers.insert(reply.headers.end(), headers.begin(), headers.end());
    exchange->reply(std::move(reply));
  }
};

void change(ServiceParts& parts, AdapterChange kind, const std::string& folder,
            const std::string& text, const ChangeReply& reply) {
  const OrderedJson json = parse_body(text);
  BodyReader body(json, "");
  const std::string name = read_lora_name(body);
  if (kind == AdapterChange::kUnload) {
    parts.models->remove(name);
    return reply.done(concat("The adapter '", name, "' was unloaded.\n"));
  }
  parts.models->add(name, read_lora_path(body, folder), [reply, name](const OpenedModel& opened) {
    if (opened.model) return reply.done(concat("The adapter '", name, "' was loaded.\n"));
    const ApiError& error = *opened.error;
    const bool is_files = error.code() == "invalid_adapter";
    reply.fail(is_files ? ApiError({.code = error.code(), .param = "lora_path"}, error.parts())
                        : error);
  });
}

}  // namespace

void change_adapters(ServiceParts& parts, AdapterChange kind, const std::string& folder,
                     WebRequest request, const std::shared_ptr<Exchange>& exchange,
                     std::vector<HttpHeader> headers) {
  const ChangeReply reply{.exchange = exchange, .headers = std::move(headers)};
  const auto shared = std::make_shared<WebRequest>(std::move(request));
  parts.media.post([&parts, kind, folder, shared, reply] {
    try {
      change(parts, kind, folder, shared->body, reply);
    } catch (const ApiError& error) {
      reply.fail(error);
    } catch (const std::exception& error) {
      log_warning(concat(shared->id, ": ", error_text(error)));
      reply.fail(internal_error(shared->id));
    }
  });
}

}  // namespace vlm::infer
