// An answer in every format.
#include "infer/batch/row_format.h"

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

BatchItem item(std::int64_t ordinal) {
  return {.ordinal = ordinal, .id = "a,b", .columns = {{"path", "p.png"}, {"width", 3}}};
}

RequestAnswer answer() {
  const Hypothesis hypothesis{.ids = {5, 2}, .logprobs = {-1, -2}, .finish_reason = "stop"};
  return {
      .prompt_tokens = 7, .generations = {{hypothesis, "a \"b\"\nc"}}, .first_token_entropy = 0.5};
}

TEST_CASE("an answer in every format") {
  const RowFormat jsonl(OutputFormat::kJsonl, {"path", "width"});
  CHECK(jsonl.preamble().empty());
  CHECK(
      jsonl.row(item(1), answer()) ==
      R"({"id":"a,b","path":"p.png","width":3,"text":"a \"b\"\nc","mean_logprob":-1.5,"min_logprob":-2.0,"finish_reason":"stop","first_token_entropy":0.5})"
      "\n");
  CHECK(jsonl.row(item(1), {.error = "why"}) ==
        R"({"id":"a,b","path":"p.png","width":3,"error":"why"})"
        "\n");
  const RowFormat csv(OutputFormat::kCsv, {"path", "width"});
  CHECK(csv.preamble() ==
        "id,path,width,text,mean_logprob,min_logprob,finish_reason,first_token_entropy,error\r\n");
  CHECK(csv.row(item(1), answer()) == "\"a,b\",p.png,3,\"a \"\"b\"\"\nc\",-1.5,-2.0,stop,0.5,\r\n");
  CHECK(csv.row(item(1), {.error = "why"}) == "\"a,b\",p.png,3,,,,,,why\r\n");
  const RowFormat openai(OutputFormat::kOpenAi, {});
  CHECK(
      openai.row(item(1), answer()) ==
      R"({"id":"batch_req_1","custom_id":"a,b","response":{"status_code":200,"request_id":"req_1",)"
      R"("body":{"id":"chatcmpl-1","object":"chat.completion","created":0,"model":"vlm","choices":)"
      R"([{"index":0,"message":{"role":"assistant","content":"a \"b\"\nc"},"logprobs":null,)"
      R"("finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":2,)"
      R"("total_tokens":9}}},"error":null})"
      "\n");
  CHECK(openai.row(item(1), {.error = "why"}) ==
        R"({"id":"batch_req_1","custom_id":"a,b","response":null,"error":{"code":"item_failed",)"
        R"("message":"why"}})"
        "\n");
  CHECK(parse_output_format("", "x.csv") == OutputFormat::kCsv);
  CHECK(parse_output_format("", "x.txt") == OutputFormat::kJsonl);
  CHECK_THROWS_WITH(parse_output_format("xml", "x"),
                    "--output-format: unknown format: got 'xml', wanted jsonl, csv, openai, txt "
                    "or parquet");
  CHECK(parse_output_format("", "x.parquet") == OutputFormat::kParquet);
  CHECK(parse_output_format("parquet", "x.parquet") == OutputFormat::kParquet);
  CHECK_THROWS_WITH(
      parse_output_format("jsonl", "x.parquet"),
      "--output-format: format and name of the output differ: got jsonl for "
      "x.parquet, wanted parquet for names that end with .parquet, and for no others");
  CHECK_THROWS_WITH(parse_output_format("parquet", "x.jsonl"), Contains("parquet for x.jsonl"));
  const RowFormat table(OutputFormat::kParquet, {"path", "width"});
  CHECK(table.preamble().empty());
  CHECK(table.row(item(1), answer()) == jsonl.row(item(1), answer()));
}

TEST_CASE("a row of a page has it in the format, and what the model wrote") {
  RequestAnswer page = answer();
  page.generations[0].text = "<text><loc_1>a</text>";
  const RowFormat csv(OutputFormat::kCsv, {}, {.format = AnswerFormat::kMarkdown});
  CHECK(csv.preamble() ==
        "id,text,doctags,mean_logprob,min_logprob,finish_reason,first_token_entropy,error\r\n");
  CHECK(csv.row(item(1), page) == "\"a,b\",a,<text><loc_1>a</text>,-1.5,-2.0,stop,0.5,\r\n");
  const RowFormat raw(OutputFormat::kCsv, {}, {.format = AnswerFormat::kDoctags});
  CHECK(raw.row(item(1), page) == "\"a,b\",<text><loc_1>a</text>,-1.5,-2.0,stop,0.5,\r\n");
  const RowFormat withheld(OutputFormat::kJsonl, {},
                           {.abstain_below = 0.9, .format = AnswerFormat::kMarkdown});
  const OrderedJson row = OrderedJson::parse(withheld.row(item(1), page));
  CHECK(row["text"].is_null());
  CHECK(row["doctags"].is_null());
  CHECK(row["withheld_text"] == "a");
}

}  // namespace
}  // namespace vlm::infer
