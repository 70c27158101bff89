#include "tests/combinations/batch_damage.h"

#include <fstream>
#include <functional>
#include <vector>

#include "tests/support/run_program.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const auto end = std::min(text.find('\n', begin), text.size() - 1);
    lines.push_back(text.substr(begin, end + 1 - begin));
    begin = end + 1;
  }
  return lines;
}

void write_file(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

void edit_lines(const fs::path& path, const std::function<void(std::vector<std::string>&)>& edit) {
  auto lines = lines_of(read_file(path));
  if (lines.empty()) return;
  edit(lines);
  std::string text;
  for (const std::string& line : lines) text += line;
  write_file(path, text);
}

void cut(Dice& dice, const fs::path& path) {
  const std::string text = read_file(path);
  write_file(path, text.substr(0, dice.below(text.size() + 1)));
}

void change_byte(Dice& dice, const fs::path& path) {
  std::string text = read_file(path);
  if (text.empty()) return;
  text[dice.below(text.size())] ^= 0x15;
  write_file(path, text);
}

struct Damage {
  const char* name;
  std::function<void(Dice&, const fs::path& output, const fs::path& journal)> befall;
};

using Lines = std::vector<std::string>;

const std::vector<Damage> kEditsOfRows = {
    {"a byte of the output changed",
     [](Dice& dice, const fs::path& output, const fs::path&) { change_byte(dice, output); }},
    {"rows removed",
     [](Dice& dice, const fs::path& output, const fs::path&) {
       edit_lines(output, [&](Lines& lines) {
         std::erase_if(lines, [&](const std::string&) { return dice.chance(0.4); });
       });
     }},
    {"a row doubled",
     [](Dice& dice, const fs::path& output, const fs::path&) {
       edit_lines(output, [&](Lines& lines) {
         lines.insert(lines.begin() + static_cast<std::ptrdiff_t>(dice.below(lines.size())),
                      std::string(dice.pick(lines)));
       });
     }},
    {"rows in another order",
     [](Dice& dice, const fs::path& output, const fs::path&) {
       edit_lines(output, [&](Lines& lines) { dice.shuffle(lines); });
     }},
    {"a row added by hand",
     [](Dice&, const fs::path& output, const fs::path&) {
       std::ofstream(output, std::ios::app) << "{\"id\": \"mine\", \"text\": \"x\"}\n";
     }},
    {"CRLF at the ends of lines", [](Dice&, const fs::path& output, const fs::path&) {
       edit_lines(output, [&](Lines& lines) {
         for (std::string& line : lines) {
           if (line.ends_with("\n")) line.insert(line.size() - 1, "\r");
         }
       });
     }}};

const std::vector<Damage> kDamages = {
    {"the output cut",
     [](Dice& dice, const fs::path& output, const fs::path&) { cut(dice, output); }},
    {"a torn row behind the output",
     [](Dice&, const fs::path& output, const fs::path&) {
       std::ofstream(output, std::ios::app) << "{\"id\": \"to";
     }},
    {"the journal cut",
     [](Dice& dice, const fs::path&, const fs::path& journal) { cut(dice, journal); }},
    {"a byte of the journal changed",
     [](Dice& dice, const fs::path&, const fs::path& journal) { change_byte(dice, journal); }},
    {"zeros behind the journal",
     [](Dice&, const fs::path&, const fs::path& journal) {
       std::ofstream(journal, std::ios::app) << std::string(64, '\0');
     }},
    {"the journal removed",
     [](Dice&, const fs::path&, const fs::path& journal) { fs::remove(journal); }},
    {"the output removed",
     [](Dice&, const fs::path& output, const fs::path&) { fs::remove(output); }},
    {"both removed", [](Dice&, const fs::path& output, const fs::path& journal) {
       fs::remove(output);
       fs::remove(journal);
     }}};

}  // namespace

std::string damage_files(Dice& dice, const fs::path& output) {
  if (!fs::exists(output)) return "nothing, as there is no output yet";
  const Damage& damage = dice.chance(0.6) ? kEditsOfRows[dice.below(kEditsOfRows.size())]
                                          : kDamages[dice.below(kDamages.size())];
  damage.befall(dice, output, output.string() + ".journal");
  return damage.name;
}

}  // namespace vlm
