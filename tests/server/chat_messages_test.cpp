// Messages of a request, and where their pictures and clips may come from.
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "tests/server/bodies.h"
#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/concat.h"

namespace vlm::infer {
namespace {

TEST_CASE("messages: roles, parts and pictures in their order") {
  const std::string uri = "data:image/png;base64," + kPng;
  const Json messages = {
      {{"role", "developer"}, {"content", "Be brief."}, {"name", "x"}},
      {{"role", "user"},
       {"content",
        {{{"type", "text"}, {"text", "Image 1:"}},
         {{"type", "image_url"}, {"image_url", {{"url", uri}, {"detail", "low"}}}},
         {{"type", "input_text"}, {"text", "Image 2:"}},
         {{"type", "image_url"}, {"image_url", uri}},
         {{"type", "input_image"}, {"image_url", uri}, {"detail", "high"}}}}},
      {{"role", "assistant"}, {"content", nullptr}},
      {{"role", "user"},
       {"content",
        {{{"type", "video_url"}, {"video_url", {{"url", "data:video/mp4;base64,AAAA"}}}},
         {{"type", "input_video"}, {"input_video", {{"data", "data:video/mp4;base64,AAAA"}}}},
         {{"type", "text"}, {"text", "?"}}}}}};
  const ChatRequest request = read({{"messages", messages}});
  REQUIRE(request.messages.size() == 4);
  CHECK(request.messages[0].role == "system");
  std::string types;
  for (const ContentPart& part : request.messages[1].content) types += part.type + " ";
  CHECK(types == "text image text image image ");
  REQUIRE(request.media.size() == 5);
  CHECK(request.media[0].medium.is_whole);
  CHECK_FALSE(request.media[1].medium.is_whole);
  CHECK(request.media[0].param == "messages[1].content[1].image_url.url");
  CHECK(request.media[1].param == "messages[1].content[3].image_url");
  CHECK(request.media[4].medium.kind == data::MediaKind::kVideo);
  CHECK(request.media[4].param == "messages[3].content[1].input_video.data");
  CHECK(request.media[0].medium.bytes->starts_with("\x89PNG"));
}

TEST_CASE("messages that can't be answered are refused by place") {
  const auto refused = [](const Json& messages, const Json& fields = {}) {
    Json body = {{"messages", messages}};
    if (!fields.is_null()) body.update(fields);
    return refusal_of([&] { read(body); });
  };
  CHECK(refusal_of([] { read(Json::object()); }) ==
        "400 invalid_value messages: unusable value: got null, wanted a list of messages");
  CHECK(refused(Json::array()) ==
        "400 invalid_value messages: unusable value: got array, wanted a list of messages");
  CHECK(refused({{{"role", "tool"}, {"content", "x"}}}) ==
        "400 invalid_value messages[0].role: unusable value: got 'tool', wanted system, developer, "
        "user or assistant (this model calls no tools)");
  CHECK(
      refused({{{"role", "user"}}}) ==
      "400 invalid_value messages[0].content: unusable value: got nothing, wanted a text or a list "
      "of parts");
  CHECK(refused({{{"role", "user"}, {"content", 5}}}) ==
        "400 invalid_value messages[0].content: unusable value: got number 5, wanted a text or a "
        "list "
        "of parts");
  CHECK(refused({{{"role", "user"}, {"content", {{{"type", "input_audio"}}}}}}) ==
        "400 invalid_value messages[0].content[0].type: unusable value: got 'input_audio', wanted "
        "text, image_url or video_url (this model reads text, pictures and clips)");
  CHECK(refused({"hello"}) ==
        "400 invalid_value messages[0]: unusable value: got string \"hello\", wanted an object");
  CHECK(
      refused({{{"role", "user"}, {"content", "a"}}, {{"role", "assistant"}, {"content", "b"}}}) ==
      "400 invalid_value messages[1].role: unusable value: got 'assistant', wanted user "
      "(continue_final_message: true goes on with an answer)");
  CHECK(refused({{{"role", "user"}, {"content", "a"}}}, {{"continue_final_message", true}}) ==
        "400 invalid_value messages[0].role: unusable value: got 'user', wanted assistant, as "
        "continue_final_message is true");
  CHECK(refused({{{"role", "assistant"}, {"content", "a"}, {"tool_calls", {{{"id", "1"}}}}}}) ==
        "400 unsupported_parameter messages[0].tool_calls: this model calls no tools and hears "
        "nothing");
  const ChatRequest going_on =
      read({{"messages",
             {{{"role", "user"}, {"content", "a"}}, {{"role", "assistant"}, {"content", "b"}}}},
            {"continue_final_message", true},
            {"add_generation_prompt", false}});
  CHECK(going_on.continues_answer);
}

TEST_CASE("moments of a clip are checked") {
  const auto clip = [](Json part) -> Json {
    part["url"] = "data:video/mp4;base64,AAAA";
    return Json::array({{{"type", "video_url"}, {"video_url", part}}});
  };
  const ChatRequest request = read(chat_body({}, clip({{"times", {0, 2.5}}})));
  CHECK(request.media[0].part.times_s == std::vector<double>{0, 2.5});
  const std::string place = "400 invalid_value messages[0].content[0].video_url.";
  CHECK(refusal({}, clip({{"start", -1}})) ==
        place + "start: unusable value: got number -1, wanted a number from 0 to 86400");
  for (const Json& wrong :
       {Json{{"times", {"a"}}}, Json{{"times", {-1}}}, Json{{"times", {1}}, {"end", 2}}}) {
    CHECK(refusal({}, clip(wrong)).ends_with("wanted seconds, without start and end beside them"));
  }
  ApiLimits limits;
  limits.max_frames = 1;
  CHECK(refusal({}, clip({{"times", {1, 2}}}), limits) ==
        place + "times: unusable value: got 2 times, wanted at most 1");
}

TEST_CASE("numbers of pictures and clips, and text, are bounded") {
  ApiLimits limits;
  limits.max_pictures = 1;
  limits.max_clips = 0;
  limits.max_text_bytes = 10;
  const Json picture = {{"type", "image_url"}, {"image_url", "data:image/png;base64," + kPng}};
  const Json clip = {{"type", "video_url"}, {"video_url", "data:video/mp4;base64,AAAA"}};
  CHECK(refusal({}, Json::array({picture}), limits) == "accepted");
  CHECK(refusal({}, Json::array({picture, picture}), limits) ==
        "400 invalid_value messages[0].content[1].type: unusable value: got picture 2, wanted at "
        "most "
        "1 in a request");
  CHECK(
      refusal({}, Json::array({clip}), limits) ==
      "400 invalid_value messages[0].content[0].type: unusable value: got clip 1, wanted at most 0 "
      "in a request");
  CHECK(
      refusal({}, "12345678901", limits) ==
      "400 invalid_value messages[0].content: unusable value: got 11 bytes of text, wanted at most "
      "10 in a request");
}

TEST_CASE("addresses of media: forgiven, and refused") {
  const auto picture = [](const std::string& url, const ApiLimits& limits = {}) {
    return refusal({}, {{{"type", "image_url"}, {"image_url", {{"url", url}}}}}, limits);
  };
  std::string broken = kPng;
  broken.insert(20, "\r\n ");
  std::string url_safe = kPng;
  for (char& c : url_safe) c = c == '+' ? '-' : c == '/' ? '_' : c;
  for (const std::string& data :
       {kPng, kPng.substr(0, kPng.find('=')), broken, url_safe, " " + kPng + "\n"}) {
    for (const char* head : {"data:image/png;base64,", "data:image/jpeg;base64,", "data:;base64,",
                             "DATA:Image/PNG;Base64,", "data:image/png;name=a.png;base64,", ""}) {
      INFO(head << data);
      CHECK(picture(head + data) == "accepted");
    }
  }
  const std::string place = " messages[0].content[0].image_url.url: ";
  CHECK(picture("data:image/png;base64,a!") == "400 invalid_image" + place +
                                                   "not base64: got 2 characters, wanted A-Z a-z "
                                                   "0-9 and + / or - _, four for three bytes, = "
                                                   "at the end only");
  CHECK(picture("data:image/png,abc") ==
        "400 invalid_image" + place +
            "a data URI without base64 data: got data:image/png,abc, wanted "
            "data:image/…;base64,…");
  CHECK(picture("data:image/png;base64,") ==
        "400 invalid_image" + place + "the data is empty: got 0 bytes");
  CHECK(picture("HTTP://example.com/a.png") ==
        "400 media_not_allowed" + place +
            "images are not fetched from the network (send the file itself as a data URI)");
  CHECK(picture("https://127.0.0.1/") ==
        "400 media_not_allowed" + place +
            "images are not fetched from the network (send the file itself as a data URI)");
  CHECK(picture("file:///etc/passwd") ==
        "400 media_not_allowed" + place +
            "file:// addresses are switched off (the server's --allowed-local-media-path names a "
            "folder for them)");
  for (const char* url : {"/etc/passwd", "a.png", "ftp://a/b", "", "blob:http://x/y"}) {
    CHECK(picture(url).starts_with("400 invalid_image" + place + "an address of an unknown kind"));
  }
  CHECK(refusal({}, {{{"type", "image_url"}, {"image_url", {{"url", 5}}}}}) ==
        "400 invalid_value messages[0].content[0].image_url.url: unusable value: got number 5, "
        "wanted "
        "an address");
  CHECK(
      refusal({}, {{{"type", "image_url"}}}) ==
      "400 invalid_value messages[0].content[0].image_url: unusable value: got nothing, wanted an "
      "address");
  CHECK(refusal({}, {{{"type", "image_url"},
                      {"image_url", {{"url", "data:;base64," + kPng}, {"detail", "tiny"}}}}}) ==
        "400 invalid_value messages[0].content[0].image_url.detail: unusable value: got 'tiny', "
        "wanted low, high or auto");
  ApiLimits limits;
  limits.max_clip_bytes = 2;
  CHECK(
      refusal({}, {{{"type", "video_url"}, {"video_url", "data:video/mp4;base64,AAAA"}}}, limits) ==
      "400 invalid_video messages[0].content[0].video_url: the clip is too large: got 3 bytes, "
      "wanted at most 2");
}

TEST_CASE("files are read below the allowed folder alone") {
  const ScratchFolder scratch;
  namespace fs = std::filesystem;
  const fs::path folder = scratch.path() / "media";
  fs::create_directories(folder / "in ner");
  std::ofstream(folder / "in ner/a.png") << "x";
  std::ofstream(scratch.path() / "secret.png") << "x";
  fs::create_symlink(scratch.path() / "secret.png", folder / "link.png");
  fs::create_symlink(folder / "in ner/a.png", folder / "fine.png");
  REQUIRE(::mkfifo((folder / "fifo").c_str(), 0600) == 0);
  ApiLimits limits;
  limits.media_folder = folder.string();
  const auto file = [&](const std::string& url) {
    return refusal({}, {{{"type", "image_url"}, {"image_url", url}}}, limits);
  };
  const std::string base = "file://" + folder.string();
  CHECK(file(base + "/in%20ner/a.png") == "accepted");
  CHECK(file(base + "/in ner/a.png") == "accepted");
  CHECK(file("file://in%20ner/a.png") == "accepted");
  CHECK(file(base + "/fine.png") == "accepted");
  const std::string refused =
      "400 media_not_allowed messages[0].content[0].image_url: no file that may be read (it must "
      "be "
      "a regular file below the server's media folder)";
  // The same answer whether it is there or not.
  for (const std::string& url :
       {base + "/../secret.png", base + "/../missing.png", base + "/link.png", base + "/fifo",
        base + "/in ner", base + "/missing", base + "/in%2520ner/a.png", base + "/%zz",
        base + "/a%00.png", std::string("file:///etc/passwd"), std::string("file:///dev/zero"),
        base + "x/a.png", std::string("file://")}) {
    INFO(url);
    CHECK(file(url) == refused);
  }
}

}  // namespace
}  // namespace vlm::infer
