// XML of labelling configs → what is asked about a task. Only ApiError may be thrown.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "infer/server/api/api_error.h"
#include "infer/server/doors/label_tasks.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string xml(reinterpret_cast<const char*>(data), size);
  const vlm::OrderedJson task = {
      {"data",
       {{"image", "/data/a.png"}, {"text", "words"}, {"options", {"a", {{"value", "b"}}}}}}};
  try {
    const vlm::infer::LabelConfig config = vlm::infer::parse_label_config(xml, "label_config");
    for (const vlm::infer::LabelControl& control : config.controls) {
      try {
        vlm::infer::make_label_question(config, control, task, "tasks[0]", nullptr);
      } catch (const vlm::infer::ApiError& error) {
        vlm::infer::to_reply(error);
      }
    }
  } catch (const vlm::infer::ApiError& error) {
    vlm::infer::to_reply(error);
  }
  return 0;
}
