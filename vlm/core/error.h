// The one exception type for whatever a user, a file or a peer can cause.
//
// An error says what is wrong, where (path, key, line), what was found, what was wanted, and what
// to do about it. It is caught in main.cpp, and in the batch runner for each item. Mistakes of the
// programmer (shapes inside the graph, say) are checks of LibTorch (TORCH_CHECK), not this.
#pragma once

#include <exception>
#include <string>

namespace vlm {

// What an Error says. Every part but `what` may be empty.
struct ErrorParts {
  std::string what;         // "tensor has the wrong shape"
  std::string where = {};   // "model.safetensors: lm_head.weight"
  std::string got = {};     // "[4, 8]"
  std::string wanted = {};  // "[4, 16]"
  std::string hint = {};    // "the config says hidden_size 16"
};

class Error : public std::exception {
 public:
  explicit Error(ErrorParts parts);

  // One line: "where: what: got G, wanted W (hint)".
  const char* what() const noexcept override { return message_.c_str(); }
  const ErrorParts& parts() const noexcept { return parts_; }

 private:
  ErrorParts parts_;
  std::string message_;
};

// The same error with `place` put in front of its `where`, for callers that know the file or line.
Error located(const Error& error, const std::string& place);

}  // namespace vlm
