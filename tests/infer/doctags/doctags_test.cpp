// DocTags, as models write them and as they break, to Markdown and HTML.
#include "infer/doctags/answer_format.h"

#include <random>
#include <vector>

#include "infer/doctags/document.h"
#include "infer/doctags/html.h"
#include "infer/doctags/markdown.h"
#include "tests/support/catch.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

std::string markdown(const std::string& text) {
  return to_markdown(parse_doctags(text));
}

// Without the frame of the page.
std::string body(const std::string& text) {
  const std::string page = to_html(parse_doctags(text));
  const auto begin = page.find("<body>\n") + 7;
  return page.substr(begin, page.find("</body>") - begin);
}

TEST_CASE("headings, text and the frame of a page become Markdown and HTML") {
  const std::string page =
      "<doctag><page_header><loc_10><loc_5><loc_200><loc_12>Journal 7</page_header>\n"
      "<title><loc_1><loc_2><loc_3><loc_4>Of cats</title>\n"
      "<section_header_level_1><loc_0><loc_0><loc_9><loc_9>Food</section_header_level_1>\n"
      "<text><loc_1><loc_1><loc_2><loc_2>They eat\nfish.</text>\n"
      "<section_header_level_2>Milk</section_header_level_2><text>No.</text>\n"
      "<footnote>1 So they say.</footnote><page_footer>12</page_footer></doctag><|end_of_text|>";
  CHECK(markdown(page) ==
        "# Of cats\n\n## Food\n\nThey eat fish.\n\n### Milk\n\nNo.\n\n1 So they say.");
  CHECK(to_html(parse_doctags(page)) ==
        "<!DOCTYPE html>\n<html>\n<head><meta charset=\"utf-8\"><title>Of "
        "cats</title></head>\n<body>\n"
        "<header>Journal 7</header>\n<h1>Of cats</h1>\n<h2>Food</h2>\n<p>They eat fish.</p>\n"
        "<h3>Milk</h3>\n<p>No.</p>\n<p class=\"footnote\">1 So they say.</p>\n"
        "<footer>12</footer>\n</body>\n</html>");
}

TEST_CASE("lists keep their numbers and their depth") {
  const std::string lists =
      "<ordered_list><list_item><loc_1>1. one</list_item><list_item>2. two"
      "<unordered_list><list_item>• inner</list_item></unordered_list></list_item>"
      "<list_item>5) five</list_item><list_item>six</list_item></ordered_list>"
      "<unordered_list><list_item>a</list_item><ordered_list><list_item>b</list_item></"
      "ordered_list>"
      "</unordered_list>";
  CHECK(markdown(lists) == "1. one\n2. two\n    - inner\n5. five\n4. six\n\n- a\n    1. b");
  CHECK(body(lists) ==
        "<ol>\n<li value=\"1\">one</li>\n<li value=\"2\">two<ul>\n<li>inner</li>\n</ul>\n</li>\n"
        "<li value=\"5\">five</li>\n<li>six</li>\n</ol>\n"
        "<ul>\n<li>a</li>\n<li><ol>\n<li>b</li>\n</ol>\n</li>\n</ul>\n");
}

TEST_CASE("tables have headers and spans, and repeat in Markdown what spans") {
  const std::string table =
      "<otsl><loc_1><caption>Table 1: Prices</caption><ched>Name<ched>Price<lcel><nl>"
      "<ecel><ched>old<ched>new<nl><rhed>tea | pot<fcel>1<fcel>2<nl><ucel><fcel>3<xcel><nl>"
      "<srow>Sum<lcel><lcel><nl></otsl>";
  CHECK(markdown(table) ==
        "Table 1: Prices\n\n"
        "| Name | Price | Price |\n| --- | --- | --- |\n| | old | new |\n"
        "| tea \\| pot | 1 | 2 |\n| tea \\| pot | 3 | 3 |\n| Sum | Sum | Sum |");
  CHECK(body(table) ==
        "<table>\n<caption>Table 1: Prices</caption>\n"
        "<tr><th scope=\"col\">Name</th><th colspan=\"2\" scope=\"col\">Price</th></tr>\n"
        "<tr><td></td><th scope=\"col\">old</th><th scope=\"col\">new</th></tr>\n"
        "<tr><th rowspan=\"2\" scope=\"row\">tea | pot</th><td>1</td><td>2</td></tr>\n"
        "<tr><td colspan=\"2\">3</td></tr>\n"
        "<tr><th colspan=\"3\" scope=\"rowgroup\">Sum</th></tr>\n</table>\n");
}

