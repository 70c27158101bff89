#include "train/jobs/distributed.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "train/jobs/nccl.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/log.h"

namespace vlm::train {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::int64_t number(const char* name, std::int64_t least, std::int64_t most) {
  const std::string text = variable(name);
  std::int64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool is_number = code == std::errc() && end == text.data() + text.size();
  if (is_number && value >= least && value <= most) return value;
  throw Error({.what = "bad variable of the environment",
               .where = name,
               .got = text.empty() ? "nothing" : concat("'", text, "'"),
               .wanted = concat("a number from ", least, " to ", most),
               .hint = "torchrun sets it"});
}

std::chrono::milliseconds to_milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
}

// As torch's env:// does: under torchrun its agent serves the store, otherwise rank 0 does.
c10::intrusive_ptr<c10d::Store> open_store(const JobPlace& place, const JobOptions& options) {
  const std::string host = variable("MASTER_ADDR");
  if (host.empty()) {
    throw Error({.what = "bad variable of the environment",
                 .where = "MASTER_ADDR",
                 .got = "nothing",
                 .wanted = "the name of the job's first machine",
                 .hint = "torchrun sets it"});
  }
  const bool agent_serves = variable("TORCHELASTIC_USE_AGENT_STORE") == "True";
  c10d::TCPStoreOptions store_options;
  store_options.port = static_cast<std::uint16_t>(number("MASTER_PORT", 1, 65535));
  store_options.isServer = !agent_serves && place.rank == 0;
  store_options.waitWorkers = false;
  store_options.timeout = to_milliseconds(options.timeout_s);
  c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::TCPStore>(host, store_options);
  // A job that was started again must not find what its former attempt left.
  const std::string attempt = variable("TORCHELASTIC_RESTART_COUNT");
  return c10::make_intrusive<c10d::PrefixStore>("/vlm/attempt_" + (attempt.empty() ? "0" : attempt),
                                                store);
}

// The network that ranks talk over: that of GLOO_SOCKET_IFNAME, or of the host's name; this machine
// alone needs none.
std::shared_ptr<gloo::transport::Device> open_network(const JobPlace& place) {
  const std::string interface = variable("GLOO_SOCKET_IFNAME");
  using Gloo = c10d::ProcessGroupGloo;
  if (!interface.empty()) return Gloo::createDeviceForInterface(interface);
  if (place.local_size == place.size) return Gloo::createDeviceForHostname("127.0.0.1");
  return Gloo::createDefaultDevice();
}

std::string first_line(const std::string& text) {
  return text.substr(0, std::min(text.find('\n'), std::size_t{300}));
}

}  // namespace

struct Job::Group {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
  std::unique_ptr<Nccl> nccl;                        // made with the first gradients on a GPU
  std::vector<c10::intrusive_ptr<c10d::Work>> sums;  // that were begun, of tensors on the CPU
};

JobPlace find_job_place() {
  if (variable("WORLD_SIZE").empty() && variable("RANK").empty()) return {};
  JobPlace place;
  place.size = number("WORLD_SIZE", 1, 1 << 20);
  place.rank = number("RANK", 0, place.size - 1);
  if (!variable("LOCAL_WORLD_SIZE").empty()) {
    place.local_size = number("LOCAL_WORLD_SIZE", 1, place.size);
  }
  if (!variable("LOCAL_RANK").empty()) {
    place.local_rank = number("LOCAL_RANK", 0, place.size - 1);
  }
  return place;
}

Job::Job(const JobPlace& place, const JobOptions& options) : place_(place), options_(options) {
  if (place.size == 1) return;
  try {
    group_ = std::make_unique<Group>();
    group_->store = open_store(place, options);
    const auto gloo = c10d::ProcessGroupGloo::Options::create(to_milliseconds(options.timeout_s));
    gloo->devices.push_back(open_network(place));
    group_->gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(
        group_->store, static_cast<int>(place.rank), static_cast<int>(place.size), gloo);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Error({.what = "the processes of the job didn't find each other",
                 .where = concat("rank ", place.rank, " of ", place.size),
                 .got = first_line(error.what()),
                 .hint = concat("tried ", variable("MASTER_ADDR"), ":", variable("MASTER_PORT"))});
  }
}

Job::~Job() = default;

std::vector<double> Job::sum(std::vector<double> values) const {
  if (!group_) return values;
  at::Tensor tensor = at::from_blob(values.data(), {static_cast<std::int64_t>(values.size())},
                                    at::TensorOptions(at::kDouble));
  sum_tensor(tensor);
  return values;
}

void Job::begin_sum(const at::Tensor& tensor) const {
  TORCH_CHECK(group_ && tensor.is_contiguous() && tensor.scalar_type() == at::kFloat);
  if (!tensor.is_cpu()) {
    at::Tensor sums = tensor;
    return sum_tensor(sums);
  }
  try {
    std::vector<at::Tensor> tensors = {tensor};
    group_->sums.push_back(group_->gloo->allreduce(tensors));
  } catch (const std::exception& error) {
    fail(error);
  }
}

