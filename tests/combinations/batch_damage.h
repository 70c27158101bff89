// What befalls the files of a batch run between its parts: people edit rows, disks lose ends.
#pragma once

#include <filesystem>
#include <string>

#include "tests/combinations/dice.h"

namespace vlm {

// Does something to the output or its journal, or to both; says what.
std::string damage_files(Dice& dice, const std::filesystem::path& output);

}  // namespace vlm
