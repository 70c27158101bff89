#include "tests/combinations/program_end.h"

#include <chrono>
#include <thread>

#include "tests/combinations/draws.h"
#include "tests/support/run_program.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

constexpr auto kLongest = std::chrono::minutes(5);

bool are_done(const Processes& processes) {
  bool done = true;
  for (const auto& process : processes) done = process->is_done() && done;
  return done;
}

}  // namespace

std::string ProgramEnd::error() const {
  const auto at = log.rfind("error: ");
  if (at == std::string::npos) return "";
  return log.substr(at + 7, log.find('\n', at) - at - 7);
}

ProgramCall make_call(const fs::path& folder, const std::string& name,
                      const std::vector<std::string>& arguments) {
  const fs::path place = folder / "place";
  fs::create_directories(place);
  return {.arguments = arguments,
          .log = folder / (name + ".log"),
          .place = place,
          .variables = {{"HOME", (folder / "home").string()}}};
}

void wait_until(const Processes& processes, const std::function<bool()>& is_so) {
  while (!are_done(processes) && !is_so()) {
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

ProgramEnd wait_for(const Processes& processes) {
  const auto until = std::chrono::steady_clock::now() + kLongest;
  wait_until(processes, [&] { return std::chrono::steady_clock::now() > until; });
  expect(are_done(processes), "it runs for ever: " + processes.at(0)->log().string());
  ProgramEnd end;
  for (const auto& process : processes) {
    const int code = process->wait();
    if (end.code == 0) end.code = code;
    end.log += read_file(process->log());
  }
  return end;
}

ProgramEnd run_call(const ProgramCall& call) {
  Processes one;
  one.push_back(std::make_unique<ForkedProgram>(call));
  return wait_for(one);
}

}  // namespace vlm
