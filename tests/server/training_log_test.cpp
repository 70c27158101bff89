// The curve of a training that runs, as the page asks for it.
#include "infer/server/page/training_log.h"

#include <fstream>

#include "tests/server/served.h"

namespace vlm::infer {
namespace {

void add(const ScratchFolder& folder, const std::string& text) {
  std::ofstream(folder.path() / "metrics.jsonl", std::ios::app) << text;
}

TEST_CASE("rows come once, and a line that is being written waits") {
  const ScratchFolder folder;
  const std::string name = folder.path().string();
  CHECK(read_training(name, {})["rows"].empty());  // it hasn't begun
  add(folder, "{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"lo");
  const OrderedJson first = read_training(name, {});
  CHECK(first["rows"] == OrderedJson::parse(R"([{"step":1,"loss":2.5}])"));
  CHECK(first["from"] == 0);
  const auto place_of = [](const OrderedJson& answer) {
    return parse_training_place("from=" + answer["next"].dump() +
                                "&file=" + answer["file"].get<std::string>());
  };
  CHECK(read_training(name, place_of(first))["rows"].empty());
  add(folder, "ss\":2}\nno JSON\n[1]\n");
  const OrderedJson second = read_training(name, place_of(first));
  CHECK(second["rows"] == OrderedJson::parse(R"([{"step":2,"loss":2}])"));
  CHECK(second["from"] == first["next"]);
  CHECK(second["next"] == second["size"]);
}

TEST_CASE("another file, or one that was cut, is read from its beginning") {
  const ScratchFolder folder;
  const std::string name = folder.path().string();
  add(folder, "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
  const OrderedJson all = read_training(name, {});
  const std::string file = all["file"];
  CHECK(read_training(name, {.file = file, .byte = 11})["rows"].size() == 2);
  for (const TrainingPlace& place :
       {TrainingPlace{.file = "other", .byte = 11}, TrainingPlace{.file = file, .byte = 12},
        TrainingPlace{.file = file, .byte = 1000}, TrainingPlace{.file = file, .byte = -5}}) {
    CHECK(read_training(name, place) == all);
  }
  CHECK(parse_training_place("from=x&&file").byte == 0);
}

TEST_CASE("the route is there with a folder, and needs the key") {
  const ScratchFolder folder;
  add(folder, "{\"step\":1,\"loss\":2.5}\n");
  ServedOptions options;
  options.service.access.keys = {"secret"};
  options.service.training_folder = folder.path().string();
  {
    const Served served(options);
    CHECK(status_of(served.get("/v1/training")) == 401);
    const std::string key = "Authorization: Bearer secret\r\n";
    const OrderedJson answer = OrderedJson::parse(body_of(served.get("/v1/training", key)));
    CHECK(answer["rows"][0]["loss"] == 2.5);
    const std::string rest =
        "/v1/training?from=" + answer["next"].dump() + "&file=" + answer["file"].get<std::string>();
    CHECK(OrderedJson::parse(body_of(served.get(rest, key)))["rows"].empty());
  }
  const Served plain;
  CHECK(status_of(plain.get("/v1/training")) == 404);
}

}  // namespace
}  // namespace vlm::infer
