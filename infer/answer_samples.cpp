#include "infer/answer_samples.h"

#include "data/media.h"
#include "data/metrics/answer_match.h"
#include "infer/generator.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"

namespace vlm::infer {
namespace {

EncodedConversation encode(const data::Sample& sample, const Processor& processor) {
  try {
    std::vector<Image> images;
    for (const auto& path : sample.images) images.push_back(data::load_image(path));
    return processor.encode_prompt(sample.messages, images);
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
    for (std::size_t i = begin; i < end; ++i) prompts.push_back(encode(samples[i], *processor));
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
