#include "vlm/core/error.h"

#include <utility>

#include "vlm/core/byte_escape.h"

namespace vlm {
namespace {

std::string to_message(const ErrorParts& parts) {
  std::string message;
  if (!parts.where.empty()) message += parts.where + ": ";
  message += parts.what;
  if (!parts.got.empty()) message += ": got " + parts.got;
  if (!parts.wanted.empty()) {
    message += (parts.got.empty() ? ": wanted " : ", wanted ") + parts.wanted;
  }
  if (!parts.hint.empty()) message += " (" + parts.hint + ")";
  return message;
}

}  // namespace

Error::Error(ErrorParts parts) : parts_(std::move(parts)), message_(as_utf8(to_message(parts_))) {}

Error located(const Error& error, const std::string& place) {
  ErrorParts parts = error.parts();
  parts.where = parts.where.empty() ? place : place + ": " + parts.where;
  return Error(std::move(parts));
}

}  // namespace vlm
