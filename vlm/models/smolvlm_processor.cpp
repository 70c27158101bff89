#include "vlm/models/smolvlm_processor.h"

#include <ATen/ops/cat.h>

#include <nlohmann/json.hpp>

#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/fields.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

constexpr std::string_view kImage = "<image>";
constexpr std::string_view kFake = "<fake_token_around_image>";
constexpr std::string_view kGlobal = "<global-img>";
constexpr std::string_view kEndOfUtterance = "<end_of_utterance>";

std::int64_t load_image_seq_len(const std::filesystem::path& folder) {
  std::int64_t image_seq_len = 169;  // the class's default
  const auto path = folder / "processor_config.json";
  if (std::filesystem::exists(path)) {
    read_fields(load_json(path), {{"image_seq_len", &image_seq_len}}, UnknownKeys::kIgnore,
                path.string());
  }
  if (image_seq_len < 1 || image_seq_len > 1 << 20) {
    throw Error({.what = "value out of range",
                 .where = path.string() + ": image_seq_len",
                 .got = concat(image_seq_len)});
  }
  return image_seq_len;
}

}  // namespace

std::string image_prompt(std::int64_t rows, std::int64_t cols, std::int64_t image_seq_len) {
  std::string tokens;
  for (std::int64_t i = 0; i < image_seq_len; ++i) tokens += kImage;
  std::string text;
  for (std::int64_t r = 1; r <= rows; ++r) {
    for (std::int64_t c = 1; c <= cols; ++c) {
      text += concat(kFake, "<row_", r, "_col_", c, ">", tokens);
    }
    text += "\n";
  }
  if (rows > 0) text += "\n";
  return text + concat(kFake, kGlobal, tokens, kFake);
}

// Placeholders are replaced by the pictures' texts as the prompt is walked through.
struct SmolVlmProcessor::Expansion {
  const std::vector<std::string>& prompts;  // one a picture
  std::size_t used = 0;

  std::string expand(std::string_view text) {
    std::string expanded;
    for (auto at = text.find(kImage); at != std::string_view::npos; at = text.find(kImage)) {
      expanded += text.substr(0, at);
      if (used < prompts.size()) expanded += prompts[used];
      ++used;
      text.remove_prefix(at + kImage.size());
    }
    return expanded + std::string(text);
  }

  void check_all_used() const {
    if (used == prompts.size()) return;
    throw Error({.what = "image places in the conversation don't fit the pictures",
                 .got = concat(used, " places"),
                 .wanted = concat(prompts.size(), " for the pictures given")});
  }
};

SmolVlmProcessor::SmolVlmProcessor(const std::filesystem::path& folder)
    : folder_(folder.string()),
      tokenizer_(load_tokenizer(folder)),
      chat_template_(load_chat_template(folder)),
      image_processor_(ImageProcessorConfig::load(folder)),
      image_seq_len_(load_image_seq_len(folder)) {}

ProcessedPictures SmolVlmProcessor::process_pictures(const std::vector<Image>& images) const {
  ProcessedPictures pictures;
  std::vector<at::Tensor> tiles;
  for (const Image& image : images) {
    const ProcessedImage processed = image_processor_.process(image);
    pictures.texts.push_back(image_prompt(processed.rows, processed.cols, image_seq_len_));
    tiles.push_back(processed.pixel_values);
  }
  if (!tiles.empty()) pictures.pixel_values = tiles.size() == 1 ? tiles[0] : at::cat(tiles);
  return pictures;
}

std::vector<std::string> SmolVlmProcessor::picture_texts(
    const std::vector<PixelSize>& sizes) const {
  std::vector<std::string> texts;
  for (const PixelSize& size : sizes) {
    const TilePlan plan = plan_tiles(image_processor_.config(), size);
    texts.push_back(image_prompt(plan.rows, plan.cols, image_seq_len_));
  }
  return texts;
}

std::string SmolVlmProcessor::expand_prompt(const std::vector<Message>& messages,
                                            const std::vector<Image>& images,
                                            bool add_generation_prompt) const {
  const ProcessedPictures pictures = process_pictures(images);
  Expansion expansion{pictures.texts};
  const std::string text = expansion.expand(chat_template_.render(messages, add_generation_prompt));
  expansion.check_all_used();
  return text;
}

EncodedConversation SmolVlmProcessor::encode_prompt(const std::vector<Message>& messages,
                                                    const ProcessedPictures& pictures) const {
  Expansion expansion{pictures.texts};
  const std::string text = expansion.expand(chat_template_.render(messages, true));
  expansion.check_all_used();
  return {.ids = tokenizer_->encode(text), .pixel_values = pictures.pixel_values};
}

std::string SmolVlmProcessor::picture_settings() const {
  const ImageProcessorConfig& c = image_processor_.config();
  return Json({c.do_resize, c.do_image_splitting, c.do_rescale, c.do_normalize, c.resample,
               c.rescale_factor, c.image_mean, c.image_std, c.size_longest_edge, c.size_height,
               c.size_width, c.max_image_size_longest_edge, image_seq_len_})
      .dump();
}

EncodedConversation SmolVlmProcessor::encode_conversation(const std::vector<Message>& messages,
                                                          const ProcessedPictures& pictures) const {
  Expansion expansion{pictures.texts};
  EncodedConversation encoded{.pixel_values = pictures.pixel_values};
  std::string whole;
  const auto add = [&](std::string_view text, bool is_trained) {
    const std::string expanded = expansion.expand(text);
    const auto ids = tokenizer_->encode(expanded);
    whole += expanded;
    encoded.ids.insert(encoded.ids.end(), ids.begin(), ids.end());
    encoded.is_trained.resize(encoded.ids.size(), is_trained);
  };

  const std::string full = chat_template_.render(messages, false);
  std::size_t done = 0;  // characters of `full` already encoded
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != "assistant") continue;
    const std::vector<Message> before(messages.begin(), messages.begin() + i);
    const std::vector<Message> upto(messages.begin(), messages.begin() + i + 1);
    const std::size_t begin = chat_template_.render(before, true).size();
    const std::string turn = chat_template_.render(upto, false);
    const std::size_t end_mark = turn.rfind(kEndOfUtterance);
    if (begin > turn.size() || full.compare(0, turn.size(), turn) != 0 ||
        end_mark == std::string::npos || end_mark < begin) {
      throw Error({.what = "the chat template doesn't let assistant turns be told apart",
                   .where = folder_});
    }
    const std::size_t end = end_mark + kEndOfUtterance.size();
    add(std::string_view(full).substr(done, begin - done), false);
    add(std::string_view(full).substr(begin, end - begin), true);
    done = end;
  }
  add(std::string_view(full).substr(done), false);
  expansion.check_all_used();
  // A picture in the assistant's turn is given, not said.
  const auto image_id = tokenizer_->token_to_id(kImage);
  for (std::size_t t = 0; t < encoded.ids.size(); ++t) {
    if (encoded.ids[t] == image_id) encoded.is_trained[t] = false;
  }
  // Training must see the ids that generation will: encoding in pieces may change nothing.
  if (tokenizer_->encode(whole) != encoded.ids) {
    throw Error({.what = "the tokenizer merges text across the border of an assistant turn",
                 .where = folder_});
  }
  return encoded;
}

}  // namespace vlm