void Job::end_sums() const {
  if (!group_) return;
  try {
    for (const auto& sum : std::exchange(group_->sums, {})) sum->wait();
    if (group_->nccl) group_->nccl->wait(options_.timeout_s);
  } catch (const std::exception& error) {
    fail(error);
  }
}

bool Job::sums_in_background(at::Device device) const {
  return group_ && (device.is_cpu() || (group_->nccl && group_->nccl->is_open()));
}

void Job::sum_tensor(at::Tensor& tensor) const {
  try {
    const c10::OptionalDeviceGuard device(at::device_of(tensor));
    if (tensor.is_cuda() && !group_->nccl) {
      group_->nccl = open_nccl({.rank = place_.rank, .size = place_.size},
                               [&](std::string id) { return broadcast(id); });
    }
    if (tensor.is_cuda() && group_->nccl->is_open()) return group_->nccl->sum(tensor);
    std::vector<at::Tensor> tensors = {tensor.cpu()};
    group_->gloo->allreduce(tensors)->wait();
    if (tensor.is_cuda()) tensor.copy_(tensors[0]);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    fail(error);
  }
}

void Job::broadcast(const NamedTensors& tensors) const {
  if (!group_) return;
  const c10::NoGradGuard no_grad;
  try {
    for (const auto& [name, tensor] : tensors) {
      std::vector<at::Tensor> copies = {tensor.detach().cpu().contiguous()};
      group_->gloo->broadcast(copies)->wait();
      if (place_.rank != 0) at::Tensor(tensor).detach().copy_(copies[0]);
    }
  } catch (const std::exception& error) {
    fail(error);
  }
}

std::string Job::broadcast(const std::string& text) const {
  return group_ ? gather(place_.rank == 0 ? text : "")[0] : text;
}

// A sum in which every rank fills its own stretch and the others hold zeros.
std::vector<std::string> Job::gather(const std::string& text) const {
  if (!group_) return {text};
  std::vector<double> sizes(static_cast<std::size_t>(place_.size), 0);
  sizes[static_cast<std::size_t>(place_.rank)] = static_cast<double>(text.size());
  sizes = sum(std::move(sizes));
  std::string all;
  std::size_t own_begin = 0;
  for (std::size_t rank = 0; rank < sizes.size(); ++rank) {
    if (rank == static_cast<std::size_t>(place_.rank)) own_begin = all.size();
    all.resize(all.size() + static_cast<std::size_t>(sizes[rank]));
  }
  if (all.empty()) return std::vector<std::string>(sizes.size());
  all.replace(own_begin, text.size(), text);
  at::Tensor bytes = at::from_blob(all.data(), {static_cast<std::int64_t>(all.size())},
                                   at::TensorOptions(at::kByte));
  sum_tensor(bytes);
  std::vector<std::string> texts;
  std::size_t begin = 0;
  for (const double size : sizes) {
    texts.push_back(all.substr(begin, static_cast<std::size_t>(size)));
    begin += static_cast<std::size_t>(size);
  }
  return texts;
}

void Job::fail_together(const std::exception_ptr& failure) const {
  std::string message;
  try {
    if (failure) std::rethrow_exception(failure);
  } catch (const std::exception& error) {
    message = first_line(error.what());
  } catch (...) {
    message = "no reason";
  }
  const std::vector<std::string> messages = gather(message);
  if (failure) std::rethrow_exception(failure);
  const auto first = std::find_if(messages.begin(), messages.end(),
                                  [](const std::string& text) { return !text.empty(); });
  throw Error({.what = "another process of the job can't go on",
               .where = concat("rank ", first - messages.begin(), " of ", place_.size),
               .got = first == messages.end() ? "" : *first});
}

void Job::fail(const std::exception& error) const {
  throw Error(
      {.what = "lost another process of the job",
       .where = concat("rank ", place_.rank, " of ", place_.size),
       .got = first_line(error.what()),
       .hint = "its own messages say why; the same command goes on from the last checkpoint"});
}

std::unique_ptr<Job> join_job(const JobOptions& options) {
  const JobPlace place = find_job_place();
  auto job = std::make_unique<Job>(place, options);
  if (place.size > 1 && place.rank == 0) {
    log_info(concat("trains with ", place.size, " processes"));
  }
  return job;
}

at::Device choose_local_device(at::Device device, const std::string& asked) {
  const JobPlace place = find_job_place();
  if (!device.is_cuda() || place.local_size == 1 || asked.find(':') != std::string::npos) {
    return device;
  }
  const at::Device cuda(at::kCUDA, static_cast<at::DeviceIndex>(place.local_rank));
  const c10::impl::VirtualGuardImpl devices(at::kCUDA);
  if (place.local_rank >= devices.deviceCount()) {
    throw Error({.what = "more processes than GPUs on this machine",
                 .where = concat("local rank ", place.local_rank),
                 .got = concat(devices.deviceCount(), " GPUs"),
                 .hint = "a lower --nproc-per-node, or --device cpu"});
  }
  devices.setDevice(cuda);
  return cuda;
}

}  // namespace vlm::train
