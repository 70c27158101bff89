// The server as a backend of Label Studio.
#include <cmath>

#include "tests/server/http_test_server.h"
#include "tests/server/served.h"
#include "tests/support/logged_lines.h"
#include "tests/support/thrown.h"

namespace vlm::infer {
namespace {

ServedOptions backend() {
  ServedOptions options;
  options.service.is_label_backend = true;
  return options;
}

const std::string kShapeConfig = R"(<View>
  <Image name="image" value="$image"/>
  <Header value="what shape is in the image?"/>
  <Choices name="shape" toName="image">
    <Choice value="circle" alias="c"/><Choice value="triangle"/><Choice value="rectangle"/>
  </Choices>
  <TextArea name="words" toName="image" model_question="what shape is in the image?"/>
</View>)";

Json predict_body(const std::string& config, const std::vector<Json>& data) {
  Json tasks = Json::array();
  for (std::size_t i = 0; i < data.size(); ++i) tasks.push_back({{"id", 7 + i}, {"data", data[i]}});
  // As an instance sends it.
  return {{"tasks", tasks},
          {"model_version", "old"},
          {"project", "1.1790000000"},
          {"label_config", config},
          {"params", {{"login", nullptr}, {"password", nullptr}, {"context", nullptr}}}};
}

OrderedJson predictions(const Served& served, const std::string& config,
                        const std::vector<Json>& data) {
  return served.ask(predict_body(config, data), "/predict")["results"];
}

TEST_CASE("tasks get predictions in their order, with the probability as score") {
  const Served served(backend());
  const OrderedJson results =
      predictions(served, kShapeConfig,
                  {{{"image", shape_uri("shape_074")}}, {{"image", shape_uri("shape_049")}}});
  REQUIRE(results.size() == 2);
  const std::vector<std::string> names = {"shape_074", "shape_049"};
  const std::vector<std::string> shapes = {"triangle", "c"};
  for (std::size_t i = 0; i < 2; ++i) {
    INFO(results[i].dump());
    const OrderedJson alone = served.ask(
        shape_body("what shape is in the image?", {names[i]},
                   {{"structured_outputs", {{"choice", {"circle", "triangle", "rectangle"}}}}}));
    const OrderedJson words = served.ask(
        shape_body("what shape is in the image?", {names[i]}, {{"vlm", {{"confidence", true}}}}));
    const OrderedJson& result = results[i]["result"];
    REQUIRE(result.size() == 2);
    CHECK(result[0]["from_name"] == "shape");
    CHECK(result[0]["to_name"] == "image");
    CHECK(result[0]["type"] == "choices");
    CHECK(result[0]["value"]["choices"] == OrderedJson::array({shapes[i]}));
    const double probability = alone["vlm"]["probabilities"][content_of(alone)];
    CHECK(result[0]["score"].get<double>() == Approx(probability).margin(1e-5));
    CHECK(result[1]["type"] == "textarea");
    CHECK(result[1]["value"]["text"] == OrderedJson::array({content_of(words)}));
    const double sure = std::exp(words["vlm"]["mean_logprob"].get<double>());
    CHECK(result[1]["score"].get<double>() == Approx(sure).margin(1e-5));
    CHECK(results[i]["score"].get<double>() == Approx(std::min(probability, sure)).margin(1e-5));
    CHECK(results[i]["model_version"].get<std::string>().starts_with("easy-vqa-emoji vlm-"));
    CHECK(!results[i].contains("error"));
    CHECK(result[0]["id"] != result[1]["id"]);
  }
  const std::string finished =
      "vlm_request_finished_total{model=\"easy-vqa-emoji\",reason=\"stop\"}";
  CHECK(comes_true([&] { return served.metric(finished) == 5; }));
}

TEST_CASE("questions, texts, choices and lists of pictures come from the task's data") {
  const Served served(backend());
  const std::string config = R"(<View><Image name="images" valueList="$images"/>
    <Text name="question" value="$ask.question"/>
    <Choices name="pick" toName="question" value="$options"/></View>)";
  const OrderedJson result =
      predictions(served, config,
                  {{{"images", {shape_uri("shape_049"), shape_uri("shape_074")}},
                    {"ask", {{"question", "what shape is in the image?"}}},
                    {"options", {"square", {{"value", "triangle"}, {"alias", "tri"}}}}}})[0];
  CHECK(result["result"][0]["value"]["choices"][0] == "tri");
  const OrderedJson same =
      served.ask(shape_body("what shape is in the image?", {"shape_049", "shape_074"},
                            {{"structured_outputs", {{"choice", {"square", "triangle"}}}}}));
  CHECK(result["score"].get<double>() ==
        Approx(same["vlm"]["probabilities"]["triangle"].get<double>()).margin(1e-5));
}

