// Of the program `vlm_simulated` alone: settings from its environment, and a report at its end.
//
//   SIMULATED_CUDA_BYTES=8000000000  memory of the device
//   SIMULATED_CUDA_FILL=0            new memory isn't filled
//   SIMULATED_CUDA_PRODUCTS=0        products of matrices aren't computed
//   SIMULATED_CUDA_REPORT=FILE       counts and peak as JSON
//   SIMULATED_CUDA_WAITS=FILE        the places that wait
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/simulated_cuda/simulated_cuda.h"

namespace simulated_cuda {
namespace {

void write_report() {
  if (const char* file = std::getenv("SIMULATED_CUDA_REPORT")) {
    const DeviceCounts all = counts();
    const nlohmann::ordered_json report = {
        {"operators", all.operators}, {"waits", all.waits},         {"uploads", all.uploads},
        {"downloads", all.downloads}, {"bytes_up", all.bytes_up},   {"bytes_down", all.bytes_down},
        {"pageable", all.pageable},   {"peak_bytes", peak_bytes()}, {"held_bytes", current_bytes()},
        {"by_name", all.by_name}};
    std::ofstream(file) << report.dump(1) << "\n";
  }
  if (const char* file = std::getenv("SIMULATED_CUDA_WAITS")) {
    std::ofstream(file) << waiting_places();
  }
}

struct Settings {
  Settings() {
    if (const char* bytes = std::getenv("SIMULATED_CUDA_BYTES")) limit_bytes(std::atoll(bytes));
    const char* fill = std::getenv("SIMULATED_CUDA_FILL");
    fill_new_memory(fill == nullptr || *fill != '0');
    const char* products = std::getenv("SIMULATED_CUDA_PRODUCTS");
    skip_products(products != nullptr && *products == '0');
    record_waits(std::getenv("SIMULATED_CUDA_WAITS") != nullptr);
    std::atexit(write_report);
  }
};
const Settings settings;

}  // namespace
}  // namespace simulated_cuda
