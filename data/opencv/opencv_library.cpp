// The shared object vlm_opencv: pictures through OpenCV's codecs.
//
// OpenCV 4.6 writes what it has to say to std::cerr, also about exceptions that it catches itself.
// Here a buffer in front of std::cerr's own collects what a thread writes while it decodes; what is
// written otherwise goes through. OpenCV's own bounds (OPENCV_IO_MAX_IMAGE_PIXELS and so on) hold
// beside ours.
#include "data/opencv/opencv_library.h"

#include <iostream>
#include <new>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>
#include <stdexcept>
#include <streambuf>

namespace vlm::data {
namespace {

// What OpenCV says while this thread decodes.
struct Messages {
  std::string error;  // of the first exception that it makes
  bool out_of_memory = false;
  std::string stream;  // of std::cerr
};

thread_local Messages* t_messages = nullptr;

class CollectingBuffer : public std::streambuf {
 public:
  explicit CollectingBuffer(std::streambuf* behind) : behind_(behind) {}

 private:
  int_type overflow(int_type c) override {
    if (!t_messages || traits_type::eq_int_type(c, traits_type::eof()))
      return behind_->sputc(char(c));
    t_messages->stream += traits_type::to_char_type(c);
    return c;
  }
  std::streamsize xsputn(const char* text, std::streamsize size) override {
    if (!t_messages) return behind_->sputn(text, size);
    t_messages->stream.append(text, static_cast<std::size_t>(size));
    return size;
  }
  int sync() override { return t_messages ? 0 : behind_->pubsync(); }

  std::streambuf* behind_;
};

int on_error(int status, const char*, const char* message, const char*, int, void*) {
  if (!t_messages || !t_messages->error.empty()) return 0;
  t_messages->error = message;
  t_messages->out_of_memory = status == cv::Error::StsNoMem;
  return 0;
}

// Once, for good.
bool collect_messages() {
  cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_WARNING);  // more goes to stdout
  cv::redirectError(on_error);
  static CollectingBuffer* buffer = new CollectingBuffer(std::cerr.rdbuf());  // outlives std::cerr
  std::cerr.rdbuf(buffer);
  return true;
}

class Collecting {
 public:
  explicit Collecting(Messages& messages) { t_messages = &messages; }
  ~Collecting() { t_messages = nullptr; }
  Collecting(const Collecting&) = delete;
  Collecting& operator=(const Collecting&) = delete;
};

// "[ERROR:0@0.003] global ./modules/x.cpp (430) function OpenJPEG2000: text\n" → "text": what
// stands in front differs from run to run.
std::string first_message(const std::string& stream) {
  std::string line = stream.substr(0, stream.find('\n'));
  if (const auto place = line.find(") "); line.starts_with('[') && place != line.npos) {
    line = line.substr(std::min(line.find(' ', place + 2), line.size() - 1) + 1);
  }
  return line;
}

cv::Mat decode_mat(std::string_view bytes, int flags, Messages& messages) {
  const Collecting collecting(messages);
  const cv::Mat file(1, static_cast<int>(bytes.size()), CV_8U, const_cast<char*>(bytes.data()));
  try {
    return cv::imdecode(file, flags);
  } catch (const cv::Exception&) {  // on_error knows
    return {};
  }
}

SampleKind kind_of(const cv::Mat& picture) {
  switch (picture.depth()) {
    case CV_8U:
      return SampleKind::kByte;
    case CV_16U:
      return SampleKind::kWord;
    case CV_32F:
      return SampleKind::kFloat;
    default:
      throw std::runtime_error("samples of an unknown kind");
  }
}

std::string decode(std::string_view bytes, bool is_gray,
                   const std::function<void(const RawPicture&)>& use) {
  static const bool are_collected = collect_messages();
  Messages messages;
  const int flags = is_gray ? cv::IMREAD_GRAYSCALE | cv::IMREAD_ANYDEPTH : cv::IMREAD_UNCHANGED;
  const cv::Mat picture = are_collected ? decode_mat(bytes, flags, messages) : cv::Mat();
  const std::string said = first_message(messages.stream);
  if (picture.empty()) {
    if (messages.out_of_memory) throw std::bad_alloc();
    throw std::runtime_error(!messages.error.empty() ? messages.error
                             : !said.empty()         ? said
                                                     : "data that OpenCV can't decode");
  }
  use({.height = picture.rows,
       .width = picture.cols,
       .channels = picture.channels(),
       .kind = kind_of(picture),
       .samples = picture.data,
       .stride = static_cast<std::int64_t>(picture.step[0])});
  return said;
}

}  // namespace
}  // namespace vlm::data

extern "C" const vlm::data::OpencvLibrary* vlm_opencv_library() {
  static const vlm::data::OpencvLibrary library{vlm::data::decode};
  return &library;
}
