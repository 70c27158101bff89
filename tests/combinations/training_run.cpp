#include "tests/combinations/training_run.h"

#include <signal.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/combinations/draws.h"
#include "tests/combinations/forked_program.h"
#include "tests/support/free_port.h"
#include "tests/support/run_program.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> arguments_of(const TrainingDraw& draw, const fs::path& folder,
                                      const std::string& output, const Json& changes) {
  Json config = draw.config;
  config.update(changes);
  config["output_dir"] = (folder / output).string();
  const fs::path path = folder / (output + ".json");
  save_text(path, config.dump(1));
  return {"finetune", path.string(), "--device", "cpu", "--threads", "1", "--dtype", draw.dtype};
}

Processes start_training(const TrainingDraw& draw, const fs::path& folder,
                         const std::string& output, const Json& changes = Json::object()) {
  const auto arguments = arguments_of(draw, folder, output, changes);
  const std::string port = std::to_string(find_free_port());
  const std::string size = std::to_string(draw.processes);
  Processes processes;
  for (int i = 0; i < draw.processes; ++i) {
    const std::string rank = std::to_string(i);
    ProgramCall call = make_call(folder, output + rank, arguments);
    if (draw.processes > 1) {
      call.variables.insert({{"RANK", rank},
                             {"WORLD_SIZE", size},
                             {"LOCAL_RANK", rank},
                             {"LOCAL_WORLD_SIZE", size},
                             {"MASTER_ADDR", "127.0.0.1"},
                             {"MASTER_PORT", port}});
    }
    processes.push_back(std::make_unique<ForkedProgram>(call));
  }
  return processes;
}

std::size_t count_rows(const fs::path& metrics) {
  const std::string text = read_file(metrics);
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

}  // namespace

ProgramEnd run_training(const TrainingDraw& draw, const fs::path& folder,
                        const std::string& output) {
  return wait_for(start_training(draw, folder, output));
}

ProgramEnd run_cut_training(const TrainingDraw& draw, const TrainingCut& cut,
                            const fs::path& folder, const std::string& output) {
  const fs::path metrics = folder / output / "metrics.jsonl";
  const std::size_t wanted = count_rows(metrics) + cut.rows;
  const Processes processes = start_training(draw, folder, output, cut.changes);
  wait_until(processes, [&] { return count_rows(metrics) >= wanted; });
  std::this_thread::sleep_for(cut.later);
  for (std::size_t i = cut.hits_one ? processes.size() - 1 : 0; i < processes.size(); ++i) {
    processes[i]->kill(cut.signal);
  }
  return wait_for(processes);
}

}  // namespace vlm
