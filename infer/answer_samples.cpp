#include "infer/answer_samples.h"

#include <algorithm>

#include "data/media/media_ref.h"
#include "data/metrics/answer_match.h"
#include "infer/generator.h"
#include "vlm/core/error.h"
#include "vlm/core/run/stop_signal.h"

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

GenerationOptions greedy_options(const AnswerSamplesOptions& options) {
  GenerationOptions generation = load_generation_options(options.folder);
  generation.do_sample = false;
  generation.num_beams = 1;
  generation.num_return_sequences = 1;
  generation.max_new_tokens = options.max_new_tokens;
  return generation;
}

bool is_stopping(const AnswerSamplesOptions& options) {
  return options.should_stop && options.should_stop();
}

void throw_if_stopping(const AnswerSamplesOptions& options) {
  if (is_stopping(options)) throw Interrupted();
}

std::vector<std::string> generate_texts(Generator& generator,
                                        const std::vector<EncodedConversation>& prompts,
                                        const GenerationOptions& generation,
                                        const AnswerSamplesOptions& options) {
  const auto goes_on = [&](std::size_t, std::int64_t) { return !is_stopping(options); };
  std::vector<std::string> texts;
  for (const RequestAnswer& answer : generator.generate(prompts, generation, goes_on)) {
    texts.push_back(data::strip_space(answer.generations.at(0).text));
  }
  throw_if_stopping(options);  // the texts are cut
  return texts;
}

}  // namespace

std::vector<std::variant<std::string, Error>> answer_samples(
    const ModelPtr& model, const std::shared_ptr<const Processor>& processor,
    const std::vector<data::Sample>& samples, const AnswerSamplesOptions& options) {
  const GenerationOptions generation = greedy_options(options);
  std::vector<std::variant<std::string, Error>> answers(samples.size());
  std::vector<EncodedConversation> prompts;
  std::vector<std::size_t> places;  // of the prompts among the samples
  for (std::size_t i = 0; i < samples.size(); ++i) {
    throw_if_stopping(options);
    try {
      prompts.push_back(encode(samples[i], *processor, options.video));
      places.push_back(i);
    } catch (const Error& error) {
      answers[i] = error;
    }
  }
  const auto answer = [&](std::size_t begin, std::size_t count) {
    Generator generator(model, processor);
    const auto first = prompts.begin() + static_cast<std::ptrdiff_t>(begin);
    const auto texts = generate_texts(
        generator, {first, first + static_cast<std::ptrdiff_t>(count)}, generation, options);
    for (std::size_t i = 0; i < count; ++i) answers[places[begin + i]] = texts[i];
  };
  try {
    answer(0, prompts.size());
  } catch (const Error&) {  // of one of them: each alone tells which
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      try {
        answer(i, 1);
      } catch (const Error& error) {
        answers[places[i]] = located(error, samples[places[i]].where);
      }
    }
  }
  return answers;
}

}  // namespace vlm::infer
