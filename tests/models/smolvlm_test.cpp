// The graph against transformers' on tiny random checkpoints, stage by stage.
#include "vlm/models/smolvlm/smolvlm.h"

#include "tests/support/tensors.h"
#include "vlm/models/registry.h"

namespace vlm {
namespace {

std::shared_ptr<SmolVlm> load(const std::string& name) {
  return std::dynamic_pointer_cast<SmolVlm>(load_model(fixture(name), {}));
}

// transformers takes [B, N, 3, S, S] and drops pictures of zeros; we take the pictures that are
// left.
struct KeptTiles {
  at::Tensor pixel_values, tile_mask;

  at::Tensor features(SmolVlm& model) const {  // [ΣL, C]
    return model.encode_tiles(pixel_values, tile_mask).flatten(0, 1);
  }

  explicit KeptTiles(const Golden& golden) {
    const at::Tensor pixels = golden["pixel_values"].flatten(0, 1);
    const at::Tensor kept = pixels.ne(0).flatten(1).any(1).nonzero().flatten();
    pixel_values = pixels.index_select(0, kept);
    tile_mask = golden["pixel_attention_mask"].flatten(0, 1).index_select(0, kept).to(at::kBool);
  }
};

const char* const kModels[] = {"smolvlm_tiny", "smolvlm_odd", "idefics3_tiny"};

TEST_CASE("every stage of the graph equals transformers'") {
  const at::NoGradGuard no_grad;
  for (const std::string name : kModels) {
    INFO(name);
    const Golden golden(name + "/golden.safetensors");
    const auto model = load(name);
    const KeptTiles tiles(golden);
    const at::Tensor patch_mask =
        make_patch_mask(tiles.tile_mask, model->config().vision_config.patch_size);
    CHECK(patch_mask.equal(golden["patch_mask"].to(at::kBool)));
    CHECK(make_position_ids(patch_mask, model->config().vision_config.grid_side())
              .equal(golden["position_ids"]));
    check_close(model->encode_patches(tiles.pixel_values, tiles.tile_mask),
                golden["vision_output"]);
    const at::Tensor features = model->encode_tiles(tiles.pixel_values, tiles.tile_mask);
    check_close(features, golden["connector_output"]);
    const at::Tensor embeddings = model->embed(golden["input_ids"], features.flatten(0, 1));
    check_close(embeddings, golden["inputs_embeds"]);
    const at::Tensor real = golden["attention_mask"].to(at::kBool);
    const at::Tensor logits = model->logits(model->decode(embeddings, real, nullptr));
    check_close(logits * real.unsqueeze(-1), golden["logits"]);
  }
}

// The real ids of a left-padded row.
std::vector<std::int64_t> real_ids(const Golden& golden, std::int64_t row) {
  const at::Tensor ids =
      golden["input_ids"][row].masked_select(golden["attention_mask"][row].to(at::kBool));
  const auto* data = ids.const_data_ptr<std::int64_t>();
  return {data, data + ids.numel()};
}

TEST_CASE("greedy decoding with the cache gives transformers' ids and log-probabilities") {
  const at::NoGradGuard no_grad;
  for (const std::string name : kModels) {
    INFO(name);
    const Golden golden(name + "/golden.safetensors");
    const auto model = load(name);
    const KeptTiles tiles(golden);
    const at::Tensor wanted = golden["greedy_ids"];  // [B, 12]
    const std::int64_t batch = wanted.size(0);
    std::vector<std::int64_t> groups, lengths, ones(static_cast<std::size_t>(batch), 1);
    std::vector<at::Tensor> rows;
    const std::int64_t width = golden["input_ids"].size(1);
    for (std::int64_t b = 0; b < batch; ++b) {  // padded on the right, as the cache wants it
      const auto ids = real_ids(golden, b);
      groups.push_back(b);
      lengths.push_back(static_cast<std::int64_t>(ids.size()));
      rows.push_back(at::constant_pad_nd(at::tensor(ids, at::kLong), {0, width - lengths.back()}));
    }
    KvCache cache(model->cache_shape(), 1, at::kFloat);
    at::Tensor embeddings = model->embed(at::stack(rows), tiles.features(*model));
    at::Tensor last = at::tensor(lengths, at::kLong) - 1;
    cache.begin_prefill(groups, lengths);
    std::vector<at::Tensor> logprobs;
    for (std::int64_t step = 0; step < wanted.size(1); ++step) {
      const at::Tensor hidden = model->decode(embeddings, {}, &cache);
      const at::Tensor scores =
          model->logits(hidden.index({at::arange(batch), last})).log_softmax(-1);  // [B, V]
      CHECK(scores.argmax(-1).equal(wanted.select(1, step)));
      const at::Tensor next = wanted.narrow(1, step, 1);
      logprobs.push_back(scores.gather(1, next));
      embeddings = model->embed(next, {});
      last = at::zeros({batch}, at::kLong);
      cache.begin_extend(groups, ones);
    }
    check_close(at::cat(logprobs, 1), golden["greedy_logprobs"]);
  }
}

TEST_CASE("chunks of tiles, left padding and gradients change nothing") {
  const Golden golden("smolvlm_tiny/golden.safetensors");
  const auto model = load("smolvlm_tiny");
  const KeptTiles tiles(golden);
  model->units_at_once = 1;
  check_close(model->encode_tiles(tiles.pixel_values, tiles.tile_mask), golden["connector_output"]);

  const at::NoGradGuard no_grad;
  const at::Tensor ids = at::randint(10, 100, {1, 7}, at::kLong);
  const at::Tensor alone = model->decode(model->embed(ids, {}), {}, nullptr);
  const at::Tensor padded_ids = at::cat({at::zeros({1, 3}, at::kLong), ids}, 1);
  const at::Tensor mask = at::arange(10).ge(3).unsqueeze(0);
  const at::Tensor padded = model->decode(model->embed(padded_ids, {}), mask, nullptr);
  check_close(padded.narrow(1, 3, 7), alone);
}

TEST_CASE("gradients of the loss equal transformers', with and without checkpointing") {
  const Golden golden("smolvlm_tiny/golden.safetensors");
  for (const bool checkpointing : {false, true}) {
    const auto model = load("smolvlm_tiny");
    model->module().train();
    model->gradient_checkpointing = checkpointing;
    const KeptTiles tiles(golden);
    const at::Tensor hidden =
        model->decode(model->embed(golden["input_ids"], tiles.features(*model)),
                      golden["attention_mask"].to(at::kBool), nullptr);
    const at::Tensor labels = golden["labels"].narrow(1, 1, hidden.size(1) - 1).flatten();
    const at::Tensor logits = model->logits(hidden.narrow(1, 0, hidden.size(1) - 1)).flatten(0, 1);
    const at::Tensor loss = at::cross_entropy_loss(logits, labels);
    check_close(loss.view({1}), golden["loss"]);
    loss.backward();
    for (const auto& item : model->module().named_parameters()) {
      if (!golden.has("grad." + item.key())) continue;
      INFO(item.key());
      check_close(item.value().grad(), golden["grad." + item.key()], 3e-5);
    }
  }
}

TEST_CASE("a prompt whose image tokens don't fit its pictures is refused") {
  const auto model = load("smolvlm_tiny");
  const at::Tensor ids = at::full({1, 3}, model->media_token_ids().front(), at::kLong);
  CHECK_THROWS_WITH(
      model->embed(ids, {}),
      "image tokens in the prompt don't fit the pictures: got 3 image tokens, wanted 0");
}

}  // namespace
}  // namespace vlm
