// Settings for requests to the hub from the environment: address, token, cache, retries.
//
// The variables are those of huggingface_hub 2.4: HF_ENDPOINT, HF_TOKEN, else the file
// HF_TOKEN_PATH or HF_HOME/token, HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE), and the cache's
// (vlm/io/hub/hub_cache).
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "vlm/io/hub/http.h"

namespace vlm {

struct RetryPolicy {
  int tries = 6;  // in a row without a new byte
  double first_wait_s = 1, longest_wait_s = 30;
  double longest_asked_wait_s = 300;          // longest pause that the server may ask for
  std::function<void(double seconds)> sleep;  // empty: sleeps, and wakes when a stop is requested
};

struct HubOptions {
  std::string endpoint = "https://huggingface.co";
  std::string token;  // empty: none is sent
  bool is_offline = false;
  std::filesystem::path cache;
  RetryPolicy retry;
  HttpTimeouts timeouts;
};

// What the environment says. Throws Error for an endpoint that is no address, and for a token that
// is no single word.
HubOptions hub_options();

}  // namespace vlm
