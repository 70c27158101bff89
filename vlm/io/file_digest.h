// A file's content → 32 hex digits, as part of the keys of caches.
//
// A file up to kWholeFileBytes is read whole: its digest is its content's, wherever the file lies
// and whenever it was written. A longer one (two hours of video are gigabytes) would cost more to
// read than what a cache saves. Of it are taken: the size, the time of the last change to the
// nanosecond, both ends, and kSamples blocks spread evenly between them; about 5 MB are read. So an
// edit in place is noticed by its time, another file by its content, a copy is the same file only
// when its time was kept (cp -p, rsync -t). Two files that agree in all of this and differ
// elsewhere would have to be made on purpose.
#pragma once

#include <cstdint>
#include <filesystem>
#include <stop_token>
#include <string>

namespace vlm {

inline constexpr std::int64_t kWholeFileBytes = 64LL << 20;

// Empty for what is no regular file (a pipe can be read only once). Throws Error naming a file that
// can't be read. `whole_bytes` is what is read whole; digests of another bound are other digests.
std::string digest_file(const std::filesystem::path& path,
                        std::int64_t whole_bytes = kWholeFileBytes);

// Whole or, of a file longer than `whole_bytes`, the same ends and blocks, but not the time: a copy
// is the same file. Empty when it was told to stop.
std::string digest_content(const std::filesystem::path& path, std::int64_t whole_bytes,
                           const std::stop_token& stop = {});

// Size, times, inode: while they stay, nothing has written to the file. Told in an instant. Empty
// where there is no regular file.
std::string stamp_file(const std::filesystem::path& path);

}  // namespace vlm
