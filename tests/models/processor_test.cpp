// Prompts and ids against transformers' processors, and which tokens are trained.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/messages.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/json.h"
#include "vlm/models/smolvlm/smolvlm_processor.h"

namespace vlm {
namespace {

// The processor needs a picture's size only for the prompt: pixels stay grey.
Image grey(std::int64_t height, std::int64_t width) {
  return {height, width,
          std::vector<std::uint8_t>(static_cast<std::size_t>(height * width * 3), 128)};
}

// Of the sizes of tests/fixtures/pictures.
Image picture(const std::string& name) {
  if (name == "tall") return grey(90, 28);
  return name == "wide" ? grey(30, 84) : grey(32, 32);
}

TEST_CASE("conversations become transformers' prompts and ids") {
  for (const std::string model : {"smolvlm_tiny", "smolvlm_odd", "granite_tiny"}) {
    const SmolVlmProcessor processor(fixture(model));
    const Json golden = load_json(fixture(model + "/golden.json"));
    for (const Json& one : golden["conversations"]) {
      INFO(model << ": " << one["name"]);
      std::vector<Image> images;
      for (const Json& name : one["images"]) images.push_back(picture(name));
      const auto messages = parse_messages(one["messages"]);
      const bool generates = one["add_generation_prompt"];
      CHECK(processor.expand_prompt(messages, processor.process_pictures(images), generates) ==
            one["expanded"].get<std::string>());
      const auto encoded = generates ? processor.encode_prompt(messages, images)
                                     : processor.encode_conversation(messages, images);
      CHECK(encoded.ids == one["input_ids"].get<std::vector<std::int64_t>>());
    }
  }
}

TEST_CASE("a whole picture is what a checkpoint that doesn't split makes of it") {
  const ScratchFolder folder;
  const auto model = fixture("smolvlm_tiny");
  for (const auto& file : std::filesystem::directory_iterator(model)) {
    if (file.is_regular_file()) std::filesystem::copy(file.path(), folder.path());
  }
  const auto config = folder.path() / "preprocessor_config.json";
  Json settings = load_json(config);
  REQUIRE(settings["do_image_splitting"] == true);
  settings["do_image_splitting"] = false;
  save_text(config, settings.dump());
  const SmolVlmProcessor splits(model), keeps(folder.path());
  for (const char* name : {"tall", "wide", "square"}) {
    const Image image = picture(name);
    const ProcessedMedium whole = splits.process_picture(image, /*is_whole=*/true);
    const ProcessedMedium wanted = keeps.process_picture(image);
    CHECK(whole.pixels.units() == 1);
    CHECK(whole.pixels.values.equal(wanted.pixels.values));
    CHECK(whole.text.text == wanted.text.text);
    CHECK(whole.text.text == image_prompt(0, 0, splits.tokens_per_tile()));
    CHECK(splits.picture_text(image.height, image.width, true).text == wanted.text.text);
  }
  CHECK(splits.process_picture(picture("wide")).pixels.units() > 1);
}

TEST_CASE("assistant turns are trained up to the end of the utterance and no further") {
  const SmolVlmProcessor processor(fixture("smolvlm_tiny"));
  const auto say = [](const char* role, const char* text) {
    return Message{.role = role, .content = {{.type = "text", .text = text}}};
  };
  const auto encoded = processor.encode_conversation(
      {say("system", "Be brief."), say("user", "Hi"), say("assistant", "Yes it is."),
       say("user", "And?"), say("assistant", "No")},
      ProcessedMedia{});
  std::vector<std::int64_t> ids;
  for (std::size_t t = 0; t < encoded.ids.size(); ++t) {
    if (encoded.is_trained[t]) ids.push_back(encoded.ids[t]);
  }
  CHECK(processor.tokenizer().decode(ids, false) ==
        " Yes it is.<end_of_utterance> No<end_of_utterance>");
  CHECK_FALSE(encoded.is_trained.back());  // the newline behind the last turn
}

TEST_CASE("a picture's prompt has a row a line and the global image last") {
  CHECK(image_prompt(0, 0, 2) ==
        "<fake_token_around_image><global-img><image><image><fake_token_around_image>");
  CHECK(image_prompt(1, 2, 1) ==
        "<fake_token_around_image><row_1_col_1><image><fake_token_around_image><row_1_col_2><image>"
        "\n\n<fake_token_around_image><global-img><image><fake_token_around_image>");
}

TEST_CASE("pictures and their places must be as many") {
  const SmolVlmProcessor processor(fixture("smolvlm_tiny"));
  const Message ask{.role = "user", .content = {{.type = "image"}, {.type = "text", .text = "a"}}};
  CHECK_THROWS_WITH(
      processor.encode_prompt({ask}, std::vector<Image>{}),
      "image places in the conversation don't fit the pictures: got 1 places, wanted 0 "
      "for the pictures given");
  CHECK_THROWS_WITH(processor.encode_prompt({ask}, {grey(8, 8), grey(8, 8)}), Contains("wanted 2"));
}

}  // namespace
}  // namespace vlm
