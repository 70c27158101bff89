// What the device counts. Any thread may count.
#pragma once

#include <cstdint>
#include <string>

namespace simulated_cuda {

void count_operator(const std::string& name, std::int64_t launches = 1);
void count_upload(std::int64_t bytes);
void count_download(std::int64_t bytes);
void count_pageable();
void count_wait();

}  // namespace simulated_cuda
