// What one item causes costs its own row: failures of the model, lack of memory, time, bad content.
#include <c10/util/Exception.h>

#include <algorithm>
#include <functional>
#include <new>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

#include "infer/batch/batch_runner.h"
#include "infer/items/item_failure.h"
#include "tests/infer/sessions.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "tests/support/watched_model.h"

namespace vlm::infer {
namespace {

namespace fs = std::filesystem;

// Ten questions about text alone, one of them with '@'.
struct FailureRun {
  ScratchFolder folder;
  BatchOptions options = {.batch_size = 4};
  std::vector<std::string> rows;

  FailureRun() {
    for (int i = 0; i < 10; ++i) {
      const std::string number = std::to_string(i);
      rows.push_back(R"({"id": ")" + number + R"(", "question": "What )" + (i == 5 ? "@" : "now") +
                     R"(?"})");
    }
  }

  std::vector<OrderedJson> answer(Generator& generator, const GenerationOptions& generation,
                                  OutputFormat kind = OutputFormat::kJsonl) {
    std::string text;
    for (const std::string& row : rows) text += row + "\n";
    std::istringstream none;
    const ItemList list(open_entries({folder.write("rows.jsonl", text)}, none),
                        {.reserved = reserved_columns()});
    const RowFormat format(kind, list.columns());
    const fs::path output = folder.path() / "out.jsonl";
    RowLog log({.output = output,
                .header = {.items = list.items(), .shard_items = list.items()},
                .restart = true});
    options.generation = generation;
    options.generation.max_new_tokens = 3;
    CHECK(run_batch(generator, list, format, log, options));
    CHECK(log.rows() == list.items());
    return read_rows(output);
  }
};

std::vector<std::string> texts_of(const std::vector<OrderedJson>& rows) {
  std::vector<std::string> texts;
  for (const OrderedJson& row : rows) texts.push_back(row.value("text", "no text"));
  return texts;
}

bool holds(const at::Tensor& ids, std::int64_t id) {
  return ids.eq(id).any().item<bool>();
}

TEST_CASE("what the model throws is tried again alone, and then costs its own row") {
  Session session = open_fixture(kTinyModel);
  const auto processor =
      std::shared_ptr<const Processor>(&session.generator->processor(), [](const Processor*) {});
  // The token that only the fifth question has.
  const auto others = processor->tokenizer().encode("What now?");
  std::int64_t at_sign = -1;
  for (const std::int64_t id : processor->tokenizer().encode("What @?")) {
    if (std::find(others.begin(), others.end(), id) == others.end()) at_sign = id;
  }
  REQUIRE(at_sign >= 0);
  FailureRun run;
  const auto wanted = texts_of(run.answer(*session.generator, session.generation));
  const auto answer = [&](const std::function<void(const at::Tensor&)>& watch) {
    Generator generator(std::make_shared<WatchedModel>(session.model, watch), processor);
    return run.answer(generator, session.generation);
  };
  const auto check_only_fifth = [&](const std::vector<OrderedJson>& rows, const char* error) {
    REQUIRE(rows.size() == 10);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      INFO(i);
      CHECK(rows[i]["id"] == std::to_string(i));
      if (i == 5) {
        CHECK_THAT(rows[i]["error"].get<std::string>(), Contains(error));
      } else {
        CHECK(rows[i]["text"] == wanted[i]);
      }
    }
  };
  for (const std::string order : {"input", "completion"}) {
    run.options.sink.in_input_order = order == "input";
    int failed = 0;
    // Beside others only: alone there is room for it.
    const auto rows = answer([&](const at::Tensor& ids) {
      if (!holds(ids, at_sign) || ids.size(0) == 1) return;
      ++failed;
      throw std::bad_alloc();
    });
    CHECK(failed == 1);
    if (order == "input") CHECK(texts_of(rows) == wanted);
    CHECK(rows.size() == 10);
  }
  run.options.sink.in_input_order = true;
  check_only_fifth(answer([&](const at::Tensor& ids) {
                     if (holds(ids, at_sign)) throw std::bad_alloc();
                   }),
                   "there is too little memory for it");
  check_only_fifth(answer([&](const at::Tensor& ids) {
                     TORCH_CHECK(!holds(ids, at_sign), "no such thing\nin two lines");
                   }),
                   "no such thing in two lines");
  check_only_fifth(answer([&](const at::Tensor& ids) {
                     if (holds(ids, at_sign)) throw std::runtime_error("");
                   }),
                   "it failed without a reason");
}

