// Runs a drawn training: as a whole, or cut and gone on with. Exit codes and errors as text.
#pragma once

#include <filesystem>
#include <string>

#include "tests/combinations/program_end.h"
#include "tests/combinations/training_draw.h"

namespace vlm {

// The training into folder/output, to its end.
ProgramEnd run_training(const TrainingDraw& draw, const std::filesystem::path& folder,
                        const std::string& output);

// The same, with the signal of the cut. A run that ended before it stays as it is.
ProgramEnd run_cut_training(const TrainingDraw& draw, const TrainingCut& cut,
                            const std::filesystem::path& folder, const std::string& output);

}  // namespace vlm
