#include "infer/answer_samples.h"

#include <algorithm>

#include "data/media/media_ref.h"
#include "data/metrics/answer_match.h"
#include "infer/generator.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

ProcessedMedium open(const data::MediaRef& medium, const Processor& processor,
                     const data::VideoSampling& video) {
  if (medium.kind == data::MediaKind::kPicture) {
    return processor.process_picture(data::load_picture(medium), medium.is_whole);
  }
  return processor.process_video(data::load_clip(medium.name, video, processor.frame_sampling()));
}

EncodedConversation encode(const data::Sample& sample, const Processor& processor,
                           const data::VideoSampling& video) {
  try {
    std::vector<ProcessedMedium> media;
    for (const data::MediaRef& medium : sample.media) {
      media.push_back(open(medium, processor, video));
    }
    return processor.encode_prompt(sample.messages, join_media(media));
  } catch (const Error& error) {
    throw located(error, sample.where);
  }
}

}  // namespace

std::vector<std::string> answer_samples(const ModelPtr& model,
                                        const std::shared_ptr<const Processor>& processor,
                                        const std::vector<data::Sample>& samples,
                                        const AnswerSamplesOptions& options) {
  GenerationOptions generation = load_generation_options(options.folder);
  generation.do_sample = false;
  generation.num_beams = 1;
  generation.num_return_sequences = 1;
  generation.max_new_tokens = options.max_new_tokens;
  Generator generator(model, processor);
  std::vector<std::string> answers;
  const auto at_once = static_cast<std::size_t>(options.batch_size);
  for (std::size_t begin = 0; begin < samples.size(); begin += at_once) {
    const std::size_t end = std::min(begin + at_once, samples.size());
    std::vector<EncodedConversation> prompts;
    for (std::size_t i = begin; i < end; ++i) {
      prompts.push_back(encode(samples[i], *processor, options.video));
    }
    try {
      for (const Answer& answer : generator.generate(prompts, generation)) {
        answers.push_back(data::strip_space(answer.generations.at(0).text));
      }
    } catch (const Error& error) {
      throw located(error, concat(samples[begin].where, " to ", samples[end - 1].where));
    }
  }
  return answers;
}

}  // namespace vlm::infer
