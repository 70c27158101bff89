#include "infer/media/seen_video.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace vlm::infer {
namespace {

double shown(double value) {
  return std::round(value * 1e6) / 1e6;
}

}  // namespace

std::string to_note(const WatchedVideo& seen) {
  const OrderedJson note = {{"duration_s", seen.duration_s},
                            {"times_s", seen.times_s},
                            {"chosen_frames", seen.chosen_frames},
                            {"dropped_duplicates", seen.dropped_duplicates},
                            {"damaged_frames", seen.damaged_frames},
                            {"height", seen.height},
                            {"width", seen.width}};
  return note.dump();
}

WatchedVideo parse_note(const std::string& note) {
  const OrderedJson fields = OrderedJson::parse(note);
  return {.duration_s = fields.at("duration_s").get<double>(),
          .times_s = fields.at("times_s").get<std::vector<double>>(),
          .chosen_frames = fields.at("chosen_frames").get<std::int64_t>(),
          .dropped_duplicates = fields.at("dropped_duplicates").get<std::int64_t>(),
          .damaged_frames = fields.at("damaged_frames").get<std::int64_t>(),
          .height = fields.at("height").get<std::int64_t>(),
          .width = fields.at("width").get<std::int64_t>()};
}

OrderedJson video_columns(const std::vector<WatchedVideo>& seen, bool has_dropped) {
  OrderedJson columns = OrderedJson::object();
  for (const std::string& name : video_column_names(has_dropped)) {
    columns[name] = OrderedJson::array();
  }
  for (const WatchedVideo& video : seen) {
    OrderedJson times = OrderedJson::array();
    for (const double time : video.times_s) times.push_back(shown(time));
    columns["duration_s"].push_back(shown(video.duration_s));
    columns["frames"].push_back(std::move(times));
    columns["damaged_frames"].push_back(video.damaged_frames);
    if (has_dropped) columns["dropped_duplicates"].push_back(video.dropped_duplicates);
  }
  if (seen.size() != 1) return columns;
  for (auto& [name, value] : columns.items()) value = OrderedJson(value[0]);
  return columns;
}

std::vector<std::string> video_column_names(bool has_dropped) {
  std::vector<std::string> names = {"duration_s", "frames", "damaged_frames"};
  if (has_dropped) names.emplace_back("dropped_duplicates");
  return names;
}

}  // namespace vlm::infer
