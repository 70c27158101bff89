#include "infer/media/shown_media.h"

#include <ATen/ops/cat.h>
#include <c10/core/InferenceMode.h>

#include <chrono>
#include <utility>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {

void ShownMedia::add(const MediaRef& medium, const VideoStreamOptions& options) {
  if (medium.kind == MediaKind::kVideo) {
    add(VideoRequest{medium.name, options});
  } else {
    add(data::load_picture(medium), medium.is_whole);
  }
}

void ShownMedia::add(const Image& picture, bool is_whole) {
  parts_.push_back({.medium = processor_->process_picture(picture, is_whole)});
}

void ShownMedia::add(VideoRequest video) {
  parts_.push_back(
      {.video = std::make_unique<VideoStream>(std::move(video), *processor_, *encoder_)});
  has_videos_ = has_more_ = true;
}

bool ShownMedia::read(const ReadLimits& limits) {
  while (!limits.should_stop || !limits.should_stop()) {
    if (read_piece(limits, std::chrono::milliseconds(100)) == ReadState::kWhole) return true;
  }
  return false;
}

void ShownMedia::begin_take() {
  is_reading_ = true;
  has_more_ = false;
  seen_.clear();
  begun_ = std::chrono::steady_clock::now();
  for (Part& part : parts_) {
    part.is_read = !part.video && part.features.defined();
    part.pieces.clear();
  }
}

ReadState ShownMedia::read_piece(const ReadLimits& limits, std::chrono::milliseconds patience) {
  const c10::InferenceMode inference;
  if (!is_reading_) begin_take();
  for (Part& part : parts_) {
    if (part.is_read) continue;
    check_time(limits.time_limit_s);
    if (part.video) return read_video(part, patience);
    const auto picture =
        std::make_shared<PictureFeatures>(PictureFeatures{std::exchange(part.medium.pixels, {})});
    encoder_->encode({picture});
    part.features = picture->features;
    part.is_read = true;
    return ReadState::kMore;
  }
  is_reading_ = is_joined_ = false;
  return ReadState::kWhole;
}

void ShownMedia::check_time(double time_limit_s) const {
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begun_;
  if (time_limit_s == 0 || passed.count() <= time_limit_s) return;
  throw Error({.what = "reading the video took too long",
               .wanted = concat("at most ", time_limit_s, " s"),
               .hint = "--item-timeout sets the limit"});
}

ReadState ShownMedia::read_video(Part& part, std::chrono::milliseconds patience) {
  VideoStream::Piece piece = part.video->next(patience);
  if (std::holds_alternative<VideoStream::Waiting>(piece)) return ReadState::kWaiting;
  if (const auto* pixels = std::get_if<Pixels>(&piece)) {
    part.pieces.push_back(encoder_->encode(*pixels));
    return ReadState::kMore;
  }
  auto& end = std::get<EndOfTake>(piece);
  if (end.features.defined()) {
    part.features = encoder_->to_device(end.features);
  } else {
    part.features = part.pieces.size() == 1 ? part.pieces[0] : at::cat(part.pieces);  // [ΣL, W]
    encoder_->store(end.key, part.features, to_note(end.seen));
  }
  part.pieces.clear();
  part.is_read = true;
  part.medium.text = processor_->video_text(end.seen.shape());
  has_more_ = has_more_ || !end.is_last;
  segment_ = end.segment;
  seen_.push_back(std::move(end.seen));
  return ReadState::kMore;
}

void ShownMedia::join() {
  if (std::exchange(is_joined_, true) || parts_.empty()) return;
  features_ = std::make_shared<PictureFeatures>();
  if (!has_videos_) {
    std::vector<ProcessedMedium> media;
    for (Part& part : parts_) media.push_back(std::move(part.medium));
    processed_ = join_media(media);
    features_->pixels = std::exchange(processed_.pixels, {});
    return;
  }
  processed_.texts.clear();
  std::vector<at::Tensor> features;
  for (const Part& part : parts_) {
    processed_.texts.push_back(part.medium.text);
    features.push_back(part.features);
  }
  features_->features = features.size() == 1 ? features[0] : at::cat(features);  // [ΣL, W]
}

const ProcessedMedia& ShownMedia::processed() {
  join();
  return processed_;
}

std::shared_ptr<PictureFeatures> ShownMedia::features() {
  join();
  return features_;
}

}  // namespace vlm::infer
