#include "infer/engine/engine.h"

#include <utility>

#include "infer/engine/engine_work.h"
#include "vlm/core/concat.h"

namespace vlm::infer {

EngineRequest EngineRequest::of(EncodedConversation prompt, Request request) {
  EngineRequest made;
  request.prompt = std::move(prompt.ids);
  request.layout = std::move(prompt.layout);
  made.requests.push_back(std::move(request));
  if (!prompt.pixels.empty()) {
    made.pictures = std::make_shared<PictureFeatures>(PictureFeatures{std::move(prompt.pixels)});
  }
  return made;
}

Engine::Engine(Generator& generator, const EngineOptions& options)
    : work_(std::make_unique<EngineWork>(generator, options)) {}
Engine::~Engine() = default;

std::uint64_t Engine::submit(EngineRequest request, EngineEvents events) {
  return work_->submit(std::move(request), std::move(events));
}

std::future<RequestAnswer> Engine::submit(EngineRequest request) {
  const auto promise = std::make_shared<std::promise<RequestAnswer>>();
  std::future<RequestAnswer> answer = promise->get_future();
  submit(std::move(request),
         {.on_done = [promise](RequestAnswer done) { promise->set_value(std::move(done)); }});
  return answer;
}

void Engine::cancel(std::uint64_t number) {
  work_->cancel(number);
}

void Engine::drain(double most_s) {
  work_->drain(most_s);
}

EngineStats Engine::stats() const {
  return work_->stats();
}

const Processor& Engine::processor() const {
  return work_->generator().processor();
}

PictureEncoder& Engine::encoder() {
  return work_->generator().encoder();
}

std::int64_t Engine::max_positions() const {
  return work_->generator().max_positions();
}

}  // namespace vlm::infer
