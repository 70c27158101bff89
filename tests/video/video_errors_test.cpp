#include <fcntl.h>
#include <unistd.h>

#include <thread>

#include "data/video/video_file.h"
#include "tests/support/logged_lines.h"
#include "tests/support/printed_text.h"
#include "tests/video/clips.h"
#include "vlm/core/error.h"

namespace vlm::data {
namespace {

namespace fs = std::filesystem;

// What opening says when it fails, without the folder in front; "" when it doesn't fail.
std::string error_of(const fs::path& path, const VideoLimits& limits = {}) {
  try {
    const VideoFile file(path, limits);
  } catch (const Error& error) {
    const std::string text = error.what();
    const std::string folder = path.parent_path().string() + "/";
    return path.is_absolute() && text.starts_with(folder) ? text.substr(folder.size()) : text;
  }
  return "";
}

std::string clip_bytes(const ScratchFolder& scratch, const std::string& options,
                       const std::string& file) {
  run_tool(encode(options + " " + file), scratch.path());
  return read_file(scratch.path() / file);
}

TEST_CASE("files that are no video say why") {
  const ScratchFolder scratch;
  const std::string wanted = "wanted a format that FFmpeg can read";
  CHECK(error_of(scratch.at("missing.mp4")) ==
        "missing.mp4: can't open the file: got No such file or directory");
  CHECK(error_of(scratch.path()) ==
        fs::path(scratch.path()).filename().string() + ": is a folder, not a file");
  CHECK(error_of(scratch.write("empty.mp4", "")) == "empty.mp4: file is empty");
  CHECK(error_of(scratch.write("zeros.mp4", std::string(100'000, '\0'))) ==
        "zeros.mp4: not a video: " + wanted);
  CHECK(error_of(scratch.write("text.mp4", "hello, world\n")) ==
        "text.mp4: not a video: " + wanted);
  CHECK(error_of(scratch.write("short.mp4", "x")) == "short.mp4: not a video: " + wanted);
  std::string noise;
  for (unsigned i = 0, value = 1; i < 50'000; ++i) {
    noise += static_cast<char>((value = value * 1664525 + 1013904223) >> 24);
  }
  CHECK(error_of(scratch.write("noise.mp4", noise)) == "noise.mp4: not a video: " + wanted);
}

TEST_CASE("files without a video stream say what they hold") {
  const ScratchFolder scratch;
  const std::string sound = kFfmpeg + "-f lavfi -i sine=duration=1 ";
  run_tool(sound + "-c:a aac sound.mp4", scratch.path());
  CHECK(error_of(scratch.at("sound.mp4")) == "sound.mp4: no video stream: got aac audio");
  run_tool(sound + "sound.wav", scratch.path());
  CHECK(error_of(scratch.at("sound.wav")) == "sound.wav: no video stream: got pcm_s16le audio");
  run_tool(sound +
               "-f lavfi -i smptebars=size=64x64:duration=0.04 -map 0 -map 1 -c:a aac -c:v mjpeg "
               "-pix_fmt yuvj420p -disposition:v attached_pic cover.m4a",
           scratch.path());
  CHECK(error_of(scratch.at("cover.m4a")) ==
        "cover.m4a: no video stream: got aac audio, mjpeg cover picture");
}

TEST_CASE("a file that names other files is refused") {
  const ScratchFolder scratch;
  run_tool(encode("-c:v libx264 -g 25 -f hls -hls_time 1 list.m3u8"), scratch.path());
  run_tool("cp list.m3u8 list.mp4", scratch.path());
  for (const std::string name : {"list.m3u8", "list.mp4"}) {
    const std::string error = error_of(scratch.at(name));
    INFO(error);
    // From FFmpeg 6.1 on a list is no format at all when it is read as bytes without a name.
    CHECK((error == name + ": not a video: wanted a format that FFmpeg can read" ||
           error == name + ": a file that names other files: got hls, wanted a video in the file "
                           "itself"));
  }
  CHECK(error_of(scratch.write("list.ffconcat", "ffconcat version 1.0\nfile list0.ts\n")) ==
        "list.ffconcat: a file that names other files: got concat, wanted a video in the file "
        "itself");
  CHECK(error_of(scratch.write("net.sdp",
                               "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
                               "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n")) ==
        "net.sdp: a file that names other files: got sdp, wanted a video in the file itself");
  // An address or a pattern is a name of a file, and nothing else.
  CHECK(error_of("http://127.0.0.1/a.mp4") ==
        "http://127.0.0.1/a.mp4: can't open the file: got No such file or directory");
  CHECK(error_of("concat:a.mp4|b.mp4") ==
        "concat:a.mp4|b.mp4: can't open the file: got No such file or directory");
}

TEST_CASE("truncated files are read up to the cut, and say so") {
  const ScratchFolder scratch;
  const std::vector<std::pair<std::string, std::string>> kinds = {
      {"-c:v libx264 -g 24 -movflags +faststart", "front.mp4"},
      {"-c:v libx264 -g 24 -movflags frag_keyframe+empty_moov", "pieces.mp4"},
      {"-c:v libx264 -g 24", "a.mkv"},
      {"-c:v libvpx -g 24", "a.webm"},
      {"-c:v mpeg4 -g 24", "a.avi"},
  };
  for (const auto& [options, name] : kinds) {
    INFO(name);
    const std::string bytes = clip_bytes(scratch, options, name);
    const ClipFrames whole = decode_all(scratch.path() / name);
    const std::string cut = scratch.write("cut_" + name, bytes.substr(0, bytes.size() / 2));
    const LoggedLines warnings(LogLevel::kWarning);
    VideoFile file(cut);
    CHECK(file.info().truncated);
    CHECK_THAT(warnings.text, Contains(cut + ": the file is truncated; it is read up to "));
    CHECK(file.info().frame_count > 20);
    CHECK(file.info().frame_count < 70);
    std::int64_t count = 0;
    std::vector<std::int64_t> indices;
    // The last packets may be torn, or their neighbours missing.
    for (std::int64_t i = 0; i < file.info().frame_count - 6; i += 5) indices.push_back(i);
    file.read_frames(indices, [&](VideoFrame frame) {
      CHECK(digest_of(frame.image) == whole.digests[static_cast<std::size_t>(frame.index)]);
      return ++count > 0;
    });
    CHECK(count == static_cast<std::int64_t>(indices.size()));
  }
}

TEST_CASE("a file without a whole frame is truncated") {
  const ScratchFolder scratch;
  const std::string back = clip_bytes(scratch, "-c:v libx264", "back.mp4");  // index at its end
  CHECK(error_of(scratch.write("no_index.mp4", back.substr(0, back.size() / 2))) ==
        "no_index.mp4: truncated or corrupt video file: got moov atom not found");
  const std::string mkv = clip_bytes(scratch, "-c:v libx264 -g 24", "a.mkv");
  CHECK_THAT(error_of(scratch.write("head.mkv", mkv.substr(0, 900))),
             Contains("head.mkv: truncated or corrupt video file: got "));
}

TEST_CASE("an unknown codec is named") {
  const ScratchFolder scratch;
  const std::string clip = clip_bytes(scratch, "-c:v mpeg4 -vtag mp4v", "a.avi");
  std::string bytes = clip;
  for (std::size_t at = 0; (at = bytes.find("mp4v", at)) != bytes.npos;)
    bytes.replace(at, 4, "zzzz");
  CHECK(error_of(scratch.write("b.avi", bytes)) == "b.avi: unsupported video codec: got zzzz");
}

TEST_CASE("limits are told before they are overrun") {
  const ScratchFolder scratch;
  run_tool(encode("-c:v libx264 a.mkv"), scratch.path());
  run_tool(encode("-c:v libx264 a.mp4"), scratch.path());
  const fs::path mkv = scratch.at("a.mkv");
  CHECK(error_of(mkv, {.max_pixels = 128 * 96}).empty());
  CHECK(error_of(mkv, {.max_pixels = 128 * 96 - 1}) ==
        "a.mkv: video has too many pixels: got 128 × 96, wanted at most 12287");
  CHECK(error_of(mkv, {.max_duration_s = 2.5}) ==
        "a.mkv: video is too long: got 3 s, wanted at most 2.5 s");
  for (const char* name : {"a.mkv", "a.mp4"}) {
    CHECK(error_of(scratch.at(name), {.max_frames = 75}).empty());
    CHECK(error_of(scratch.at(name), {.max_frames = 74}) ==
          name + std::string(": video has too many frames: wanted at most 74"));
  }
  CHECK(error_of(mkv, {.max_seconds = 0}) ==
        "a.mkv: reading the video takes too long: wanted at most 0 s");
  run_tool(kFfmpeg + "-i a.mkv -map 0 -map 0 -map 0 -c copy three.mkv", scratch.path());
  CHECK(error_of(scratch.at("three.mkv"), {.max_streams = 3}).empty());
  CHECK(error_of(scratch.at("three.mkv"), {.max_streams = 2}) ==
        "three.mkv: video file has too many streams: got 3, wanted at most 2");
}

TEST_CASE("pipes are read through a bounded copy") {
  const ScratchFolder scratch;
  run_tool(encode("-c:v libx264 -g 24 a.mp4") + " && mkfifo pipe", scratch.path());
  const ClipFrames expected = decode_all(scratch.at("a.mp4"));
  const std::string bytes = read_file(scratch.at("a.mp4"));
  const auto open_fed = [&](const fs::path& path, const VideoLimits& limits) {
    std::thread writer([&] { run_shell("cat a.mp4 >pipe || true", scratch.path()); });
    std::string error = error_of(path, limits);
    writer.join();
    return error;
  };
  CHECK(open_fed(scratch.at("pipe"), {}).empty());
  CHECK(open_fed(scratch.at("pipe"), {.max_spool_bytes = 1000}) ==
        "pipe: pipe holds too much: wanted at most 1000 bytes");
  std::thread writer([&] { run_shell("cat a.mp4 >pipe", scratch.path()); });
  VideoFile file(scratch.at("pipe"));
  writer.join();
  CHECK(file.info().frame_count == 75);
  std::vector<std::string> digests;
  file.read_frames({0, 40, 74}, [&](VideoFrame frame) {
    digests.push_back(digest_of(frame.image));
    return true;
  });
  CHECK(digests == std::vector{expected.digests[0], expected.digests[40], expected.digests[74]});
}

TEST_CASE("standard input may be a file or a pipe") {
  const ScratchFolder scratch;
  run_tool(encode("-c:v libx264 -g 24 a.mp4") + " && : >empty", scratch.path());
  const int kept = ::dup(STDIN_FILENO);
  const auto with_input = [&](int descriptor) {
    ::dup2(descriptor, STDIN_FILENO);
    ::close(descriptor);
    std::string error = error_of("-");
    ::dup2(kept, STDIN_FILENO);
    return error;
  };
  CHECK(with_input(::open(scratch.at("a.mp4").c_str(), O_RDONLY)).empty());
  CHECK(with_input(::open(scratch.at("empty").c_str(), O_RDONLY)) ==
        "standard input: file is empty");
  int ends[2] = {};
  REQUIRE(::pipe(ends) == 0);
  const std::string bytes = read_file(scratch.at("a.mp4"));
  std::thread writer([&] {
    CHECK(::write(ends[1], bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
    ::close(ends[1]);
  });
  CHECK(with_input(ends[0]).empty());
  writer.join();
  ::close(kept);
}

TEST_CASE("wrong indices are refused") {
  const ScratchFolder scratch;
  run_tool(encode("-c:v libx264 -g 24 a.mp4"), scratch.path());
  VideoFile file(scratch.at("a.mp4"));
  const auto keep_on = [](const VideoFrame&) { return true; };
  const std::string where = scratch.at("a.mp4") + ": indices of frames don't fit the video: got ";
  CHECK_THROWS_WITH(file.read_frames({74, 75}, keep_on),
                    where + "74, 75, wanted ascending ones below 75");
  CHECK_THROWS_WITH(file.read_frames({-1}, keep_on), where + "-1, wanted ascending ones below 75");
  CHECK_THROWS_WITH(file.read_frames({3, 3}, keep_on),
                    where + "3, 3, wanted ascending ones below 75");
  CHECK(file.read_frames({}, keep_on) == 0);
}

TEST_CASE("nothing is printed") {
  const ScratchFolder scratch;
  std::string bytes = clip_bytes(scratch, "-c:v libx264 -g 24", "a.mkv");
  for (std::size_t at = 3000; at < bytes.size(); at += 301) bytes[at] ^= 0x40;
  const std::string damaged = scratch.write("damaged.mkv", bytes);
  const LoggedLines warnings(LogLevel::kWarning);
  PrintedText printed;
  const std::string error = error_of(damaged);
  try {
    VideoFile video(damaged);
    video.read_frames({0, video.info().frame_count / 2}, [](const VideoFrame&) { return true; });
  } catch (const Error&) {
  }
  CHECK(printed.finish().empty());
}

}  // namespace
}  // namespace vlm::data
