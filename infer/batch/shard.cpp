#include "infer/batch/shard.h"

#include <charconv>
#include <cstdlib>
#include <vector>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

std::optional<std::int64_t> parse_number(const std::string& text) {
  std::int64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, code] = std::from_chars(text.data(), end, number);
  if (code != std::errc() || stop != end || number < 0) return std::nullopt;
  return number;
}

std::optional<std::int64_t> read_number(const Environment& environment, const std::string& name) {
  const auto text = environment(name);
  if (!text || text->empty()) return std::nullopt;
  const auto number = parse_number(*text);
  if (number) return number;
  throw Error({.what = "not a number",
               .where = name,
               .got = concat("'", *text, "'"),
               .hint = "--shard i/n names the part; --shard 0/1 is the whole"});
}

std::int64_t require_number(const Environment& environment, const std::string& name,
                            const std::string& beside) {
  const auto number = read_number(environment, name);
  if (number) return *number;
  throw Error({.what = concat(beside, " is set without ", name),
               .where = "environment",
               .hint = "--shard i/n names the part; --shard 0/1 is the whole"});
}

Error impossible(const std::string& where, std::int64_t index, std::int64_t count) {
  return Error({.what = "no such part",
                .where = where,
                .got = concat(index, " of ", count),
                .hint = "parts are counted from 0"});
}

// The place of this task in its array, whose numbers go from MIN to MAX by STEP.
std::optional<Shard> array_shard(const Environment& environment) {
  const std::string name = "SLURM_ARRAY_TASK_ID";
  const auto id = read_number(environment, name);
  if (!id) return std::nullopt;
  const auto least = require_number(environment, "SLURM_ARRAY_TASK_MIN", name);
  const auto most = require_number(environment, "SLURM_ARRAY_TASK_MAX", name);
  const std::int64_t step = read_number(environment, "SLURM_ARRAY_TASK_STEP").value_or(1);
  const auto count = read_number(environment, "SLURM_ARRAY_TASK_COUNT");
  const bool is_even = step > 0 && least <= *id && *id <= most && (*id - least) % step == 0 &&
                       (!count || *count == (most - least) / step + 1);
  if (!is_even) {
    throw Error({.what = "the array isn't evenly spaced",
                 .where = name,
                 .got = concat("task ", *id, " of ", least, " to ", most, " by ", step),
                 .hint = "give each task its --shard i/n"});
  }
  return Shard{(*id - least) / step, (most - least) / step + 1};
}

std::optional<Shard> task_shard(const Environment& environment, const char* index_name,
                                const char* count_name) {
  const auto index = read_number(environment, index_name);
  const auto count = read_number(environment, count_name);
  if (!index || !count) return std::nullopt;
  if (*index >= *count) throw impossible(concat(index_name, ", ", count_name), *index, *count);
  return Shard{*index, *count};
}

}  // namespace

Shard parse_shard(const std::string& text) {
  const auto slash = text.find('/');
  const auto index = parse_number(text.substr(0, slash));
  const auto count =
      slash == std::string::npos ? std::nullopt : parse_number(text.substr(slash + 1));
  if (!index || !count) {
    throw Error({.what = "not a shard",
                 .where = "--shard",
                 .got = concat("'", text, "'"),
                 .wanted = "i/n with i from 0 to n-1"});
  }
  if (*index >= *count) throw impossible("--shard", *index, *count);
  return {*index, *count};
}

Environment process_environment() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    return value ? std::optional<std::string>(value) : std::nullopt;
  };
}

FoundShard find_shard(const Environment& environment) {
  FoundShard found;
  const auto array = array_shard(environment);
  auto task = task_shard(environment, "RANK", "WORLD_SIZE");
  std::string task_source = "RANK and WORLD_SIZE";
  if (!task) {
    task = task_shard(environment, "SLURM_PROCID", "SLURM_NTASKS");
    task_source = "SLURM_PROCID and SLURM_NTASKS";
  }
  if (array) {
    found = {*array, "SLURM_ARRAY_TASK_ID"};
  }
  if (task) {
    found.shard = {found.shard.index * task->count + task->index, found.shard.count * task->count};
    found.source += (found.source.empty() ? "" : ", ") + task_source;
  }
  return found;
}

std::filesystem::path shard_output(const std::filesystem::path& output, const Shard& shard) {
  if (shard.count == 1) return output;
  std::filesystem::path name = output;
  const std::string suffix = output.extension();
  name.replace_extension(concat(".shard-", shard.index, "-of-", shard.count));
  return name.string() + suffix;
}

}  // namespace vlm::infer
