// InternVL in the layout of transformers against it: prompts with no picture, one, three of
// different sizes, and a clip (scripts/oracle/internvl.py).
#include "vlm/models/internvl/internvl.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <torch/nn/module.h>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "vlm/core/concat.h"
#include "vlm/io/checkpoint.h"
#include "vlm/models/internvl/internvl_processor.h"
#include "vlm/models/registry.h"

namespace vlm {
namespace {

using InternIds = std::vector<std::int64_t>;

const char* const kInternModels[] = {"internvl_tiny", "internvl3_5_tiny"};
constexpr int kInternPrompts = 4;

std::shared_ptr<InternVl> load_internvl(const std::string& name) {
  return std::dynamic_pointer_cast<InternVl>(load_model(fixture(name), {}));
}

Image picture_of(const at::Tensor& pixels) {  // [H, W, 3] u8
  const at::Tensor bytes = pixels.contiguous();
  const auto* begin = bytes.const_data_ptr<std::uint8_t>();
  return {bytes.size(0), bytes.size(1), std::vector<std::uint8_t>(begin, begin + bytes.numel())};
}

// The content and the media of a prompt of the golden file.
struct InternPrompt {
  std::vector<Message> messages;
  std::vector<Medium> media;
};

InternPrompt make_intern_prompt(const Golden& golden, int number) {
  const auto text = [](const char* words) { return ContentPart{.type = "text", .text = words}; };
  const auto picture = [&](int i) { return picture_of(golden[concat("picture.", i)]); };
  const ContentPart image{.type = "image"}, video{.type = "video"};
  InternPrompt prompt{.messages = {{.role = "user"}}};
  auto& content = prompt.messages[0].content;
  if (number == 0) content = {text("What colour is")};
  if (number == 1) {
    content = {image, text("How many dogs are there?")};
    prompt.media = {picture(0)};
  }
  if (number == 2) {
    content = {text("First "), image, text(" then "), image, image, text("?")};
    prompt.media = {picture(1), picture(0), picture(2)};
  }
  if (number == 3) {
    content = {video, text("And now? ")};
    VideoClip clip{.duration_s = 1.5};
    for (std::int64_t i = 0; i < golden["clip"].size(0); ++i) {
      clip.frames.push_back(picture_of(golden["clip"][i]));
      clip.times_s.push_back(static_cast<double>(i) / 2);
    }
    prompt.media = {clip};
  }
  return prompt;
}

EncodedConversation encode_intern_prompt(const Processor& processor, const Golden& golden,
                                         int number) {
  const InternPrompt prompt = make_intern_prompt(golden, number);
  return processor.encode_prompt(prompt.messages, processor.process_media(prompt.media));
}

TEST_CASE("prompts and pixels of InternVL equal transformers'") {
  for (const std::string name : kInternModels) {
    const Golden golden(name + "/golden.safetensors");
    const auto processor = load_processor(fixture(name));
    for (int number = 0; number < kInternPrompts; ++number) {
      INFO(name << ", prompt " << number);
      const InternPrompt prompt = make_intern_prompt(golden, number);
      const EncodedConversation encoded = encode_intern_prompt(*processor, golden, number);
      CHECK(at::tensor(encoded.ids, at::kLong).unsqueeze(0).equal(golden[concat("ids.", number)]));
      CHECK(encoded.layout.media.size() == prompt.media.size());
      CHECK(!encoded.layout.positions.defined());
      if (prompt.media.empty()) continue;
      CHECK(encoded.pixels.tokens == golden[concat("features.", number)].size(0));
      if (number == 2) continue;  // its features tell
      CHECK(encoded.pixels.values.equal(golden[concat("pixel_values.", number)]));
    }
  }
}

TEST_CASE("a conversation of InternVL is its prompt and the learned answer") {
  for (const std::string name : kInternModels) {
    const Golden golden(name + "/golden.safetensors");
    const auto processor = load_processor(fixture(name));
    for (int number = 0; number < kInternPrompts; ++number) {
      INFO(name << ", prompt " << number);
      InternPrompt prompt = make_intern_prompt(golden, number);
      const EncodedConversation asked = encode_intern_prompt(*processor, golden, number);
      prompt.messages.push_back(
          {.role = "assistant", .content = {{.type = "text", .text = "It is red."}}});
      const EncodedConversation whole =
          processor->encode_conversation(prompt.messages, processor->process_media(prompt.media));
      const auto length = static_cast<std::ptrdiff_t>(asked.ids.size());
      CHECK(InternIds(whole.ids.begin(), whole.ids.begin() + length) == asked.ids);
      InternIds learned;
      for (std::size_t t = 0; t < whole.ids.size(); ++t) {
        if (whole.is_trained[t]) learned.push_back(whole.ids[t]);
      }
      CHECK(processor->tokenizer().decode(learned, false) == "It is red.<|im_end|>");
      CHECK(whole.layout.media.size() == asked.layout.media.size());
    }
  }
}

TEST_CASE("every stage of InternVL equals transformers'") {
  const at::NoGradGuard no_grad;
  for (const std::string name : kInternModels) {
    const Golden golden(name + "/golden.safetensors");
    const auto model = load_internvl(name);
    const auto processor = load_processor(fixture(name));
    for (int number = 0; number < kInternPrompts; ++number) {
      INFO(name << ", prompt " << number);
      const auto encoded = encode_intern_prompt(*processor, golden, number);
      at::Tensor features;
      if (!encoded.pixels.empty()) {
        features = model->encode(encoded.pixels);
        check_close(features, golden[concat("features.", number)]);
        model->units_at_once = 2;
        check_close(model->encode(encoded.pixels), features);
      }
      const at::Tensor hidden =
          model->decode(model->embed(golden[concat("ids.", number)], features), {}, nullptr);
      const at::Tensor wanted = golden[concat("hidden.", number)];
      const std::int64_t last = wanted.size(1);
      check_close(hidden.narrow(1, hidden.size(1) - last, last), wanted);
      check_close(model->logits(hidden.narrow(1, hidden.size(1) - 3, 3)),
                  golden[concat("logits.", number)]);
    }
  }
}

// All prompts, and what they give.
struct InternBatch {
  std::vector<at::Tensor> ids;  // [T]
  std::vector<Pixels> pixels;
  InternIds lengths;
  at::Tensor rows;  // [B, T], padded at the end
};

InternBatch make_intern_batch(const Golden& golden, const Processor& processor) {
  InternBatch batch;
  std::int64_t longest = 0;
  for (int number = 0; number < kInternPrompts; ++number) {
    batch.pixels.push_back(encode_intern_prompt(processor, golden, number).pixels);
    batch.ids.push_back(golden[concat("ids.", number)][0]);
    batch.lengths.push_back(batch.ids.back().size(0));
    longest = std::max(longest, batch.lengths.back());
  }
  std::vector<at::Tensor> rows;
  for (const at::Tensor& row : batch.ids) {
    rows.push_back(at::constant_pad_nd(row, {0, longest - row.size(0)}));
  }
  batch.rows = at::stack(rows);
  return batch;
}

// The hidden states of each prompt, [T, C].
std::vector<at::Tensor> decode_batch(InternVl& model, const InternBatch& batch, bool is_packed) {
  const at::Tensor features = model.encode(join_pixels(batch.pixels));
  std::vector<at::Tensor> parts;
  if (!is_packed) {
    const at::Tensor hidden = model.decode(model.embed(batch.rows, features), {}, nullptr);
    for (std::size_t i = 0; i < batch.lengths.size(); ++i) {
      parts.push_back(hidden[static_cast<std::int64_t>(i)].narrow(0, 0, batch.lengths[i]));
    }
    return parts;
  }
  std::vector<Segment> segments;
  std::int64_t begin = 0;
  for (const std::int64_t length : batch.lengths) {
    segments.push_back({.begin = begin, .length = length});
    begin += length;
  }
  const at::Tensor row = at::cat(batch.ids).unsqueeze(0);
  const at::Tensor hidden = model.decode_packed(model.embed(row, features), segments);
  for (const Segment& segment : segments) {
    parts.push_back(hidden[0].narrow(0, segment.begin, segment.length));
  }
  return parts;
}

TEST_CASE("gradients of InternVL equal transformers', in rows, packed and with checkpointing") {
  for (const std::string name : kInternModels) {
    const Golden golden(name + "/golden.safetensors");
    const InternBatch batch = make_intern_batch(golden, *load_processor(fixture(name)));
    for (const std::string way : {"rows", "packed", "checkpointed"}) {
      INFO(name << ", " << way);
      const auto model = load_internvl(name);
      model->module().train();
      model->gradient_checkpointing = way == "checkpointed";
      const std::vector<at::Tensor> hidden = decode_batch(*model, batch, way == "packed");
      std::vector<at::Tensor> parts;
      for (std::size_t i = 0; i < hidden.size(); ++i) {
        const std::int64_t last = batch.lengths[i] - 1;
        parts.push_back(at::cross_entropy_loss(model->logits(hidden[i].narrow(0, 0, last)),
                                               batch.ids[i].narrow(0, 1, last)));
      }
      const at::Tensor losses = at::stack(parts);
      check_close(losses, golden["losses"]);
      losses.mean().backward();
      int compared = 0;
      for (const auto& item : model->module().named_parameters()) {
        if (!golden.has("grad." + item.key())) continue;
        INFO(item.key());
        ++compared;
        check_close(item.value().grad(), golden["grad." + item.key()], 5e-5);
      }
      CHECK(compared > 25);
    }
  }
}

TEST_CASE("answers of InternVL with a cache equal transformers', beside each other") {
  const c10::InferenceMode inference;
  for (const std::string name : kInternModels) {
    INFO(name);
    const Golden golden(name + "/golden.safetensors");
    const auto model = load_internvl(name);
    const InternBatch batch = make_intern_batch(golden, *load_processor(fixture(name)));
    KvCache cache(model->cache_shape(), 1, at::kFloat);
    const InternIds groups = {0, 1, 2, 3}, ones(kInternPrompts, 1);
    at::Tensor embeddings = model->embed(batch.rows, model->encode(join_pixels(batch.pixels)));
    at::Tensor last = at::tensor(batch.lengths, at::kLong) - 1;
    cache.begin_prefill(groups, batch.lengths);
    for (std::int64_t step = 0; step < 6; ++step) {
      const at::Tensor hidden = model->decode(embeddings, {}, &cache);
      const at::Tensor scores =
          model->logits(hidden.index({at::arange(kInternPrompts), last})).log_softmax(-1);
      InternIds chosen;
      for (int i = 0; i < kInternPrompts; ++i) {
        chosen.push_back(golden[concat("greedy_ids.", i)][0][step].item<std::int64_t>());
        CHECK(scores[i].argmax().item<std::int64_t>() == chosen.back());
        check_close(scores[i][chosen.back()], golden[concat("greedy_logprobs.", i)][0][step], 1e-4);
      }
      embeddings = model->embed_tokens(at::tensor(chosen, at::kLong).unsqueeze(1));
      last = at::zeros({kInternPrompts}, at::kLong);
      cache.begin_extend(groups, ones);
    }
  }
}

TEST_CASE("InternVL's head stays apart from the embeddings where the file holds both") {
  CHECK(load_internvl("internvl_tiny")->config().tie_word_embeddings);
  CHECK(load_internvl("internvl_tiny")->tied_weights().empty());
  CHECK(load_internvl("internvl3_5_tiny")->tied_weights().size() == 1);
}

TEST_CASE("both spellings of InternVL's keys are read, and the published one written") {
  for (const std::string name : kInternModels) {
    INFO(name);
    const auto model = load_internvl(name);
    const ScratchFolder folder;
    save_model(*model, fixture(name), folder.path());
    for (const std::string& key : Checkpoint(folder.path()).keys()) {
      INFO(key);
      CHECK(!key.starts_with("model."));
    }
    const auto again = std::dynamic_pointer_cast<InternVl>(load_model(folder.path(), {}));
    CHECK(again->tied_weights() == model->tied_weights());
    const auto wanted = model->module().named_parameters();
    for (const auto& item : again->module().named_parameters()) {
      CHECK(item.value().equal(wanted[item.key()]));
    }
  }
  const auto model = load_internvl("internvl_tiny");
  const std::pair<std::string, std::string> keys[] = {
      {"vision_tower.embeddings.cls_token", "model.vision_tower.embeddings.cls_token"},
      {"multi_modal_projector.linear_1.weight", "model.multi_modal_projector.linear_1.weight"},
      {"language_model.model.norm.weight", "model.language_model.norm.weight"},
      {"language_model.lm_head.weight", "lm_head.weight"}};
  for (const auto& [published, parameter] : keys) {
    CHECK(model->canonical_key(published) == parameter);
    CHECK(model->canonical_key(parameter) == parameter);
    CHECK(model->canonical_key("base_model.model." + published) == parameter);
    CHECK(model->published_key(parameter) == published);
  }
}

}  // namespace
}  // namespace vlm
