// The text that represents a clip in SmolVLM2's prompt.
//
//   times of the frames, duration ─► "You are provided the following series of three frames from a
//   0:00:03 [H:MM:SS] video.", "Frame from 00:00:" and a picture's tokens for each frame, two
//   newlines
//
// Equal to transformers' SmolVLMProcessor.replace_video_token (5.23) character for character, and
// number words to num2words' (0.5.14). "[H:MM:SS]" is literal text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vlm {

// 21 → "twenty-one", 1105 → "one thousand, one hundred and five". 0 to 999,999.
std::string number_words(std::int64_t number);

// Seconds as Python prints a time span: "0:00:03", "1 day, 0:00:00".
std::string time_span(std::int64_t seconds);

// `frame_prompt` is the text of one frame's picture. `times_s` and `duration_s` are seconds; a
// duration below 0 means unknown, and the last frame's time is used.
std::string video_prompt(const std::vector<double>& times_s, double duration_s,
                         const std::string& frame_prompt);

}  // namespace vlm