TEST_CASE("a table's rows may be of any length and continue nothing") {
  CHECK(markdown("<otsl><lcel>a<nl><fcel>b<fcel>c<nl><nl>") ==
        "| a | |\n| --- | --- |\n| b | c |\n| | |");
  CHECK(markdown("<otsl><ucel>a<xcel>b</otsl>") == "| a | b |\n| --- | --- |");
  CHECK(markdown("<otsl></otsl><text>x</text>") == "x");
  // A block of xcel below and beside: 2 x 2 places, one cell.
  CHECK(body("<otsl><fcel>a<lcel><nl><ucel><xcel><nl></otsl>") ==
        "<table>\n<tr><td colspan=\"2\" rowspan=\"2\">a</td></tr>\n<tr></tr>\n</table>\n");
}

TEST_CASE("pictures, charts, code, formulas and boxes") {
  CHECK(markdown("<picture><loc_3><natural_image><caption>Figure 1: A cat</caption></picture>") ==
        "Figure 1: A cat\n\n<!-- image -->");
  CHECK(body("<picture><logo><caption>A & B</caption></picture>") ==
        "<figure><figcaption>A &amp; B</figcaption>\n</figure>\n");
  CHECK(markdown("<chart><bar_chart><fcel>x<fcel>1<nl></chart>") == "| x | 1 |\n| --- | --- |");
  CHECK(markdown("<code><loc_1><_Python_>if a < b:\n    print(\"```\")</code>") ==
        "````python\nif a < b:\n    print(\"```\")\n````");
  CHECK(body("<code><_C++_>a<b>c</code>") ==
        "<pre><code class=\"language-C++\">a&lt;b&gt;c</code></pre>\n");
  CHECK(markdown("<formula>x < \\frac{a}{b}</formula>") == "$$x < \\frac{a}{b}$$");
  CHECK(body("<formula>a & b</formula>") == "<p>\\[a &amp; b\\]</p>\n");
  CHECK(markdown("<inline><text>If</text><formula>x_1</formula><text>is_so</text></inline>") ==
        "If $x_1$ is\\_so");
  CHECK(body("<inline><text>If</text><formula>x</formula></inline>") == "<p>If \\(x\\)</p>\n");
  CHECK(markdown("<checkbox_selected>yes</checkbox_selected><checkbox_unselected>no") ==
        "- [x] yes\n\n- [ ] no");
  CHECK(body("<checkbox_selected>yes</checkbox_selected>") ==
        "<p><input type=\"checkbox\" disabled checked> yes</p>\n");
  CHECK(markdown("<text>a</text><page_break><text>b</text>") == "a\n\n---\n\nb");
}

TEST_CASE("an answer may be cut off anywhere") {
  const std::string page =
      "<doctag><text>one</text><unordered_list><list_item>two</list_item><list_item>thr";
  CHECK(markdown(page) == "one\n\n- two\n- thr");
  CHECK(markdown("<doctag><text>one<loc_1") == "one");
  CHECK(markdown("<doctag><text>one</te") == "one");
  CHECK(markdown("<otsl><fcel>a<fcel>b<nl><fcel>c<fc") == "| a | b |\n| --- | --- |\n| c | |");
  const std::string whole =
      "<doctag><title>t</title><picture><caption>c</caption></picture><ordered_list><list_item>1. "
      "i</list_item></ordered_list><otsl><ched>h<lcel><nl></otsl><code><_C_>x</code></doctag>";
  for (std::size_t length = 0; length <= whole.size(); ++length) {
    const std::string text = markdown(whole.substr(0, length));
    CHECK(text.find("doctag") == std::string::npos);
    CHECK(text.find("list_item") == std::string::npos);
  }
}

