// Qwen2-VL, Qwen2.5-VL and Qwen3-VL against transformers: prompts with no picture, one, two of
// different sizes, and a clip (scripts/oracle/qwen_vl.py).
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <torch/nn/module.h>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "vlm/core/concat.h"
#include "vlm/models/qwen_vl/qwen_vl.h"
#include "vlm/models/qwen_vl/qwen_vl_processor.h"
#include "vlm/models/registry.h"

namespace vlm {
namespace {

using Ids = std::vector<std::int64_t>;

const char* const kQwenModels[] = {"qwen2_vl_tiny", "qwen2_5_vl_tiny", "qwen3_vl_tiny"};
constexpr int kPrompts = 4;

std::shared_ptr<QwenVl> load_qwen(const std::string& name) {
  return std::dynamic_pointer_cast<QwenVl>(load_model(fixture(name), {}));
}

Image to_picture(const at::Tensor& pixels) {  // [H, W, 3] u8
  const at::Tensor bytes = pixels.contiguous();
  const auto* begin = bytes.const_data_ptr<std::uint8_t>();
  return {bytes.size(0), bytes.size(1), std::vector<std::uint8_t>(begin, begin + bytes.numel())};
}

// The content and the media of a prompt of the golden file.
struct QwenPrompt {
  std::vector<Message> messages;
  std::vector<Medium> media;
};

QwenPrompt make_prompt(const Golden& golden, int number) {
  const auto text = [](const char* words) { return ContentPart{.type = "text", .text = words}; };
  const auto picture = [&](int i) { return to_picture(golden[concat("picture.", i)]); };
  const ContentPart image{.type = "image"}, video{.type = "video"};
  QwenPrompt prompt{.messages = {{.role = "user"}}};
  auto& content = prompt.messages[0].content;
  if (number == 0) content = {text("What colour is")};
  if (number == 1) {
    content = {image, text("How many dogs are there?")};
    prompt.media = {picture(0)};
  }
  if (number == 2) {
    content = {text("First "), image, text(" then "), image, text("?")};
    prompt.media = {picture(1), picture(0)};
  }
  if (number == 3) {
    content = {video, text("And now? ")};
    VideoClip clip{.duration_s = 2.5};
    for (std::int64_t i = 0; i < golden["clip"].size(0); ++i) {
      clip.frames.push_back(to_picture(golden["clip"][i]));
      clip.times_s.push_back(static_cast<double>(i) / 2);
    }
    prompt.media = {clip};
  }
  return prompt;
}

std::vector<PatchGrid> grids_of(const Golden& golden, int number) {
  std::vector<PatchGrid> grids;
  for (const char* key : {"image_grid_thw.", "video_grid_thw."}) {
    if (!golden.has(concat(key, number))) continue;
    const at::Tensor rows = golden[concat(key, number)];
    for (std::int64_t i = 0; i < rows.size(0); ++i) {
      const auto* row = rows[i].contiguous().const_data_ptr<std::int64_t>();
      grids.push_back({row[0], row[1], row[2]});
    }
  }
  return grids;
}

TEST_CASE("prompts, pixels and positions of Qwen-VL equal transformers'") {
  for (const std::string name : kQwenModels) {
    const Golden golden(name + "/golden.safetensors");
    const auto processor = load_processor(fixture(name));
    for (int number = 0; number < kPrompts; ++number) {
      INFO(name << ", prompt " << number);
      const QwenPrompt prompt = make_prompt(golden, number);
      const ProcessedMedia media = processor->process_media(prompt.media);
      const EncodedConversation encoded = processor->encode_prompt(prompt.messages, media);
      CHECK(at::tensor(encoded.ids, at::kLong).unsqueeze(0).equal(golden[concat("ids.", number)]));
      CHECK(encoded.layout.media.size() == prompt.media.size());
      CHECK(encoded.layout.positions.defined() == !prompt.media.empty());
      if (prompt.media.empty()) continue;
      CHECK(encoded.layout.positions.equal(golden[concat("positions.", number)]));
      const std::int64_t highest = encoded.layout.positions.max().item<std::int64_t>();
      CHECK(encoded.layout.next_position == highest + 1);
      CHECK(encoded.pixels.tokens == golden[concat("features.", number)].size(0));
      if (number < 2) continue;
      CHECK((media.pixels.grids == grids_of(golden, number)));
      const std::string key = number == 3 ? "pixel_values_videos." : "pixel_values.";
      const at::Tensor wanted = golden[concat(key, number)];  // of the clip the last ones
      const at::Tensor& values = media.pixels.values;
      CHECK(values.narrow(0, values.size(0) - wanted.size(0), wanted.size(0)).equal(wanted));
    }
  }
}

TEST_CASE("a conversation of Qwen-VL is its prompt and the learned answer") {
  for (const std::string name : kQwenModels) {
    const Golden golden(name + "/golden.safetensors");
    const auto processor = load_processor(fixture(name));
    for (int number = 0; number < kPrompts; ++number) {
      INFO(name << ", prompt " << number);
      QwenPrompt prompt = make_prompt(golden, number);
      const ProcessedMedia media = processor->process_media(prompt.media);
      const EncodedConversation asked = processor->encode_prompt(prompt.messages, media);
      prompt.messages.push_back(
          {.role = "assistant", .content = {{.type = "text", .text = "It is red."}}});
      const EncodedConversation whole = processor->encode_conversation(prompt.messages, media);
      const auto length = static_cast<std::ptrdiff_t>(asked.ids.size());
      CHECK(Ids(whole.ids.begin(), whole.ids.begin() + length) == asked.ids);
      Ids learned;
      for (std::size_t t = 0; t < whole.ids.size(); ++t) {
        if (whole.is_trained[t]) learned.push_back(whole.ids[t]);
      }
      CHECK(processor->tokenizer().decode(learned, false) == "It is red.<|im_end|>");
      CHECK(whole.layout.media.size() == asked.layout.media.size());
      if (prompt.media.empty()) continue;
      CHECK(whole.layout.positions.narrow(1, 0, length).equal(asked.layout.positions));
    }
  }
}

TEST_CASE("every stage of Qwen-VL equals transformers'") {
  const at::NoGradGuard no_grad;
  for (const std::string name : kQwenModels) {
    const Golden golden(name + "/golden.safetensors");
    const auto model = load_qwen(name);
    const auto processor = load_processor(fixture(name));
    for (int number = 0; number < kPrompts; ++number) {
      INFO(name << ", prompt " << number);
      const QwenPrompt prompt = make_prompt(golden, number);
      const auto encoded =
          processor->encode_prompt(prompt.messages, processor->process_media(prompt.media));
      at::Tensor features;
      if (!encoded.pixels.empty()) {
        features = model->encode(encoded.pixels);
        check_close(features, golden[concat("features.", number)]);
      }
      const at::Tensor positions =
          stack_positions({{encoded.layout.positions, std::ssize(encoded.ids)}});
      const at::Tensor hidden = model->decode(
          model->embed(golden[concat("ids.", number)], features), {}, nullptr, positions);
      const at::Tensor wanted = golden[concat("hidden.", number)];
      const std::int64_t last = wanted.size(1);
      check_close(hidden.narrow(1, hidden.size(1) - last, last), wanted);
      check_close(model->logits(hidden.narrow(1, hidden.size(1) - 3, 3)),
                  golden[concat("logits.", number)]);
    }
  }
}

// The batch of all prompts, as rows or as one packed row, and what it gives.
struct QwenBatch {
  at::Tensor ids, positions;
  std::vector<Pixels> pixels;
  Ids lengths;
};

QwenBatch make_batch(const Golden& golden, const Processor& processor) {
  QwenBatch batch;
  std::vector<RowPositions> rows;
  std::vector<at::Tensor> ids;
  std::int64_t longest = 0;
  for (int number = 0; number < kPrompts; ++number) {
    const QwenPrompt prompt = make_prompt(golden, number);
    const auto encoded =
        processor.encode_prompt(prompt.messages, processor.process_media(prompt.media));
    batch.lengths.push_back(std::ssize(encoded.ids));
    longest = std::max(longest, batch.lengths.back());
    batch.pixels.push_back(encoded.pixels);
    rows.push_back({encoded.layout.positions, batch.lengths.back()});
    ids.push_back(golden[concat("ids.", number)][0]);
  }
  for (at::Tensor& row : ids) row = at::constant_pad_nd(row, {0, longest - row.size(0)});
  batch.ids = at::stack(ids);
  batch.positions = stack_positions(rows);
  return batch;
}

TEST_CASE("gradients of Qwen-VL equal transformers', in rows, packed and with checkpointing") {
  for (const std::string name : kQwenModels) {
    const Golden golden(name + "/golden.safetensors");
    const auto processor = load_processor(fixture(name));
    const QwenBatch batch = make_batch(golden, *processor);
    for (const std::string way : {"rows", "packed", "checkpointed"}) {
      INFO(name << ", " << way);
      const auto model = load_qwen(name);
      model->module().train();
      model->gradient_checkpointing = way == "checkpointed";
      const at::Tensor features = model->encode(join_pixels(batch.pixels));
      at::Tensor losses;
      const auto loss_of = [&](const at::Tensor& hidden, const at::Tensor& ids) {
        const std::int64_t last = hidden.size(0) - 1;
        return at::cross_entropy_loss(model->logits(hidden.narrow(0, 0, last)),
                                      ids.narrow(0, 1, last));
      };
      std::vector<at::Tensor> parts;
      if (way == "packed") {
        std::vector<at::Tensor> ids, positions;
        std::vector<Segment> segments;
        std::int64_t begin = 0;
        for (std::size_t i = 0; i < batch.lengths.size(); ++i) {
          const auto row = static_cast<std::int64_t>(i);
          ids.push_back(batch.ids[row].narrow(0, 0, batch.lengths[i]));
          positions.push_back(batch.positions.select(1, row).narrow(1, 0, batch.lengths[i]));
          segments.push_back({.begin = begin, .length = batch.lengths[i]});
          begin += batch.lengths[i];
        }
        const at::Tensor whole = at::cat(ids).unsqueeze(0);
        const at::Tensor hidden = model->decode_packed(model->embed(whole, features), segments,
                                                       at::cat(positions, 1).unsqueeze(1));
        for (std::size_t i = 0; i < segments.size(); ++i) {
          parts.push_back(
              loss_of(hidden[0].narrow(0, segments[i].begin, segments[i].length), ids[i]));
        }
      } else {
        const at::Tensor hidden =
            model->decode(model->embed(batch.ids, features), {}, nullptr, batch.positions);
        for (std::size_t i = 0; i < batch.lengths.size(); ++i) {
          const auto row = static_cast<std::int64_t>(i);
          parts.push_back(loss_of(hidden[row].narrow(0, 0, batch.lengths[i]),
                                  batch.ids[row].narrow(0, 0, batch.lengths[i])));
        }
      }
      losses = at::stack(parts);
      check_close(losses, golden["losses"]);
      losses.mean().backward();
      int compared = 0;
      for (const auto& item : model->module().named_parameters()) {
        if (!golden.has("grad." + item.key())) continue;
        INFO(item.key());
        ++compared;
        check_close(item.value().grad(), golden["grad." + item.key()], 5e-5);
      }
      CHECK(compared > 8);
    }
  }
}

TEST_CASE("answers of Qwen-VL with a cache equal transformers', beside each other") {
  const c10::InferenceMode inference;
  for (const std::string name : kQwenModels) {
    INFO(name);
    const Golden golden(name + "/golden.safetensors");
    const auto model = load_qwen(name);
    const QwenBatch batch = make_batch(golden, *load_processor(fixture(name)));
    KvCache cache(model->cache_shape(), 1, at::kFloat);
    Ids groups, ones(kPrompts, 1), next;
    for (int i = 0; i < kPrompts; ++i) {
      groups.push_back(i);
      const at::Tensor row =
          batch.positions.select(1, i).narrow(1, 0, batch.lengths[std::size_t(i)]);
      next.push_back(row.max().item<std::int64_t>() + 1);
    }
    at::Tensor embeddings = model->embed(batch.ids, model->encode(join_pixels(batch.pixels)));
    at::Tensor last = at::tensor(batch.lengths, at::kLong) - 1;
    cache.begin_prefill(groups, batch.lengths, {.positions = batch.positions, .next = next});
    for (std::int64_t step = 0; step < 6; ++step) {
      const at::Tensor hidden = model->decode(embeddings, {}, &cache);
      const at::Tensor scores =
          model->logits(hidden.index({at::arange(kPrompts), last})).log_softmax(-1);
      Ids chosen;
      for (int i = 0; i < kPrompts; ++i) {
        const at::Tensor wanted = golden[concat("greedy_ids.", i)];
        chosen.push_back(wanted[0][step].item<std::int64_t>());
        CHECK(scores[i].argmax().item<std::int64_t>() == chosen.back());
        check_close(scores[i][chosen.back()], golden[concat("greedy_logprobs.", i)][0][step], 1e-4);
      }
      embeddings = model->embed_tokens(at::tensor(chosen, at::kLong).unsqueeze(1));
      last = at::zeros({kPrompts}, at::kLong);
      cache.begin_extend(groups, ones);
    }
  }
}

TEST_CASE("older and newer keys are read, and published ones written") {
  for (const std::string name : kQwenModels) {
    INFO(name);
    const auto model = load_qwen(name);
    const ScratchFolder folder;
    save_model(*model, fixture(name), folder.path());
    const auto again = std::dynamic_pointer_cast<QwenVl>(load_model(folder.path(), {}));
    const auto wanted = model->module().named_parameters();
    for (const auto& item : again->module().named_parameters()) {
      CHECK(item.value().equal(wanted[item.key()]));
    }
  }
  const auto second = load_qwen("qwen2_vl_tiny"), third = load_qwen("qwen3_vl_tiny");
  CHECK(second->published_key("model.visual.merger.ln_q.weight") == "visual.merger.ln_q.weight");
  CHECK(second->published_key("model.language_model.norm.weight") == "model.norm.weight");
  CHECK(second->published_key("lm_head.weight") == "lm_head.weight");
  CHECK(second->canonical_key("model.norm.weight") == "model.language_model.norm.weight");
  CHECK(second->canonical_key("model.language_model.norm.weight") ==
        "model.language_model.norm.weight");
  CHECK(second->canonical_key("visual.patch_embed.proj.weight") ==
        "model.visual.patch_embed.proj.weight");
  CHECK(third->published_key("model.visual.pos_embed.weight") == "model.visual.pos_embed.weight");
}

}  // namespace
}  // namespace vlm