TEST_CASE("a pattern holds for a text, and a cut one is no label") {
  const Served served(backend());
  const auto config = [](const std::string& attributes) {
    return "<View><Image name='i' value='$i'/><TextArea name='t' toName='i' "
           "model_question='what shape is in the image?' " +
           attributes + "/></View>";
  };
  const Json data = {{"i", shape_uri("shape_049")}};
  const OrderedJson kept = predictions(served, config("model_pattern='[0-9]{3}'"), {data})[0];
  const std::string digits = kept["result"][0]["value"]["text"][0];
  CHECK(digits.size() == 3);
  CHECK(digits.find_first_not_of("0123456789") == std::string::npos);
  const std::string refused = served.post(
      predict_body(config("model_pattern='[a-z]{40}' model_max_tokens='2'"), {data}), "/predict");
  CHECK(Served::fault_of(refused) == "400 invalid_request_error invalid_value -");
  CHECK(body_of(refused).find("t: the text was cut after 2 tokens; model_max_tokens allows more") !=
        std::string::npos);
}

TEST_CASE("a task that can't be answered has an error, and the others go on") {
  const LoggedLines log(LogLevel::kWarning);
  const Served served(backend());
  std::vector<Json> data(6, {{"image", shape_uri("shape_049")}});
  data[1] = {{"picture", "x"}};
  data[2] = {{"image", "data:image/png;base64,aGVsbG8="}};
  data[3] = {{"image", "/data/upload/1/a.png"}};
  data[4] = {{"image", "https://127.0.0.1/a.png"}};
  Json body = predict_body(kShapeConfig, data);
  body["tasks"][5] = 3;
  const OrderedJson results = served.ask(body, "/predict")["results"];
  REQUIRE(results.size() == 6);
  CHECK(results[0]["result"].size() == 2);
  const std::vector<std::string> errors = {
      "shape: tasks[1].data.image: unusable value: got nothing, wanted what the labelling config "
      "calls $image",
      "messages[0].content[0].image_url.url",
      "a path of the Label Studio instance, whose address isn't known: got '/data/upload/1/a.png' "
      "(start the server with --label-studio-url)",
      "messages[0].content[0].image_url.url", "tasks[5]: unusable value: got number 3"};
  for (std::size_t i = 1; i < 6; ++i) {
    INFO(results[i].dump());
    CHECK(results[i]["result"].empty());
    CHECK(results[i]["score"] == 0);
    CHECK(results[i]["error"].get<std::string>().find(errors[i - 1]) != std::string::npos);
  }
  CHECK(log.text.find("5 of 6 tasks have labels without a prediction") != std::string::npos);
  // Where none can be, an instance shows the error.
  CHECK(served.refusal(predict_body(kShapeConfig, {data[1]}), "/predict") ==
        "400 invalid_request_error invalid_value -");
}

// An instance that shows its files to those who have the token.
class Instance : public TestHandler {
 public:
  void handle(WebRequest request, std::shared_ptr<Exchange> exchange) override {
    if (request.header("authorization") != "Token abc") {
      return exchange->reply({.status = 401, .body = "secret"});
    }
    if (request.path == "/data/away") {
      return exchange->reply({.status = 302, .headers = {{"Location", "http://127.0.0.1:1/a"}}});
    }
    exchange->reply({.body = read_file(kShapes / "shape_074.png"), .content_type = "image/png"});
  }
};

TEST_CASE("what an instance keeps itself is fetched with its token, and nothing else is") {
  const LoggedLines log(LogLevel::kWarning);
  Instance instance;
  HttpServer files(quick_options(), instance);
  files.start();
  const std::string config =
      "<View><Image name='i' value='$i'/><Choices name='c' toName='i' "
      "model_question='what shape is in the image?'><Choice value='circle'/>"
      "<Choice value='triangle'/></Choices></View>";
  ServedOptions options = backend();
  options.service.label_studio_url = files.address() + "/";
  options.service.label_studio_token = "abc";
  {
    const Served served(options);
    const OrderedJson results = predictions(served, config,
                                            {{{"i", "/data/upload/1/a.png"}},
                                             {{"i", "/data/away"}},
                                             {{"i", files.address() + "/b.png"}}});
    CHECK(results[0]["result"][0]["value"]["choices"][0] == "triangle");
    CHECK(results[1]["error"].get<std::string>().find(
              "nothing is fetched from this host: got http://127.0.0.1:1") != std::string::npos);
    // As an address it is one of a client's own, for which the instance is no allowed host.
    CHECK(results[2]["error"].get<std::string>().find("not fetched from the network") !=
          std::string::npos);
  }
  options.service.label_studio_token = "wrong";
  const Served served(options);
  const std::string refused =
      served.post(predict_body(config, {{{"i", "/data/upload/1/a.png"}}}), "/predict");
  CHECK(status_of(refused) == 400);
  CHECK(body_of(refused).find("the instance's file can't be had: the host doesn't have the medium: "
                              "got HTTP 401") != std::string::npos);
  CHECK(body_of(refused).find("secret") == std::string::npos);
  CHECK(body_of(refused).find("wrong") == std::string::npos);
  options.service.label_studio_url = "localhost";
  CHECK(thrown_by([&] { const Service none(options.service); }) ==
        "--label-studio-url: not the address of a Label Studio instance: got localhost, wanted "
        "http://name:port or https://name");
}

