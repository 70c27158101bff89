// XML of labelling configs, and what is asked of them.
#include "infer/server/doors/label_config.h"

#include <filesystem>
#include <random>

#include "infer/server/doors/xml_reader.h"
#include "tests/server/refusals.h"
#include "tests/support/catch.h"
#include "tests/support/run_program.h"
#include "tests/support/thrown.h"

namespace vlm::infer {
namespace {

std::string config_refusal(const std::string& xml) {
  return refusal_of([&] { parse_label_config(xml, "label_config"); });
}

TEST_CASE("elements with their attributes and children") {
  const XmlElement root = read_xml(
      "<?xml version=\"1.0\"?><!-- labels --><View a='1 &lt; 2 &amp; &#228;'><Text/>words"
      "<View><Style>.a { color: red }</Style></View></View>");
  CHECK(root.name == "View");
  CHECK(root.attribute("a") == "1 < 2 & \xC3\xA4");
  CHECK(root.attribute("b") == "");
  REQUIRE(root.children.size() == 2);
  CHECK(root.children[0].name == "Text");
  CHECK(root.children[1].children[0].name == "Style");
}

TEST_CASE("XML that is broken, loads something or is too large is refused") {
  const auto error = [](const std::string& xml) { return thrown_by([&] { read_xml(xml); }); };
  CHECK(error("") == "line 1: XML that can't be read: got no element found");
  CHECK(error("<a>\n<b></a>") == "line 2: XML that can't be read: got mismatched tag");
  CHECK(error("<a b='1' b='2'/>") == "line 1: XML that can't be read: got duplicate attribute");
  CHECK(error("<a>&own;</a>") == "line 1: XML that can't be read: got undefined entity");
  CHECK(error("<a>\xFF</a>").find("not well-formed") != std::string::npos);
  const std::string doctype = "line 1: XML that can't be read: got a document type (<!DOCTYPE …>)";
  CHECK(error("<!DOCTYPE a><a/>") == doctype);
  CHECK(error("<!DOCTYPE a [<!ENTITY b \"bbbb\">]><a>&b;</a>") == doctype);
  CHECK(error("<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>") == doctype);
  std::string deep, wide = "<a>";
  for (int i = 0; i < 33; ++i) deep += "<a>";
  CHECK(error(deep) == "line 1: XML that can't be read: got over 32 levels");
  for (int i = 0; i < 5000; ++i) wide += "<b/>";
  CHECK(error(wide) == "line 1: XML that can't be read: got over 5000 elements");
  CHECK(error(std::string((256 << 10) + 1, ' ')) ==
        "the XML is too long: got 262145 bytes, wanted at most 262144");
}

TEST_CASE("what is shown, asked and left out") {
  const LabelConfig config = parse_label_config(R"(<View>
    <Header value="Ignored: another one follows"/>
    <Header value="Which shape is it?"/>
    <Image name="photo" value="$image"/>
    <Video name="clip" value="$video"/>
    <Text name="note" value="$note.text"/>
    <Audio name="sound" value="$sound"/>
    <Choices name="shape" toName="photo" choice="single">
      <Choice value="a circle" alias="circle"/><Choice value="triangle"/>
    </Choices>
    <TextArea name="caption" toName="photo" model_question="$question" model_pattern="[a-z]+"
              model_max_tokens="20"/>
    <Choices name="open" toName="photo" value="$options"/>
    <RectangleLabels name="box" toName="photo"><Label value="cat"/></RectangleLabels>
    <Choices name="mood" toName="sound"><Choice value="a"/><Choice value="b"/></Choices>
    <TextArea name="region" toName="photo" perRegion="true"/>
    <TextArea name="skipped" toName="photo" model_skip="true"/>
    <Choices name="one" toName="photo"><Choice value="a"/></Choices>
    <Choices name="tree" toName="photo"><Choice value="a"><Choice value="b"/></Choice>
      <Choice value="c"/></Choices>
    <View visibleWhen="choice-selected"><TextArea name="more" toName="photo"/></View>
  </View>)",
                                                "label_config");
  REQUIRE(config.objects.size() == 3);
  CHECK(config.objects[0].kind == LabelObject::Kind::kPicture);
  CHECK(config.objects[1].kind == LabelObject::Kind::kClip);
  CHECK(config.objects[2].kind == LabelObject::Kind::kText);
  CHECK(config.objects[2].value == "$note.text");
  REQUIRE(config.controls.size() == 3);
  const LabelControl& shape = config.controls[0];
  CHECK(shape.question == "Which shape is it?");
  CHECK(shape.to_name == "photo");
  REQUIRE(shape.choices.size() == 2);
  CHECK(shape.choices[0].value == "a circle");
  CHECK(shape.choices[0].result == "circle");
  CHECK(shape.choices[1].result == "triangle");
  const LabelControl& caption = config.controls[1];
  CHECK(caption.kind == LabelControl::Kind::kTextArea);
  CHECK(caption.question == "$question");
  CHECK(caption.pattern == "[a-z]+");
  CHECK(caption.max_tokens == 20);
  CHECK(config.controls[2].choices_value == "$options");
  CHECK(config.controls[2].question == "");  // the header was the shape's
  CHECK(config.left_out ==
        std::vector<std::string>{
            "RectangleLabels 'box': only Choices and TextArea are answered",
            "TextArea 'region': perRegion asks about parts", "TextArea 'skipped': model_skip",
            "Choices 'one': fewer than two choices", "Choices 'tree': choices within choices",
            "TextArea 'more': it isn't always there (visibleWhen)",
            "Choices 'mood': 'sound' is no Image, Video or Text"});
}

TEST_CASE("configs that can't be answered name the field") {
  CHECK(config_refusal("<View>") ==
        "400 invalid_value label_config: line 1: XML that can't be read: got no element found");
  CHECK(config_refusal("<View/>") ==
        "400 invalid_value label_config: nothing in the labelling config that can be answered: got "
        "no tag with toName, wanted Choices or TextArea for an Image, a Video or a Text");
  CHECK(config_refusal("<View><Image name='i' value='$i'/><Brush name='b' toName='i'/></View>")
            .find("got Brush 'b': only Choices and TextArea are answered") != std::string::npos);
  for (const char* most : {"0", "x", "1x", "-1", "100001", "99999999999999999999"}) {
    const std::string xml = std::string(
                                "<View><Image name='i' value='$i'/><TextArea name='t' "
                                "toName='i' model_max_tokens='") +
                            most + "'/></View>";
    CHECK(config_refusal(xml) ==
          "400 invalid_value label_config: unusable value: got model_max_tokens=\"" +
              std::string(most) + "\", wanted a whole number from 1 to 100000");
  }
}

TEST_CASE("damaged configs are read or refused") {
  const std::filesystem::path folder =
      std::string(VLM_SOURCE_DIR) + "/tests/fuzz/corpus/label_config";
  std::mt19937 random(7);
  int read = 0, refused = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string whole = read_file(entry.path());
    for (int i = 0; i < 500; ++i) {
      std::string xml = whole;
      for (int change = 0; change < 3; ++change) {
        const std::size_t at = random() % xml.size();
        if (random() % 2 == 0) xml.erase(at, random() % 4);
        if (random() % 2 == 0 && at < xml.size()) xml[at] = "<>&'\"/ $\xff"[random() % 10];
      }
      ++(config_refusal(xml) == "accepted" ? read : refused);
    }
  }
  CHECK(read > 100);
  CHECK(refused > 100);
}

}  // namespace
}  // namespace vlm::infer
