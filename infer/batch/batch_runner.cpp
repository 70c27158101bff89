#include "infer/batch/batch_runner.h"

#include <algorithm>
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>
#include <set>

#include "data/media.h"
#include "infer/batch/picture_queue.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"
#include "vlm/core/log.h"
#include "vlm/core/progress.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

OrderedJson begin_row(const BatchItem& item) {
  OrderedJson row;
  row["id"] = item.id;
  for (const auto& [name, value] : item.columns) row[name] = value;
  return row;
}

std::string to_line(const OrderedJson& row) {
  // Paths may hold bytes that are not UTF-8; JSON can't.
  return row.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

std::string to_line(const BatchItem& item, const Generation& answer) {
  OrderedJson row = begin_row(item);
  row["text"] = answer.text;
  row["mean_logprob"] = answer.mean_logprob();
  row["finish_reason"] = answer.finish_reason;
  return to_line(row);
}

std::string to_line(const BatchItem& item, const std::string& error) {
  OrderedJson row = begin_row(item);
  row["error"] = error;
  return to_line(row);
}

Error foreign_row(const fs::path& path, std::size_t line, const std::string& got,
                  const std::string& wanted) {
  return Error({.what = "the output holds rows of another run",
                .where = concat(path.string(), ":", line),
                .got = got,
                .wanted = wanted,
                .hint = "choose another --output, or delete it"});
}

// The whole rows at the start of an earlier output, which must be those of the first items. Cuts
// off a torn last line.
std::size_t count_finished(const fs::path& output, const std::vector<BatchItem>& items) {
  if (!fs::exists(output)) return 0;
  const std::string text = load_text(output, 1ULL << 36);
  std::size_t begin = 0, count = 0;
  for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', begin)) {
    const Json row = Json::parse(text.substr(begin, end - begin), nullptr, false);
    const bool is_row = row.is_object() && row.contains("id") && row["id"].is_string();
    const std::string id = is_row ? row["id"].get<std::string>() : "no row";
    if (count >= items.size()) throw foreign_row(output, count + 1, id, "no more rows");
    const std::string wanted = Json::parse(to_line(begin_row(items[count])))["id"];
    if (!is_row || id != wanted) throw foreign_row(output, count + 1, id, wanted);
    begin = end + 1;
    ++count;
  }
  if (begin < text.size()) fs::resize_file(output, begin);
  return count;
}

// Collects prompts of one batch beside the rows of items that failed before it.
class BatchWriter {
 public:
  BatchWriter(Generator& generator, const BatchOptions& options)
      : generator_(generator),
        options_(options),
        out_(options.output, std::ios::app | std::ios::binary) {
    if (!out_) throw Error({.what = "can't write the file", .where = options.output.string()});
  }

  // Answers the items and writes their rows, in order.
  void write(const std::vector<BatchItem>& items, std::vector<PreparedPrompt> prepared) {
    std::vector<EncodedConversation> prompts;
    for (const PreparedPrompt& one : prepared) {
      if (one.error.empty()) prompts.push_back(one.prompt);
    }
    const std::vector<Generation> answers = answer(prompts, prepared);
    std::size_t next = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
      const bool failed = !prepared[i].error.empty();
      out_ << (failed ? to_line(items[i], prepared[i].error) : to_line(items[i], answers[next++]));
      result.errors += failed ? 1 : 0;
    }
    out_.flush();
    if (!out_) throw Error({.what = "can't write the file", .where = options_.output.string()});
    result.rows += static_cast<std::int64_t>(items.size());
  }

  BatchResult result;

 private:
  // One prompt that the model refuses (too long) must not take the batch with it: then each is
  // tried alone.
  std::vector<Generation> answer(const std::vector<EncodedConversation>& prompts,
                                 std::vector<PreparedPrompt>& prepared) {
    if (prompts.empty()) return {};
    try {
      return generator_.generate(prompts, options_.generation);
    } catch (const Error&) {
      std::vector<Generation> answers;
      for (PreparedPrompt& one : prepared) {
        if (!one.error.empty()) continue;
        try {
          answers.push_back(generator_.generate({one.prompt}, options_.generation)[0]);
        } catch (const Error& error) {
          one.error = error.what();
        }
      }
      return answers;
    }
  }

  Generator& generator_;
  const BatchOptions& options_;
  std::ofstream out_;
};

}  // namespace

BatchResult run_batch(Generator& generator, const std::vector<BatchItem>& items,
                      const BatchOptions& options) {
  const std::size_t finished = count_finished(options.output, items);
  if (finished > 0) log_info(concat("goes on behind the ", finished, " rows already there"));
  BatchWriter writer(generator, options);
  PictureQueue queue(generator.processor(),
                     {items.begin() + static_cast<std::ptrdiff_t>(finished), items.end()},
                     {.workers = options.workers, .ahead = options.batch_size * 2});
  Progress progress("items", static_cast<std::int64_t>(items.size()),
                    static_cast<std::int64_t>(finished));
  for (std::size_t begin = finished; begin < items.size();) {
    if (stop_requested()) {
      writer.result.is_interrupted = true;
      break;
    }
    const std::size_t end =
        std::min(begin + static_cast<std::size_t>(options.batch_size), items.size());
    std::vector<PreparedPrompt> prepared;
    while (prepared.size() < end - begin) prepared.push_back(queue.next());
    writer.write({items.begin() + static_cast<std::ptrdiff_t>(begin),
                  items.begin() + static_cast<std::ptrdiff_t>(end)},
                 std::move(prepared));
    begin = end;
    progress.update(static_cast<std::int64_t>(begin));
  }
  return writer.result;
}

std::vector<fs::path> list_pictures(const std::vector<std::string>& paths) {
  std::vector<fs::path> found;
  std::set<fs::path> seen;
  const auto add = [&](const fs::path& path) {
    if (seen.insert(path.lexically_normal()).second) found.push_back(path);
  };
  for (const std::string& path : paths) {
    if (!fs::exists(path)) throw Error({.what = "no such file or folder", .where = path});
    if (!fs::is_directory(path)) {
      add(path);
      continue;
    }
    std::vector<fs::path> inside;
    const auto skip = fs::directory_options::skip_permission_denied;
    for (const auto& entry : fs::recursive_directory_iterator(path, skip)) {
      if (entry.is_regular_file() && data::has_image_suffix(entry.path())) {
        inside.push_back(entry.path());
      }
    }
    if (inside.empty()) throw Error({.what = "no pictures in the folder", .where = path});
    std::sort(inside.begin(), inside.end());
    for (const fs::path& picture : inside) add(picture);
  }
  return found;
}

}  // namespace vlm::infer
