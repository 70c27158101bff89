#include "infer/commands/model_flags.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "vlm/core/config/bounds.h"

namespace vlm::infer {

void declare_model(CLI::App& command, ModelChoice& choice) {
  command
      .add_option("--model", choice.model,
                  "Model folder, or org/name (in the Hugging Face cache, or pulled into it)")
      ->required()
      ->check(not_empty());
  command.add_option("--adapter", choice.adapter, "PEFT adapter folder (default: none)")
      ->check(not_empty());
  command
      .add_option_function<std::vector<std::string>>(
          "--template-arg",
          [&choice](const std::vector<std::string>& assignments) {
            for (const std::string& one : assignments) choice.chat.add_argument(one);
          },
          "Variable for the chat template, as NAME=VALUE (enable_thinking=false); may be repeated")
      ->allow_extra_args(false)
      ->check(not_empty());
  command
      .add_option("--date", choice.chat.day,
                  "Day that chat templates take for today, as YYYY-MM-DD (default: today)")
      ->check(not_empty());
  command
      .add_option("--kv-dtype", choice.kv_dtype,
                  "How keys and values of earlier tokens are held; auto: bfloat16 where a CPU "
                  "multiplies in bfloat16, 8 or 4 bits, else as the model computes")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16", "int8"}))
      ->capture_default_str();
  command.add_flag("--cuda-graph", choice.records_steps,
                   "On a GPU: decode steps are recorded and asked for as a whole, so that the host "
                   "doesn't hold them up");
}

OrderedJson describe_chat(const TemplateOptions& options) {
  OrderedJson given = OrderedJson::object();
  for (const auto& [name, value] : options.arguments) given["--template-arg"][name] = value;
  if (options.day) given["--date"] = *options.day;
  return given;
}

}  // namespace vlm::infer