TEST_CASE("set-up, health and events, and none of it where it wasn't asked for") {
  const LoggedLines log(LogLevel::kWarning);
  {
    const Served served(backend());
    CHECK(body_of(served.get("/health")) == R"({"status":"UP","model_class":"vlm"})");
    CHECK(body_of(served.get("/", "Accept: */*\r\n")) == body_of(served.get("/health")));
    CHECK(body_of(served.get("/", "Accept: text/html,*/*\r\n")).starts_with("<!doctype html>"));
    const OrderedJson ready = served.ask({{"project", "1"},
                                          {"schema", kShapeConfig},
                                          {"hostname", "http://localhost:8080"},
                                          {"access_token", "secret"}},
                                         "/setup");
    CHECK(ready["model_version"].get<std::string>().starts_with("easy-vqa-emoji vlm-"));
    CHECK(served.ask({{"project", "1"}, {"schema", ""}}, "/setup") == ready);
    CHECK(served.refusal({{"schema", "<View/>"}}, "/setup") ==
          "400 invalid_request_error invalid_value schema");
    CHECK(status_of(served.post({{"action", "PROJECT_UPDATED"}}, "/webhook")) == 201);
    CHECK(served.refusal({{"tasks", Json::array()}}, "/predict") ==
          "400 invalid_request_error invalid_value label_config");
    CHECK(served.refusal({{"label_config", kShapeConfig}}, "/predict") ==
          "400 invalid_request_error invalid_value tasks");
    CHECK(predictions(served, kShapeConfig, {}).empty());
    const std::string box =
        "<View><Image name='i' value='$i'/><Brush name='b' toName='i'/>"
        "<TextArea name='t' toName='i'/></View>";
    served.ask({{"schema", box}}, "/setup");
    CHECK(log.text.find("has a tag that gets no prediction: Brush 'b': only Choices and TextArea "
                        "are answered") != std::string::npos);
  }
  const Served plain;
  for (const char* path : {"/predict", "/setup", "/webhook"}) {
    CHECK(status_of(plain.post({}, path)) == 404);
  }
  CHECK(body_of(plain.get("/", "Accept: */*\r\n")).starts_with("<!doctype html>"));
}

TEST_CASE("an instance sends the key as a password") {
  ServedOptions options = backend();
  options.service.access.keys = {"secret"};
  const Served served(options);
  const auto status = [&](const std::string& pair) {
    return status_of(served.post({{"schema", ""}}, "/setup",
                                 "Authorization: Basic " + data::encode_base64(pair) + "\r\n"));
  };
  CHECK(status("anybody:secret") == 200);
  CHECK(status("anybody:wrong") == 401);
  CHECK(status("secret") == 401);
  CHECK(status_of(served.post({{"schema", ""}}, "/setup")) == 401);
}

TEST_CASE("where there is no room, an instance is told to come again") {
  ServedOptions options = backend();
  options.engine.max_running = options.engine.max_waiting = 1;
  const Served served(options);
  const std::string config =
      "<View><Image name='i' value='$i'/><TextArea name='t' toName='i' "
      "model_pattern='[0-9]{900}' model_max_tokens='1500'/></View>";
  const std::string refused = served.post(
      predict_body(config, std::vector<Json>(8, {{"i", shape_uri("shape_049")}})), "/predict");
  CHECK(Served::fault_of(refused) == "429 rate_limit_error queue_full -");
  CHECK(refused.find("\r\nRetry-After: ") != std::string::npos);
  CHECK(comes_true([&] { return served.metric("vlm_num_requests_running") == 0; }));
}

TEST_CASE("an instance that leaves has its tasks cancelled") {
  const Served served(backend());
  // A text of digits lasts until its limit.
  const std::string config =
      "<View><Image name='i' value='$i'/><TextArea name='t' toName='i' "
      "model_pattern='[0-9]{900}' model_max_tokens='1500'/></View>";
  std::vector<Json> data(8, {{"i", shape_uri("shape_049")}});
  {
    RawClient client(served.port());
    client.send(post_request("/predict", predict_body(config, data).dump()));
    REQUIRE(comes_true([&] { return served.metric("vlm_num_requests_running") == 4; }));
  }
  CHECK(comes_true([&] {
    return served.metric("vlm_num_requests_running") == 0 &&
           served.metric("vlm_num_requests_waiting") == 0;
  }));
  CHECK(predictions(served, kShapeConfig, {{{"image", shape_uri("shape_049")}}}).size() == 1);
}

}  // namespace
}  // namespace vlm::infer
