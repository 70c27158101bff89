#include "vlm/text/chat_template.h"

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

using vlm::ChatTemplate;
using vlm::Error;
using vlm::Json;
using vlm::Message;
using vlm::TemplateOptions;
namespace fs = std::filesystem;

namespace {

const std::vector<Message> kQuestion = {
    {.role = "user", .content = {{.type = "image"}, {.type = "text", .text = "Hi"}}}};

std::string render(const std::string& source, const std::vector<Message>& messages = kQuestion) {
  return ChatTemplate(source, "t").render(messages, true);
}

std::string error_of(const std::string& source) {
  try {
    render(source);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

Message to_message(const Json& json) {
  Message message{.role = json["role"].get<std::string>()};
  if (json["content"].is_string()) {
    message.plain_content = json["content"].get<std::string>();
    return message;
  }
  for (const Json& part : json["content"]) {
    message.content.push_back({.type = part["type"], .text = part.value("text", "")});
  }
  return message;
}

std::string repeat(const std::string& text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += text;
  return result;
}

}  // namespace

TEST_CASE("templates render as in transformers") {
  const ChatTemplate::Variables variables = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  for (const Json& row : vlm::load_json(fixture("chat_templates.json"))) {
    const std::string source = row["template"].get<std::string>();
    INFO(source);
    std::vector<Message> messages;
    for (const Json& message : row["messages"]) messages.push_back(to_message(message));
    const auto run = [&] {
      return ChatTemplate(source, "t", variables)
          .render(messages, row["add_generation_prompt"].get<bool>());
    };
    if (row["text"].is_null()) {
      CHECK_THROWS_AS(run(), Error);
    } else {
      CHECK(run() == row["text"].get<std::string>());
    }
  }
}

TEST_CASE("what the language lacks here is named with its line") {
  CHECK(error_of("a\nb{% macro f() %}") == "t:2: tag is not supported: got \"macro\"");
  CHECK(error_of("{% raw %}") == "t:1: tag is not supported: got raw");
  CHECK(error_of("{% include 'x' %}") == "t:1: tag is not supported: got \"include\"");
  CHECK(error_of("{% set x %}a{% endset %}") == "t:1: this form of set is not supported: got \"\"");
  CHECK(error_of("{% for a, b in x %}{% endfor %}") ==
        "t:1: unpacking in for is not supported: got \"a,\"");
  CHECK(error_of("{% for a in x if a %}{% endfor %}") ==
        "t:1: for … if is not supported: got \"if\"");
  CHECK(error_of("\n\n{{ 'a' | indent }}") == "t:3: filter is not supported: got \"indent\"");
  CHECK(error_of("{{ 1 is divisibleby(3) }}") ==
        "t:1: test with an argument is not supported: got \"divisibleby\"");
  CHECK(error_of("{{ 1 is odd }}") == "t:1: test is not supported: got \"odd\"");
  CHECK(error_of("{{ 'a'.encode() }}") ==
        "t:1: \"encode\" is not a method that is supported: got a string");
  CHECK(error_of("{{ [].append(1) }}") ==
        "t:1: \"append\" is not a method that is supported: got list");
  CHECK(error_of("{{ (1)(2) }}") == "t:1: call is not supported: got an expression");
  CHECK(error_of("{{ 1 / 2 }}") == "t:1: operator is not supported: got \"/\"");
  CHECK(error_of("{{ 1.5 }}") == "t:1: number is not supported: got 1");
  CHECK(error_of("{{ '\\N{dash}' }}") == "t:1: string escape is not supported: got \\N");
  CHECK(error_of("{{ 'a'[::0] }}") == "t:1: slice with a step of zero: got 0");
  CHECK(error_of("{{ [1] }}") == "t:1: printing this value is not supported: got list");
  CHECK(error_of("{{ 'a' | trim('a', 'b') }}") ==
        "t:1: \"trim\" has an argument that is not supported: got 2 arguments");
}

TEST_CASE("slices with a step are Python's") {
  CHECK(render("{{ 'abcdef'[::2] }} {{ 'abcdef'[::-1] }} {{ 'abcdef'[4:1:-2] }} "
               "{{ 'abcdef'[-2::-3] }} {{ 'abcdef'[1:100:3] }} {{ 'abcdef'[1:4:-1] }}|",
               {}) == "ace fedcba ec eb be |");
  CHECK(render("{% for m in messages[::-1] %}{{ m.role }} {% endfor %}",
               {{.role = "user"}, {.role = "assistant"}}) == "assistant user ");
}

TEST_CASE("the clock of a template: a day that was chosen, now, or none") {
  const auto at = [](const std::string& format, const TemplateOptions& options) {
    return ChatTemplate("{{ strftime_now('" + format + "') }}", "t", {}, options).render({}, false);
  };
  const TemplateOptions day{.day = "2024-02-09"};
  CHECK(at("%d %b %Y", day) == "09 Feb 2024");
  CHECK(at("%A %a %B %-d %e %m %y %j %H:%M:%S %I %p %%", day) ==
        "Friday Fri February 9  9 02 24 040 00:00:00 12 AM %");
  CHECK(at("%Y", {}).size() == 4);
  CHECK_THROWS_WITH(at("%d", {.has_clock = false}),
                    "t:1: function is not supported: got \"strftime_now\"");
  CHECK_THROWS_WITH(at("%Q", day), "t:1: strftime_now: format is not supported: got \"%Q\"");
  CHECK(ChatTemplate("{{ strftime_now is defined }}", "t").render({}, false) == "True");
  CHECK(ChatTemplate("{{ strftime_now is defined }}", "t", {}, {.has_clock = false})
            .render({}, false) == "False");
}

TEST_CASE("arguments for a template: JSON or bare text, and none that it doesn't use") {
  TemplateOptions options;
  for (const char* one : {"flag=false", "name=a b", "count=3", "list=[\"x\", null]"}) {
    options.add_argument(one);
  }
  CHECK(ChatTemplate("{{ flag }} {{ name }} {{ count + 1 }} {{ list[0] }} {{ list | length }}", "t",
                     {}, options)
            .render({}, false) == "False a b 4 x 2");
  CHECK_THROWS_WITH(ChatTemplate("{{ flag }}", "t", {}, options),
                    "argument count: the chat template doesn't use it: got t");
  TemplateOptions number;
  number.add_argument("x=1.5");
  CHECK_THROWS_WITH(ChatTemplate("{{ x }}", "t", {}, number),
                    "argument x: not a value for a chat template: got number 1.5, wanted text, an "
                    "integer, true, false, null, or lists and objects of them");
  CHECK_THROWS_WITH(options.add_argument("=3"),
                    "not an argument for a chat template: got '=3', wanted NAME=VALUE");
}

TEST_CASE("mistakes in a template are named with their line") {
  CHECK(error_of("{{ 1") == "t:1: tag has no end: got {{");
  CHECK(error_of("{# a") == "t:1: comment has no end: got {#");
  CHECK(error_of("{{ 'a }}") == "t:1: string has no end: got 'a }}");
  CHECK(error_of("{{ ) }}") == "t:1: bracket has no partner: got )");
  CHECK(error_of("{{ ? }}") == "t:1: unexpected character: got \"?\"");
  CHECK(error_of("{% if 1 %}\n") ==
        "t:1: chat template can't be read: got end of template, wanted \"{% endif %}\"");
  CHECK(error_of("{% endfor %}") == "t:1: tag without its beginning: got \"endfor\"");
  CHECK(error_of("{{ a b }}") == "t:1: chat template can't be read: got \"b\", wanted \"}}\"");
  CHECK(error_of("{{ }}") ==
        "t:1: chat template can't be read: got end of tag, wanted an expression");
}

TEST_CASE("what a template can't do with the messages is named") {
  CHECK(error_of("{{ raise_exception('Roles must alternate') }}") ==
        "t:1: chat template refuses the conversation: got Roles must alternate");
  CHECK(error_of("{{ nothing.there }}") ==
        "t:1: value is undefined: got \"nothing\", of which \"there\" is asked");
  CHECK(error_of("{{ 1 + 'a' }}") ==
        "t:1: \"+\" wants two integers, strings or lists: got integer and string");
  CHECK(error_of("{{ 'a' - 1 }}") == "t:1: \"-\" wants integers: got string and integer");
  CHECK(error_of("{{ -'a' }}") == "t:1: \"-\" wants an integer: got string");
  CHECK(error_of("{{ 1 // 0 }}") == "t:1: division by zero: got \"//\"");
  CHECK(error_of("{{ 999999999999999999 * 999999999999999999 }}") ==
        "t:1: integer is too large: got \"*\"");
  CHECK(error_of("{{ 'a' < 1 }}") == "t:1: these values have no order: got string and integer");
  CHECK(error_of("{{ 1 in 'a' }}") == "t:1: \"in\" a string wants a string: got integer");
  CHECK(error_of("{{ 1 in 2 }}") == "t:1: \"in\" wants a list, a dict or a string: got integer");
  CHECK(error_of("{% for a in 1 %}{% endfor %}") ==
        "t:1: for can't run over this value: got integer");
  CHECK(error_of("{% set x.y = 1 %}") ==
        "t:1: set of an attribute wants a namespace: got undefined");
  CHECK(error_of("{% set n = namespace() %}{% set n.n = n %}") ==
        "t:1: a namespace can't hold this value: got dict");
  CHECK(error_of("{{ 1[1:] }}") == "t:1: slice wants a list or a string: got integer");
  CHECK(error_of("{{ 'a'['b':] }}") == "t:1: slice wants integers: got string");
  CHECK(error_of("{{ 1 | length }}") ==
        "t:1: \"length\" wants something with a length: got integer");
  CHECK(error_of("{{ 'a' | replace('a') }}") == "t:1: \"replace\" lacks an argument: got new");
  CHECK(error_of("{{ 'a'.split() }}") == "t:1: split without a separator: got \"split\"");
  CHECK(error_of("{{ 'a' | replace('', 'b') }}") ==
        "t:1: replace of an empty string is not supported: got \"\"");
  CHECK(error_of("{{ 'a'.startswith(1) }}") == "t:1: \"startswith\" wants a string: got integer");
  CHECK(error_of("{{ 1 | join }}") == "t:1: \"join\" can't run over this value: got integer");
}

TEST_CASE("broken UTF-8 is repaired in messages and refused in templates") {
  const std::vector<Message> messages = {{.role = "r\xf4", .plain_content = "a\xf4"}};
  CHECK(render("{{ messages[0].role[1] }}|{{ messages[0].content[1:] }}", messages) ==
        "\uFFFD|\uFFFD");
  const std::vector<Message> parts = {{.role = "user", .content = {{"text", "\xc3"}}}};
  CHECK(render("{{ messages[0].content[0].text | length }}", parts) == "1");
  CHECK(ChatTemplate("{{ bos_token | upper }}", "t", {{"bos_token", "a\xe2\x82"}})
            .render({}, false) == "A\uFFFD");
  CHECK(error_of("{{ 'a\xf4' }}") == "t: chat template is not UTF-8 text");
}

TEST_CASE("work and memory of a template are bounded") {
  const std::string list =
      "{% set l = [1,2,3,4,5,6,7,8,9,10] %}" + repeat("{% set l = l + l %}", 12);
  CHECK_THAT(error_of(list + repeat("{% for a in l %}", 3) + repeat("{% endfor %}", 3)),
             Contains("t:1: chat template takes too long: got over 2000000 steps"));
  CHECK_THAT(error_of("{% set s = 'aaaaaaaaaaaaaaaa' %}" + repeat("{% set s = s ~ s %}", 30)),
             Contains("t:1: text is too long: got "));
  CHECK_THAT(error_of("{% set l = [1] %}" + repeat("{% set l = l + l %}", 30)),
             Contains("t:1: list is too long: got "));
  CHECK(error_of("{{ " + repeat("(", 200) + "1" + repeat(")", 200) + " }}") ==
        "t:1: chat template is nested too deeply: wanted at most 100 levels");
  CHECK(error_of(repeat("{% if 1 %}", 200) + repeat("{% endif %}", 200)) ==
        "t:1: chat template is nested too deeply: wanted at most 100 levels");
  CHECK(error_of("{{ 1" + repeat(" + 1", 300) + " }}") == "t:1: expression is too long: got \"+\"");
  CHECK(error_of(std::string(70'000, 'a')) ==
        "t: chat template is too large: got 70000 bytes, wanted at most 65536");
}

namespace {

// A folder that is gone at the end of the test.
class Folder {
 public:
  Folder() {
    char name[] = "/tmp/vlm_chat_XXXXXX";
    path_ = ::mkdtemp(name);
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  void write(const std::string& name, const Json& json) const {
    vlm::save_text(path_ / name, json.is_string() ? json.get<std::string>() : json.dump());
  }
  std::string render() const { return vlm::load_chat_template(path_).render({}, true); }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

}  // namespace

TEST_CASE("the template is found where transformers finds it") {
  const Folder folder;
  const auto error = [&]() -> std::string {
    try {
      folder.render();
    } catch (const Error& caught) {
      return caught.what();
    }
    return "no error";
  };
  CHECK_THAT(error(), Contains(folder.path().string() + ": no chat template found: wanted "));
  folder.write("tokenizer_config.json",
               {{"chat_template",
                 {{{"name", "tool"}, {"template", "T"}},
                  {{"name", "default"}, {"template", "1{{ bos_token }}"}}}},
                {"bos_token", "<s>"}});
  CHECK(folder.render() == "1<s>");
  folder.write("processor_config.json", {{"chat_template", "2{{ bos_token }}"}});
  CHECK(folder.render() == "2<s>");
  // An old tokenizer_config, without added tokens: special_tokens_map.json counts.
  folder.write("special_tokens_map.json", {{"bos_token", {{"content", "<b>"}}}});
  folder.write("chat_template.json", {{"chat_template", "3{{ bos_token }}"}});
  CHECK(folder.render() == "3<b>");
  folder.write("chat_template.jinja", "4{{ bos_token }}{{ eos_token }}");
  folder.write("tokenizer_config.json",
               {{"bos_token", "<s>"}, {"added_tokens_decoder", Json::object()}});
  CHECK(folder.render() == "4<s>");
  folder.write("chat_template.jinja", "\n{% x %}");
  CHECK(error() ==
        (folder.path() / "chat_template.jinja").string() + ":2: tag is not supported: got \"x\"");
}

TEST_CASE("a list of templates needs a default") {
  const Folder folder;
  folder.write("tokenizer_config.json",
               {{"chat_template", {{{"name", "tool"}, {"template", "T"}}}}});
  CHECK_THROWS_WITH(folder.render(),
                    Contains("tokenizer_config.json.chat_template: no template is called "
                             "\"default\""));
  folder.write("tokenizer_config.json", {{"chat_template", 3}});
  CHECK_THROWS_WITH(folder.render(), Contains("tokenizer_config.json.chat_template: wrong type: "
                                              "got number 3, wanted string"));
}