TEST_CASE("tags that are wrong lose no text") {
  CHECK(markdown("<text>a<text>b</text></caption>c") == "a\n\nb\n\nc");
  CHECK(markdown("no tags <at all> & 1 < 2") == "no tags \\<at all> & 1 \\< 2");
  CHECK(
      markdown("<unordered_list><list_item>a<section_header_level_1>b</section_header_level_1>") ==
      "- a\n\n## b");
  CHECK(markdown("<unordered_list>stray<list_item>a</list_item></unordered_list>") ==
        "- stray\n- a");
  CHECK(markdown("<list_item>alone</list_item>") == "- alone");
  CHECK(markdown("<text>the <unknown> tag</text>") == "the \\<unknown> tag");
  CHECK(markdown("").empty());
  CHECK(body("").empty());
}

TEST_CASE("no order of tags loses a word") {
  const std::vector<std::string> tags = {
      "text",      "paragraph",    "title",          "section_header_level_1",
      "caption",   "footnote",     "formula",        "code",
      "list_item", "ordered_list", "inline",         "group",
      "picture",   "chart",        "unordered_list", "checkbox_selected",
      "otsl",      "fcel",         "ecel",           "lcel",
      "ucel",      "xcel",         "ched",           "nl",
      "doctag",    "page_break",   "form",           "document_index",
      "smiles",    "srow"};
  std::mt19937 random(5);
  for (int round = 0; round < 1000; ++round) {
    std::string text;
    std::vector<std::string> words;
    for (int i = 0; i < 12; ++i) {
      const std::string& tag = tags[random() % tags.size()];
      words.push_back(concat("w", i, "x"));
      text += concat(random() % 3 == 0 ? "</" : "<", tag, "> ", words.back(), " ");
    }
    const std::string as_markdown = markdown(text), as_html = body(text);
    for (const std::string& word : words) {
      INFO(text << "\n" << word);
      CHECK(as_markdown.find(word) != std::string::npos);
      CHECK(as_html.find(word) != std::string::npos);
    }
  }
}

TEST_CASE("what Markdown and HTML would read as their own is escaped") {
  CHECK(markdown("<text># 5*3 [a]_b_ `c` \\ &amp; R&D</text>") ==
        "\\# 5\\*3 \\[a\\]\\_b\\_ \\`c\\` \\\\ \\&amp; R&D");
  CHECK(markdown("<text>1. not a list</text>") == "1\\. not a list");
  CHECK(markdown("<text>- not a list</text>") == "\\- not a list");
  CHECK(markdown("<text>1.5 is a number</text>") == "1.5 is a number");
  CHECK(body("<text><script>alert(\"&\")</script></text>") ==
        "<p>&lt;script&gt;alert(&quot;&amp;&quot;)&lt;/script&gt;</p>\n");
}

TEST_CASE("formats of answers by their names") {
  const std::string answer = "<text>a</text>";
  CHECK(convert_answer(answer, parse_answer_format("text")) == answer);
  CHECK(convert_answer(answer, parse_answer_format("doctags")) == answer);
  CHECK(convert_answer(answer, parse_answer_format("markdown")) == "a");
  CHECK(convert_answer(answer, parse_answer_format("html")).find("<p>a</p>") != std::string::npos);
  CHECK_THROWS_WITH(
      parse_answer_format("md"),
      "--answer-format: unknown format: got 'md', wanted text, doctags, markdown or html");
}

}  // namespace
}  // namespace vlm::infer
