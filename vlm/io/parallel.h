// Work in equal pieces on LibTorch's own threads.
//
// at::parallel_for is a template: compiled here, without OpenMP, it would run on one thread.
// Building with OpenMP could bring a second runtime and a second pool of threads beside LibTorch's,
// so the pieces go through a function that LibTorch has compiled.
#pragma once

#include <cstdint>
#include <functional>

namespace vlm {

// Calls work(i) once for every i of 0 … count - 1, on as many threads as at::get_num_threads(), in
// no order; a thread takes the next piece when it is done with one. Throws what work throws.
void run_pieces(std::int64_t count, const std::function<void(std::int64_t)>& work);

// From here on LibTorch's operators run on one thread when the calling thread calls them. Other
// threads, also later ones, keep their number (at::set_num_threads would change theirs).
void use_one_thread();

}  // namespace vlm
