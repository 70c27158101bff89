// Families with pictures against transformers, stage by stage: conversations, features, hidden
// states, gradients, answers. What is a family's own stands in a file beside this one.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <torch/nn/module.h>

#include <utility>

#include "tests/support/catch.h"
#include "tests/support/family_prompts.h"
#include "tests/support/scratch_folder.h"
#include "vlm/models/registry.h"

namespace vlm {
namespace {

using FamilyIds = std::vector<std::int64_t>;

struct FamilyFixture {
  const char* name;
  int least_gradients;  // that its golden file holds
};
constexpr FamilyFixture kFixtures[] = {{"qwen2_vl_tiny", 9},          {"qwen2_5_vl_tiny", 9},
                                       {"qwen3_vl_tiny", 9},          {"internvl_tiny", 26},
                                       {"internvl3_5_tiny", 26},      {"internvl_chat_tiny", 9},
                                       {"internvl_internlm2_tiny", 7}};

TEST_CASE("a conversation of a family is its prompt and the learned answer") {
  for (const auto& [name, unused] : kFixtures) {
    const Golden golden(concat(name, "/golden.safetensors"));
    const auto processor = load_processor(fixture(name));
    for (int number = 0; number < FamilyPrompt::kCount; ++number) {
      INFO(name << ", prompt " << number);
      FamilyPrompt prompt = make_family_prompt(golden, number);
      const EncodedConversation asked = encode_family_prompt(*processor, prompt);
      prompt.messages.push_back(
          {.role = "assistant", .content = {{.type = "text", .text = "It is red."}}});
      const EncodedConversation whole =
          processor->encode_conversation(prompt.messages, processor->process_media(prompt.media));
      const auto length = static_cast<std::ptrdiff_t>(asked.ids.size());
      CHECK(FamilyIds(whole.ids.begin(), whole.ids.begin() + length) == asked.ids);
      FamilyIds learned;
      for (std::size_t t = 0; t < whole.ids.size(); ++t) {
        if (whole.is_trained[t]) learned.push_back(whole.ids[t]);
      }
      CHECK(processor->tokenizer().decode(learned, false) == "It is red.<|im_end|>");
      CHECK(whole.layout.media.size() == asked.layout.media.size());
      REQUIRE(whole.layout.positions.defined() == asked.layout.positions.defined());
      if (!whole.layout.positions.defined()) continue;
      CHECK(whole.layout.positions.narrow(1, 0, length).equal(asked.layout.positions));
    }
  }
}

TEST_CASE("every stage of a family equals transformers'") {
  const at::NoGradGuard no_grad;
  for (const auto& [name, unused] : kFixtures) {
    const Golden golden(concat(name, "/golden.safetensors"));
    const ModelPtr model = load_model(fixture(name), {});
    const auto processor = load_processor(fixture(name));
    for (int number = 0; number < FamilyPrompt::kCount; ++number) {
      INFO(name << ", prompt " << number);
      const auto encoded = encode_family_prompt(*processor, make_family_prompt(golden, number));
      at::Tensor features;
      if (!encoded.pixels.empty()) {
        features = model->encode(encoded.pixels);
        check_close(features, golden[concat("features.", number)]);
        const std::int64_t at_once = std::exchange(model->units_at_once, 2);
        check_close(model->encode(encoded.pixels), features);
        model->units_at_once = at_once;
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

// All prompts together.
struct FamilyBatch {
  at::Tensor ids;        // [B, T], padded at the end
  at::Tensor positions;  // [3, B, T]; undefined: counted
  std::vector<Pixels> pixels;
  FamilyIds lengths;

  at::Tensor row(std::size_t i) const {  // [T] of prompt i
    return ids[static_cast<std::int64_t>(i)].narrow(0, 0, lengths[i]);
  }
  at::Tensor row_positions(std::size_t i) const {  // [3, T]
    return positions.select(1, static_cast<std::int64_t>(i)).narrow(1, 0, lengths[i]);
  }
};

FamilyBatch make_family_batch(const Golden& golden, const Processor& processor) {
  FamilyBatch batch;
  std::vector<RowPositions> positions;
  std::vector<at::Tensor> rows;
  std::int64_t longest = 0;
  for (int number = 0; number < FamilyPrompt::kCount; ++number) {
    const auto encoded = encode_family_prompt(processor, make_family_prompt(golden, number));
    batch.lengths.push_back(std::ssize(encoded.ids));
    longest = std::max(longest, batch.lengths.back());
    batch.pixels.push_back(encoded.pixels);
    positions.push_back({encoded.layout.positions, batch.lengths.back()});
    rows.push_back(golden[concat("ids.", number)][0]);
  }
  for (at::Tensor& row : rows) row = at::constant_pad_nd(row, {0, longest - row.size(0)});
  batch.ids = at::stack(rows);
  batch.positions = stack_positions(positions);
  return batch;
}

// The hidden states of each prompt, [T, C].
std::vector<at::Tensor> decode_batch(VisionLanguageModel& model, const FamilyBatch& batch,
                                     bool is_packed) {
  const at::Tensor features = model.encode(join_pixels(batch.pixels));
  std::vector<at::Tensor> parts;
  if (!is_packed) {
    const at::Tensor hidden =
        model.decode(model.embed(batch.ids, features), {}, nullptr, batch.positions);
    for (std::size_t i = 0; i < batch.lengths.size(); ++i) {
      parts.push_back(hidden[static_cast<std::int64_t>(i)].narrow(0, 0, batch.lengths[i]));
    }
    return parts;
  }
  std::vector<at::Tensor> ids, positions;
  std::vector<Segment> segments;
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < batch.lengths.size(); ++i) {
    ids.push_back(batch.row(i));
    if (batch.positions.defined()) positions.push_back(batch.row_positions(i));
    segments.push_back({.begin = begin, .length = batch.lengths[i]});
    begin += batch.lengths[i];
  }
  const at::Tensor hidden =
      model.decode_packed(model.embed(at::cat(ids).unsqueeze(0), features), segments,
                          positions.empty() ? at::Tensor() : at::cat(positions, 1).unsqueeze(1));
  for (const Segment& segment : segments) {
    parts.push_back(hidden[0].narrow(0, segment.begin, segment.length));
  }
  return parts;
}

TEST_CASE("gradients of a family equal transformers', in rows, packed and with checkpointing") {
  for (const auto& [name, least_gradients] : kFixtures) {
    const Golden golden(concat(name, "/golden.safetensors"));
    const FamilyBatch batch = make_family_batch(golden, *load_processor(fixture(name)));
    for (const std::string way : {"rows", "packed", "checkpointed"}) {
      INFO(name << ", " << way);
      const ModelPtr model = load_model(fixture(name), {});
      model->module().train();
      model->gradient_checkpointing = way == "checkpointed";
      const std::vector<at::Tensor> hidden = decode_batch(*model, batch, way == "packed");
      std::vector<at::Tensor> parts;
      for (std::size_t i = 0; i < hidden.size(); ++i) {
        const std::int64_t last = batch.lengths[i] - 1;
        parts.push_back(at::cross_entropy_loss(model->logits(hidden[i].narrow(0, 0, last)),
                                               batch.row(i).narrow(0, 1, last)));
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
      CHECK(compared >= least_gradients);
    }
  }
}

TEST_CASE("answers of a family with a cache equal transformers', beside each other") {
  const c10::InferenceMode inference;
  constexpr std::int64_t kRows = FamilyPrompt::kCount;
  for (const auto& [name, unused] : kFixtures) {
    INFO(name);
    const Golden golden(concat(name, "/golden.safetensors"));
    const ModelPtr model = load_model(fixture(name), {});
    const FamilyBatch batch = make_family_batch(golden, *load_processor(fixture(name)));
    KvCache cache(model->cache_shape(), 1, at::kFloat);
    FamilyIds groups, next;
    const FamilyIds ones(kRows, 1);
    for (std::size_t i = 0; i < kRows; ++i) {
      groups.push_back(static_cast<std::int64_t>(i));
      if (!batch.positions.defined()) continue;
      next.push_back(batch.row_positions(i).max().item<std::int64_t>() + 1);
    }
    at::Tensor embeddings = model->embed(batch.ids, model->encode(join_pixels(batch.pixels)));
    at::Tensor last = at::tensor(batch.lengths, at::kLong) - 1;
    cache.begin_prefill(groups, batch.lengths, {.positions = batch.positions, .next = next});
    for (std::int64_t step = 0; step < 6; ++step) {
      const at::Tensor hidden = model->decode(embeddings, {}, &cache);
      const at::Tensor scores =
          model->logits(hidden.index({at::arange(kRows), last})).log_softmax(-1);
      FamilyIds chosen;
      for (std::int64_t i = 0; i < kRows; ++i) {
        chosen.push_back(golden[concat("greedy_ids.", i)][0][step].item<std::int64_t>());
        CHECK(scores[i].argmax().item<std::int64_t>() == chosen.back());
        check_close(scores[i][chosen.back()], golden[concat("greedy_logprobs.", i)][0][step], 1e-4);
      }
      embeddings = model->embed_tokens(at::tensor(chosen, at::kLong).unsqueeze(1));
      last = at::zeros({kRows}, at::kLong);
      cache.begin_extend(groups, ones);
    }
  }
}

TEST_CASE("a saved model of a family is the same when it is loaded") {
  for (const auto& [name, unused] : kFixtures) {
    INFO(name);
    const ModelPtr model = load_model(fixture(name), {});
    const ScratchFolder folder;
    save_model(*model, fixture(name), folder.path());
    const ModelPtr again = load_model(folder.path(), {});
    CHECK(again->tied_weights() == model->tied_weights());
    const auto wanted = model->module().named_parameters();
    for (const auto& item : again->module().named_parameters()) {
      INFO(item.key());
      CHECK(item.value().equal(wanted[item.key()]));
    }
  }
}

}  // namespace
}  // namespace vlm
