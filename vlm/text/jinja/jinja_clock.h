// The time that a chat template prints (strftime_now): now, or a day that was chosen.
#pragma once

#include <ctime>
#include <string>

#include "vlm/text/jinja/jinja_functions.h"

namespace vlm {

// The time of this machine's clock, where it is.
std::tm local_time();

// Midnight of a day "2024-07-26". Throws Error naming `where` for what is no day.
std::tm parse_day(const std::string& day, const std::string& where);

// As Python's strftime in English, whatever the locale: %a %A %b %B %d %e %H %I %j %m %M %p %S %y
// %Y
// %%, with "-" behind the percent sign for no leading zero. Others are an Error.
std::string format_time(const std::string& format, const std::tm& time, const JinjaPlace& place);

}  // namespace vlm
