#include "data/pictures/color_profile.h"

#include <lcms2.h>

#include <cmath>
#include <memory>
#include <string>

namespace vlm::data {
namespace {

using Context = std::unique_ptr<std::remove_pointer_t<cmsContext>, decltype(&cmsDeleteContext)>;
using Profile = std::unique_ptr<void, decltype(&cmsCloseProfile)>;
using Transform = std::unique_ptr<void, decltype(&cmsDeleteTransform)>;
using Curve = std::unique_ptr<cmsToneCurve, decltype(&cmsFreeToneCurve)>;

// A context of one's own: errors go nowhere, and threads share nothing.
Context make_context() {
  return {cmsCreateContext(nullptr, nullptr), cmsDeleteContext};
}

bool is_srgb(cmsHPROFILE profile) {
  char name[256] = "";
  cmsGetProfileInfoASCII(profile, cmsInfoDescription, "en", "US", name, sizeof name);
  return std::string_view(name).find("sRGB") != std::string_view::npos;
}

void convert(cmsContext context, Image& image, cmsHPROFILE from) {
  const Profile srgb(cmsCreate_sRGBProfileTHR(context), cmsCloseProfile);
  const Transform transform(
      cmsCreateTransformTHR(context, from, TYPE_RGB_8, srgb.get(), TYPE_RGB_8, INTENT_PERCEPTUAL,
                            /*dwFlags=*/0),
      cmsDeleteTransform);
  if (!transform) return;
  for (std::int64_t y = 0; y < image.height; ++y) {
    std::uint8_t* row = image.pixels.data() + y * image.width * 3;
    cmsDoTransform(transform.get(), row, row, static_cast<cmsUInt32Number>(image.width));
  }
}

// Number of H.273 → curve; null where 8 bits hold no such light (PQ, HLG) or it isn't known.
Curve make_curve(cmsContext context, int transfer) {
  constexpr int kBt709 = 1, kGamma22 = 4, kGamma28 = 5, kBt601 = 6, kLinear = 8, kBt1361 = 12,
                kSrgb = 13, kBt2020 = 14, kBt2020Deep = 15, kSmpte428 = 17;
  cmsToneCurve* curve = nullptr;
  switch (transfer) {
    case kGamma22:
      curve = cmsBuildGamma(context, 2.2);
      break;
    case kGamma28:
      curve = cmsBuildGamma(context, 2.8);
      break;
    case kLinear:
      curve = cmsBuildGamma(context, 1);
      break;
    case kSmpte428:
      curve = cmsBuildGamma(context, 2.6);
      break;
    case kBt709:  // what cameras write with it is shown with sRGB's curve by phones and browsers
    case kBt601:
    case kBt1361:
    case kBt2020:
    case kBt2020Deep:
    case kSrgb: {
      const double parameters[] = {2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045};
      curve = cmsBuildParametricToneCurve(context, 4, parameters);
      break;
    }
    default:
      break;
  }
  return {curve, cmsFreeToneCurve};
}

bool are_bt709(const Primaries& primaries) {
  const auto near = [](const double(&point)[2], double x, double y) {
    return std::abs(point[0] - x) < 0.002 && std::abs(point[1] - y) < 0.002;
  };
  return near(primaries.red, 0.64, 0.33) && near(primaries.green, 0.30, 0.60) &&
         near(primaries.blue, 0.15, 0.06);
}

}  // namespace

void to_srgb(Image& image, std::string_view icc) {
  const Context context = make_context();
  const Profile profile(
      cmsOpenProfileFromMemTHR(context.get(), icc.data(), static_cast<cmsUInt32Number>(icc.size())),
      cmsCloseProfile);
  if (!profile || cmsGetColorSpace(profile.get()) != cmsSigRgbData || is_srgb(profile.get())) {
    return;
  }
  convert(context.get(), image, profile.get());
}

void to_srgb(Image& image, const Primaries& primaries, int transfer) {
  const Context context = make_context();
  const Curve curve = make_curve(context.get(), transfer);
  constexpr int kLinear = 8;
  if (!curve || (are_bt709(primaries) && transfer != kLinear)) return;
  const cmsCIExyY white{primaries.white[0], primaries.white[1], 1};
  const cmsCIExyYTRIPLE colors{{primaries.red[0], primaries.red[1], 1},
                               {primaries.green[0], primaries.green[1], 1},
                               {primaries.blue[0], primaries.blue[1], 1}};
  cmsToneCurve* curves[] = {curve.get(), curve.get(), curve.get()};
  const Profile profile(cmsCreateRGBProfileTHR(context.get(), &white, &colors, curves),
                        cmsCloseProfile);
  if (profile) convert(context.get(), image, profile.get());
}

}  // namespace vlm::data
