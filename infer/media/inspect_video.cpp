#include "infer/media/inspect_video.h"

#include <iomanip>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "infer/media/seen_video.h"
#include "vlm/core/concat.h"
#include "vlm/core/run/stopwatch.h"
#include "vlm/nn/runtime.h"

namespace vlm::infer {

OrderedJson inspect_video(const std::string& path, const data::VideoSampling& sampling) {
  double open_s = 0, read_s = 0;
  std::optional<data::ClipReader> opened;
  {
    const Stopwatch watch(open_s);
    opened.emplace(path, sampling, FrameSampling{});
  }
  data::ClipReader& reader = *opened;
  std::vector<std::int64_t> indices;
  std::int64_t width = 0, height = 0;
  WatchedVideo seen{.duration_s = reader.duration_s()};
  {
    const Stopwatch watch(read_s);
    seen.dropped_duplicates = reader.for_each_frame([&](const data::VideoFrame& frame) {
      indices.push_back(frame.index);
      seen.times_s.push_back(frame.time_s);
      width = frame.image.width;
      height = frame.image.height;
      return true;
    });
  }
  seen.damaged_frames = reader.damaged_frames();
  const data::VideoInfo& info = reader.info();
  OrderedJson report = {{"path", path},
                        {"container", info.container},
                        {"codec", info.codec},
                        {"width", info.width},
                        {"height", info.height},
                        {"fps", info.fps},
                        {"constant_rate", info.constant_rate},
                        {"frame_count", info.frame_count},
                        {"truncated", info.truncated}};
  report.update(video_columns({seen}, /*has_dropped=*/true));
  report["indices"] = indices;
  report["shown_width"] = width;
  report["shown_height"] = height;
  report["open_s"] = open_s;
  report["read_s"] = read_s;
  report["peak_rss_mb"] = peak_rss_mb();
  return report;
}

std::string to_lines(const OrderedJson& report) {
  PlainStream out;
  for (const auto& [name, value] : report.items()) {
    if (value.is_object()) {
      OrderedJson inside = OrderedJson::object();
      for (const auto& [key, part] : value.items()) inside[name + "." + key] = part;
      out << to_lines(inside);
    } else {
      out << std::left << std::setw(34) << name
          << (value.is_string() ? value.get<std::string>() : value.dump()) << "\n";
    }
  }
  return out.str();
}

}  // namespace vlm::infer
