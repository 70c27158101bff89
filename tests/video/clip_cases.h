// Video files of many kinds: codecs, containers, pixel formats, and what makes seeking hard.
#pragma once

#include <string>
#include <vector>

#include "tests/video/clips.h"

struct ClipCase {
  std::string file;
  std::string command;      // makes the file in the current folder
  std::string filter = {};  // for the oracle: what players do and ffmpeg leaves to filters
  bool has_times = true;    // that the oracle knows
};

// Codecs, containers and quirks. Numbers in names tell variants of one kind.
inline const std::vector<ClipCase>& clip_cases() {
  static const std::vector<ClipCase> cases = {
      {"h264.mp4", encode("-c:v libx264 -g 24 -bf 3 h264.mp4")},
      {"h264_one_gop.mp4", encode("-c:v libx264 -g 1000 h264_one_gop.mp4")},
      {"h264_open_gop.mkv",
       encode("-c:v libx264 -x264-params open-gop=1:keyint=20:bframes=3 h264_open_gop.mkv")},
      {"h264_open_gop.mp4",
       encode("-c:v libx264 -x264-params open-gop=1:keyint=20:bframes=3 h264_open_gop.mp4")},
      {"h264_open_gop.ts",
       encode("-c:v libx264 -x264-params open-gop=1:keyint=20:bframes=3 h264_open_gop.ts")},
      {"h264_refresh.mp4", encode("-c:v libx264 -intra-refresh 1 -g 20 h264_refresh.mp4")},
      {"h264_intra.mov", encode("-c:v libx264 -g 1 h264_intra.mov")},
      {"h264_444.mkv", encode("-c:v libx264 -pix_fmt yuv444p -g 24 h264_444.mkv")},
      {"h264_10_bit.mp4", encode("-c:v libx264 -pix_fmt yuv420p10le -g 24 h264_10_bit.mp4")},
      {"h264_rgb.mkv", encode("-c:v libx264rgb -g 24 h264_rgb.mkv")},
      {"h264_interlaced.ts", encode("-c:v libx264 -flags +ilme+ildct -g 24 h264_interlaced.ts")},
      {"h264_fragmented.mp4", encode("-c:v libx264 -g 24 -movflags "
                                     "frag_keyframe+empty_moov h264_fragmented.mp4")},
      {"h264_edited.mp4", encode("-c:v libx264 -g 40 whole.mp4") + " && " + kFfmpeg +
                              "-ss 0.7 -i whole.mp4 -c copy h264_edited.mp4"},
      {"h264_all_keys.mp4",  // without its table of key frames all count as such
       encode("-c:v libx264 -g 24 h264_all_keys.mp4") +
           " && sed -i s/stss/free/ h264_all_keys.mp4"},
      {"h264_no_offsets.mp4",  // reordered frames that all claim to be shown as they are stored
       encode("-c:v libx264 -g 24 -bf 3 whole.mp4") + " && " + kFfmpeg +
           "-i whole.mp4 -c copy -bsf:v setts=pts=DTS h264_no_offsets.mp4",
       "", false},
      {"h264.flv", encode("-c:v libx264 -g 24 h264.flv")},
      {"h264.avi", encode("-c:v libx264 -g 24 h264.avi")},
      {"h264.h264", encode("-c:v libx264 -g 24 h264.h264"), "", false},
      {"h264_live.mkv", encode("-c:v libx264 -g 24 -f matroska -live 1 - >h264_live.mkv")},
      {"h264_cut_in.ts",  // begins in the middle of a group of pictures
       encode("-c:v libx264 -g 30 whole.ts") + " && tail -c +18801 whole.ts >h264_cut_in.ts"},
      {"h264_joined.ts",  // time stamps begin again
       encode("-c:v libx264 -g 24 -t 1 part.ts") + " && cat part.ts part.ts >h264_joined.ts", "",
       false},
      {"h264_odd_size.mp4", kFfmpeg + "-f lavfi -i testsrc2=size=131x97:rate=25:duration=2 "
                                      "-c:v libx264 -pix_fmt yuv444p -g 24 h264_odd_size.mp4"},
      {"h264_709.mp4", encode("-c:v libx264 -g 24 -colorspace bt709 -color_primaries bt709 "
                              "-color_trc bt709 h264_709.mp4")},
      {"h264_full_range.mp4", encode("-c:v libx264 -g 24 -pix_fmt yuvj420p h264_full_range.mp4")},
      {"hevc.mp4", encode("-c:v libx265 -x265-params log-level=0:keyint=20:bframes=3 hevc.mp4")},
      {"hevc_10_bit.mkv", encode("-c:v libx265 -pix_fmt yuv420p10le -x265-params "
                                 "log-level=0:keyint=20 hevc_10_bit.mkv")},
      {"hevc.ts", encode("-c:v libx265 -x265-params log-level=0:keyint=20:open-gop=1 hevc.ts")},
      {"hevc.hevc", encode("-c:v libx265 -x265-params log-level=0:keyint=20 hevc.hevc"), "", false},
      {"vp8.webm", encode("-c:v libvpx -g 24 -auto-alt-ref 1 -lag-in-frames 16 vp8.webm")},
      {"vp8_alpha.webm", encode("-c:v libvpx -g 24 -vf format=yuva420p,colorchannelmixer=aa=0.5 "
                                "-pix_fmt yuva420p -auto-alt-ref 0 vp8_alpha.webm")},
      {"vp9.webm", encode("-c:v libvpx-vp9 -g 24 -cpu-used 8 -auto-alt-ref 1 vp9.webm")},
      {"vp9_alpha.webm",
       encode("-c:v libvpx-vp9 -cpu-used 8 -g 24 -pix_fmt yuva420p vp9_alpha.webm")},
      {"av1.mkv", encode("-t 2 -c:v libsvtav1 -preset 12 -g 24 av1.mkv 2>/dev/null")},
      {"av1.mp4", encode("-t 1 -c:v libaom-av1 -cpu-used 8 -g 12 av1.mp4")},
      {"mpeg4.mp4", encode("-c:v mpeg4 -g 24 -bf 2 mpeg4.mp4")},
      {"mpeg4.avi", encode("-c:v mpeg4 -g 24 -bf 2 mpeg4.avi")},
      {"mpeg4_no_b.avi", encode("-c:v mpeg4 -g 24 mpeg4_no_b.avi")},
      {"msmpeg4.avi", encode("-c:v msmpeg4 -g 24 msmpeg4.avi")},
      {"mpeg1.mpg", encode("-c:v mpeg1video -g 12 -bf 2 mpeg1.mpg")},
      {"mpeg2.vob", encode("-c:v mpeg2video -g 12 -bf 2 -f vob mpeg2.vob")},
      {"mpeg2.mxf", encode("-c:v mpeg2video -g 12 -bf 2 mpeg2.mxf")},
      {"mpeg2_interlaced.ts",
       encode("-c:v mpeg2video -flags +ilme+ildct -g 12 -bf 2 mpeg2_interlaced.ts")},
      {"mjpeg.avi", encode("-c:v mjpeg -pix_fmt yuvj422p mjpeg.avi")},
      {"cinepak.avi", encode("-t 1 -c:v cinepak cinepak.avi")},
      {"huffyuv.avi", encode("-c:v huffyuv huffyuv.avi")},
      {"ffv1.mkv", encode("-c:v ffv1 -g 10 ffv1.mkv")},
      {"theora.ogv", encode("-c:v libtheora -g 24 theora.ogv")},
      {"wmv.asf", encode("-c:v wmv2 -g 24 wmv.asf")},
      {"flv1.flv", encode("-c:v flv -g 24 flv1.flv")},
      {"animated.gif", encode("-t 2 animated.gif")},
      {"animation.mov", encode("-c:v qtrle -pix_fmt argb -g 24 animation.mov")},
      {"prores_alpha.mov", encode("-t 1 -c:v prores_ks -profile:v 4444 -pix_fmt yuva444p10le "
                                  "prores_alpha.mov")},
      {"svq1.mov", encode("-c:v svq1 -g 24 svq1.mov")},
      {"raw.y4m", encode("-t 1 raw.y4m")},
      {"raw.nut", encode("-t 1 -c:v rawvideo -pix_fmt gray raw.nut")},
      {"variable_rate.mp4", encode("-vf select='not(eq(mod(n\\,7)\\,3))' "
                                   "-fps_mode vfr -c:v libx264 -g 24 variable_rate.mp4")},
      {"variable_rate.mkv",
       encode(
           "-vf settb=1/1000,setpts='(N+0.4*mod(N\\,3))/25/TB' -fps_mode vfr -enc_time_base 1/1000 "
           "-c:v libx264 -g 24 variable_rate.mkv")},
      {"variable_no_b.mp4",
       encode(
           "-vf settb=1/1000,setpts='(N+0.4*mod(N\\,3))/25/TB' -fps_mode vfr -enc_time_base 1/1000 "
           "-c:v libx264 -bf 0 -g 24 variable_no_b.mp4")},
      {"one_frame.mp4", encode("-frames:v 1 -c:v libx264 one_frame.mp4")},
      {"wide_pixels.mp4", encode("-vf setsar=4/3 -c:v libx264 -g 24 wide_pixels.mp4"),
       "scale=171:96:flags=bicubic+accurate_rnd"},
      {"tall_pixels.mkv", encode("-vf setsar=2/3 -c:v libx264 -g 24 tall_pixels.mkv"),
       "scale=128:144:flags=bicubic+accurate_rnd"},
      {"with_sound.mp4", kFfmpeg + "-f lavfi -i sine=duration=4 " + kPicture +
                             "-c:v libx264 -g 24 -c:a aac -map 0 -map 1 with_sound.mp4"},
      {"two_streams.mkv", kFfmpeg + kPicture +
                              "-f lavfi -i smptebars=size=64x48:duration=4 "
                              "-map 0 -map 1 -c:v libx264 -g 24 two_streams.mkv"},
      {"-dash.mp4", encode("-c:v libx264 -g 24 ./-dash.mp4")},
      {"wrong_suffix.txt", encode("-c:v libx264 -g 24 -f mp4 wrong_suffix.txt")},
  };
  return cases;
}
