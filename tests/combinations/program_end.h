// Runs of the program that a draw starts, and how they ended.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/combinations/forked_program.h"

namespace vlm {

// The code of the first process that failed, and what all of them said.
struct ProgramEnd {
  int code = 0;
  std::string log;
  // What stands behind the last "error: ".
  std::string error() const;
};

using Processes = std::vector<std::unique_ptr<ForkedProgram>>;

// A call in an empty folder of its own, with folder/name.log for what it says.
ProgramCall make_call(const std::filesystem::path& folder, const std::string& name,
                      const std::vector<std::string>& arguments);

// Waits until `is_so` or all processes are done.
void wait_until(const Processes& processes, const std::function<bool()>& is_so);

// Waits for all. Throws DrawFailed for one that doesn't end.
ProgramEnd wait_for(const Processes& processes);

// A call to its end.
ProgramEnd run_call(const ProgramCall& call);

}  // namespace vlm