TEST_CASE("an error of LibTorch is told without its backtrace, and lack of memory is known") {
  const auto caught = [](const std::function<void()>& work) -> std::pair<std::string, bool> {
    try {
      work();
    } catch (const std::exception& error) {
      return {failure_text(error), is_out_of_memory(error)};
    }
    return {};
  };
  const auto check = caught([] { TORCH_CHECK(false, "wrong shape"); });
  CHECK(check.first == "wrong shape");
  CHECK_FALSE(check.second);
  CHECK(caught([] { throw std::bad_alloc(); }).second);
  CHECK(caught([] { TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory"); }).second);
  const auto huge = caught([] { at::empty({std::int64_t{1} << 60}, at::kByte); });
  CHECK(huge.second);
  CHECK(huge.first.find('\n') == std::string::npos);
}

TEST_CASE("an answer that takes longer than the limit is an error of its row") {
  Session session = open_fixture(kTinyModel);
  FailureRun run;
  run.options.item_timeout_s = 1e-9;
  for (const OrderedJson& row : run.answer(*session.generator, session.generation)) {
    CHECK(row["error"] ==
          "the answer took too long: wanted at most 1e-09 s (--item-timeout sets the limit)");
  }
  run.options.item_timeout_s = 1000;
  for (const OrderedJson& row : run.answer(*session.generator, session.generation)) {
    CHECK(row.contains("text"));
  }
}

TEST_CASE("columns of any type cost nobody else's row") {
  Session session = open_fixture(kTinyModel);
  FailureRun run;
  run.rows = {R"({"id": "a", "question": "What?", "model": 7})",
              R"({"id": "b", "question": "What?", "model": {"name": [null]}})",
              R"({"id": "c", "question": "What?", "model": "m"})",
              R"({"id": "d", "question": "What?", "text": 5, "error": true})",
              R"({"id": "e", "question": true})",
              R"({"id": "f", "messages": "no list"})",
              R"({"id": "g", "messages": [{"role": "user", "content": [{"type": 3}]}]})",
              R"({"id": "h", "images": {"path": 3}, "question": "What?"})",
              R"({"id": "i", "question": "What?"})"};
  const auto rows = run.answer(*session.generator, session.generation);
  std::string failed;
  for (const OrderedJson& row : rows) {
    if (row.contains("error")) failed += row["id"].get<std::string>();
  }
  CHECK(failed == "efgh");
  const auto results = run.answer(*session.generator, session.generation, OutputFormat::kOpenAi);
  CHECK(results[0]["response"]["body"]["model"] == "7");
  CHECK(results[1]["response"]["body"]["model"] == R"({"name":[null]})");
  CHECK(results[2]["response"]["body"]["model"] == "m");
  CHECK(results[8]["response"]["body"]["model"] == "vlm");
}

TEST_CASE("an answer that can't be a row is an error under the item's id") {
  const ScratchFolder folder;
  RowLog log({.output = folder.path() / "out", .header = {.items = 2, .shard_items = 2}});
  const RowFormat format(OutputFormat::kJsonl, {});
  RowSink sink(log, format, {});
  sink.expect(0);
  sink.add({.ordinal = 0, .id = "a\xff", .columns = OrderedJson::array({1})}, {.error = "why"});
  sink.flush();
  const auto rows = read_rows(folder.path() / "out");
  REQUIRE(rows.size() == 1);
  CHECK(rows[0]["id"] == "a\\xff");
  CHECK_FALSE(rows[0]["error"].get<std::string>().empty());
}

}  // namespace
}  // namespace vlm::infer
