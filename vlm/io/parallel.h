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

// Makes LibTorch's operators run on one thread when the calling thread calls them, from now on.
// Other threads are not changed (at::set_num_threads would change those started later).
void use_one_thread();

}  // namespace vlm
