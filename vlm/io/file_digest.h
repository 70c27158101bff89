// A file's content → 32 hex digits, as part of the keys of caches.
//
// A file up to kWholeFileBytes is read whole: its digest depends on its content alone. Reading a
// longer one (two hours of video are gigabytes) would cost more than the cache saves, so its digest
// is made of its size, its modification time in nanoseconds, its first and last bytes, and kSamples
// blocks spread evenly between them; about 5 MB are read. An edit in place changes the time; a copy
// has the same digest only when its time was kept (cp -p, rsync -t). Two different files agree in
// all of this only if someone makes them so on purpose.
#pragma once

#include <cstdint>
#include <filesystem>
#include <stop_token>
#include <string>

namespace vlm {

inline constexpr std::int64_t kWholeFileBytes = 64LL << 20;

// Empty for what is no regular file (a pipe can be read only once). Throws Error naming a file that
// can't be read. Files up to `whole_bytes` are read whole; compare only digests made with the same
// bound.
std::string digest_file(const std::filesystem::path& path,
                        std::int64_t whole_bytes = kWholeFileBytes);

// As digest_file but without the modification time, so that a copy has the same digest. Empty when
// `stop` was requested.
std::string digest_content(const std::filesystem::path& path, std::int64_t whole_bytes,
                           const std::stop_token& stop = {});

// Size, times and inode as text: while it stays the same, nothing has written to the file. Reads no
// content. Empty where there is no regular file.
std::string stamp_file(const std::filesystem::path& path);

}  // namespace vlm
