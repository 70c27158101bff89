// Adapters that clients load and unload while the server runs, by the routes of vLLM.
//
//   {"lora_name", "lora_path"} ─► loaded under the name, or in its place; 200 once it answers
//   {"lora_name"} ─► the name is gone; requests that have the adapter keep it
//
// A path is below one folder, links followed. What can't be loaded changes nothing.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "infer/server/answer_job.h"

namespace vlm::infer {

enum class AdapterChange { kLoad, kUnload };

// On the network thread. `folder`: below which adapters are; not empty.
void change_adapters(ServiceParts& parts, AdapterChange change, const std::string& folder,
                     WebRequest request, const std::shared_ptr<Exchange>& exchange,
                     std::vector<HttpHeader> headers);

}  // namespace vlm::infer
