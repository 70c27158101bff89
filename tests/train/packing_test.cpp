// Packed rows, shared pictures and the head in chunks give the loss and gradients of plain batches.
#include "data/packing.h"

#include <torch/nn/module.h>

#include <cstring>
#include <map>

#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "train/batches/picture_store.h"
#include "train/model/loss.h"
#include "vlm/models/registry.h"
#include "vlm/nn/lora/lora.h"

namespace vlm::train {
namespace {

using data::Batch;
using data::Example;

const Processor& processor() {
  static const auto loaded = load_processor(fixture(kTinyModel));
  return *loaded;
}

// A lookup that knows nothing, so that samples have their pictures' key.
class Keys : public data::PictureLookup {
 public:
  std::optional<data::KnownPictures> find(const std::string&) const override { return {}; }
};

Example example(const std::vector<std::string>& pictures,
                const std::vector<std::pair<std::string, std::string>>& turns) {
  data::Sample sample{.where = "here"};
  for (const auto& [question, answer] : turns) {
    Message message{.role = "user"};
    if (sample.messages.empty()) {
      for (std::size_t i = 0; i < pictures.size(); ++i)
        message.content.push_back({.type = "image"});
    }
    message.content.push_back({.type = "text", .text = question});
    sample.messages.push_back(message);
    sample.messages.push_back({.role = "assistant", .content = {{.type = "text", .text = answer}}});
  }
  for (const std::string& name : pictures) {
    sample.media.push_back({.name = fixture("pictures/" + name).string()});
  }
  const Keys keys;
  return data::encode_example(sample, processor(), {.lookup = &keys});
}

// Three questions about one picture, one about another, one without, one of two turns.
std::vector<Example> examples() {
  return {example({"square.png"}, {{"What is this?", "a square"}}),
          example({"wide.png"}, {{"What is this?", "something wide and long"}}),
          example({"square.png"}, {{"Is it wide?", "no"}}),
          example({}, {{"Is water wet?", "yes"}, {"Is fire?", "no it is not"}}),
          example({"square.png"}, {{"What is left of it?", "nothing"}, {"And right?", "a hole"}})};
}

data::PackOptions options(std::int64_t tokens, bool share) {
  const ModelPtr model = load_model(fixture(kTinyModel), {});
  return {.max_tokens = tokens, .share_pictures = share};
}

struct Result {
  double loss = 0;
  std::map<std::string, at::Tensor> grads;
};

// Of a model whose every weight is trained; `batches` are those of one step.
Result run(const std::vector<Batch>& batches, bool checkpointing = false) {
  const ModelPtr model = load_model(fixture(kTinyModel), {});
  model->module().train();
  model->gradient_checkpointing = checkpointing;
  Result result;
  for (const Batch& batch : batches) {
    const at::Tensor loss = loss_sum(*model, batch);
    loss.backward();
    result.loss += loss.item<double>();
  }
  for (const auto& item : model->module().named_parameters()) {
    if (item.value().grad().defined()) result.grads[item.key()] = item.value().grad();
  }
  return result;
}

void check_same(const Result& a, const Result& b) {
  CHECK(a.loss == Approx(b.loss).epsilon(1e-5));
  REQUIRE(a.grads.size() == b.grads.size());
  for (const auto& [name, grad] : a.grads) {
    INFO(name);
    // A bias of keys changes no softmax: its gradient is rounding.
    if (name.ends_with("k_proj.bias")) continue;
    check_close(grad, b.grads.at(name), 2e-4);
  }
}

TEST_CASE("packed rows give the loss and the gradients of rows on their own") {
  const auto samples = examples();
  std::vector<Batch> alone;
  for (const Example& one : samples) alone.push_back(data::collate({one}, 0));
  const Result wanted = run(alone);
  CHECK(wanted.grads.size() > 40);
  check_same(run({data::collate(samples, 0)}), wanted);
  for (const bool share : {false, true}) {
    for (const std::int64_t tokens : {1, 300, 10000}) {
      INFO("share " << share << ", " << tokens << " tokens");
      const auto packed = data::pack(samples, options(tokens, share));
      check_same(run(packed), wanted);
    }
  }
  check_same(run(data::pack(samples, options(10000, true)), /*checkpointing=*/true), wanted);
}

TEST_CASE("questions about one clip are packed behind one copy of its frames") {
  const Keys keys;
  std::vector<Example> samples;
  for (const std::string question : {"Which way?", "What moves?"}) {
    const data::Sample sample{
        .messages = {{.role = "user",
                      .content = {{.type = "video"}, {.type = "text", .text = question}}},
                     {.role = "assistant", .content = {{.type = "text", .text = "left"}}}},
        .media = {{.kind = data::MediaKind::kVideo,
                   .name = std::string(VLM_SOURCE_DIR) + "/examples/clips/left.mp4"}},
        .where = "here"};
    samples.push_back(data::encode_example(sample, processor(), {.lookup = &keys}));
  }
  const Result wanted = run({data::collate({samples[0]}, 0), data::collate({samples[1]}, 0)});
  const auto packed = data::pack(samples, options(10000, true));
  REQUIRE(packed.size() == 1);
  CHECK(packed[0].segments.size() == 3);
  CHECK(packed[0].picture_order.size() == 1);
  check_same(run(packed), wanted);
}

TEST_CASE("what a packed row holds") {
  const auto samples = examples();
  std::int64_t total = 0, labels = 0;
  for (const Example& one : samples) {
    total += static_cast<std::int64_t>(one.ids.size());
    labels += data::collate({one}, 0).label_count;
  }
  const auto whole = data::pack(samples, options(10000, false));
  REQUIRE(whole.size() == 1);
  CHECK(whole[0].token_count == total);
  CHECK(whole[0].label_count == labels);
  CHECK(whole[0].padding() == 0);
  CHECK(whole[0].segments.size() == 5);
  CHECK(whole[0].pictures.size() == 2);  // encoded once, though three samples show the first
  CHECK(whole[0].picture_order.size() == 4);

  const auto shared = data::pack(samples, options(10000, true));
  REQUIRE(shared.size() == 1);
  CHECK(shared[0].label_count == labels);
  CHECK(shared[0].segments.size() == 6);  // one prefix more
  CHECK(shared[0].picture_order.size() == 2);
  // Two copies less of the picture's 5 tiles of 4 tokens.
  CHECK(total - shared[0].token_count > 2 * 5 * 4);

  for (const std::int64_t tokens : {1, 150, 300}) {
    for (const Batch& batch : data::pack(samples, options(tokens, true))) {
      const bool is_alone = batch.segments.size() == 1;
      CHECK((is_alone || batch.token_count <= tokens));
    }
  }
  data::PackOptions few_tiles = options(10000, false);
  few_tiles.max_units = 5;
  for (const Batch& batch : data::pack(samples, few_tiles)) {
    std::int64_t tiles = 0;
    for (const auto& pictures : batch.pictures) tiles += pictures.units();
    CHECK((tiles <= 5 || batch.segments.size() == 1));
  }
}

// The plain loss: all logits at once, by LibTorch's autograd.
at::Tensor plain_loss(VisionLanguageModel& model, const at::Tensor& hidden,
                      const at::Tensor& labels) {
  return at::cross_entropy_loss(model.logits(hidden).to(at::kFloat), labels, {},
                                at::Reduction::Sum);
}

TEST_CASE("the head in chunks equals the plain loss in value and gradient") {
  const ModelPtr model = load_model(fixture(kTinyModel), {});
  at::Tensor weight = model->output_head().named_parameters()["weight"];
  const std::int64_t hidden_size = weight.size(1);
  const at::Tensor labels = at::randint(model->vocab_size(), {37}, at::kLong);
  for (const bool trains_head : {true, false}) {
    weight.set_requires_grad(trains_head);
    const at::Tensor start = at::randn({37, hidden_size}) * 3;
    const at::Tensor x = start.clone().requires_grad_(), y = start.clone().requires_grad_();
    const at::Tensor wanted = plain_loss(*model, x, labels);
    (wanted * 0.25).backward();
    const at::Tensor wanted_weight = trains_head ? weight.grad().clone() : at::Tensor();
    for (const std::int64_t chunk : {1, 10, 37, 100}) {
      INFO("chunk " << chunk);
      weight.mutable_grad() = at::Tensor();
      y.mutable_grad() = at::Tensor();
      const at::Tensor loss = head_loss_sum(*model, y, labels, chunk);
      check_close(loss, wanted, 1e-6);
      (loss * 0.25).backward();
      check_close(y.grad(), x.grad(), 1e-5);
      CHECK(weight.grad().defined() == trains_head);
      if (trains_head) check_close(weight.grad(), wanted_weight, 1e-5);
      const c10::NoGradGuard no_grad;
      check_close(head_loss_sum(*model, y, labels, chunk), wanted, 1e-6);
    }
    weight.mutable_grad() = at::Tensor();
  }
}

TEST_CASE("pictures are encoded once, kept, and read by the next run") {
  const ScratchFolder folder;
  const ModelPtr model = load_model(fixture(kTinyModel), {});
  for (at::Tensor& parameter : model->module().parameters()) parameter.set_requires_grad(false);
  const auto cache = std::make_shared<FeatureCache>(folder.path() / "features", 1 << 20);
  const auto samples = examples();
  const Batch batch = data::collate(samples, 0);
  const at::Tensor wanted = encode_pictures(*model, batch);
  {
    PictureStore store(cache, *model, processor());
    check_close(store.features_of(*model, batch), wanted);
    CHECK(store.encoded() == 2);
  }  // written
  PictureStore store(cache, *model, processor());
  const data::EncodeOptions with_store{.lookup = &store};
  const data::Sample sample{
      .messages = {{.role = "user", .content = {{.type = "image"}, {.type = "text", .text = "?"}}},
                   {.role = "assistant", .content = {{.type = "text", .text = "a"}}}},
      .media = {{.name = fixture("pictures/square.png").string()}},
      .where = "here"};
  const Example known = data::encode_example(sample, processor(), with_store);
  CHECK(known.pictures.pixels.empty());  // not even decoded
  CHECK(known.ids == data::encode_example(sample, processor(), {}).ids);
  const Batch again = data::collate({known}, 0);
  const at::Tensor first = store.features_of(*model, again);
  check_close(first, wanted.narrow(0, 0, first.size(0)));
  CHECK(store.encoded() == 0);

  // Without its tower the model goes on, and gets it back for a new picture.
  store.release_tower(*model, {}, [] { return load_model(fixture(kTinyModel), {}); });
  CHECK(model->picture_weights()[0].second.numel() == 0);
  CHECK(store.features_of(*model, again).equal(first));
  CHECK(store.is_released());
  data::Sample other = sample;
  other.media = {{.name = fixture("pictures/tall.png").string()}};
  const Batch fresh = data::collate({data::encode_example(other, processor(), with_store)}, 0);
  const at::Tensor found = store.features_of(*model, fresh);
  CHECK_FALSE(store.is_released());
  check_close(found, encode_pictures(*model, fresh));
  store.release_tower(*model, {}, [] { return load_model(fixture(kTinyModel), {}); });
  CHECK_FALSE(store.is_released());  // it was needed once, so it stays

  // Other weights, other entries.
  model->picture_weights()[0].second.data().add_(1);
  const PictureStore changed(cache, *model, processor());
  CHECK_FALSE(changed.find(known.pictures.key));
}

TEST_CASE("an entry that isn't one of pictures is none") {
  const auto kind = MediumText::Kind::kPicture;
  const data::KnownPictures pictures{
      .texts = {{.kind = kind, .text = "<a>", .rows = 2, .cols = 3, .tokens = 4, .units = 7},
                {.kind = kind, .text = "b", .grids = {{1, 4, 6}, {2, 8, 2}}}},
      .features = at::randn({6, 4})};
  const at::Tensor entry = to_entry(pictures);
  const auto read = from_entry(entry);
  REQUIRE(read);
  REQUIRE(read->texts.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(read->texts[i].text == pictures.texts[i].text);
    CHECK(read->texts[i].rows == pictures.texts[i].rows);
    CHECK(read->texts[i].cols == pictures.texts[i].cols);
    CHECK(read->texts[i].tokens == pictures.texts[i].tokens);
    CHECK(read->texts[i].units == pictures.texts[i].units);
    CHECK((read->texts[i].grids == pictures.texts[i].grids));
  }
  CHECK(read->features.equal(pictures.features));
  CHECK_FALSE(from_entry(entry.narrow(0, 0, entry.numel() - 1)));
  CHECK_FALSE(from_entry(entry.narrow(0, 0, 4)));
  CHECK_FALSE(from_entry(at::zeros({100})));
  CHECK_FALSE(from_entry(at::full({100}, 255, at::kByte)));
}

// An entry with that head and so many bytes behind it.
at::Tensor entry_of(const std::string& head, std::size_t count) {
  std::string bytes(8, '\0');
  const auto length = static_cast<std::int64_t>(head.size());
  std::memcpy(bytes.data(), &length, 8);
  bytes += head + std::string(count, '\0');
  return at::from_blob(bytes.data(), {std::ssize(bytes)}, at::kByte).clone();
}

TEST_CASE("an entry of the feature cache that isn't one of ours is none, and asks for no memory") {
  const auto text_with = [](const std::string& numbers, const std::string& grids,
                            const std::string& is_video = "false") {
    return R"([{"text":"a","is_video":)" + is_video + R"(,"numbers":)" + numbers + R"(,"grids":)" +
           grids + R"(,"grid_s":0.5}])";
  };
  const std::string text = text_with("[1, 1, 2, 1]", "[[1, 2, 3]]");
  const auto read = [&](const std::string& texts, const std::string& shape,
                        const std::string& dtype, std::size_t count) {
    return from_entry(entry_of(
        R"({"texts":)" + texts + R"(,"shape":)" + shape + R"(,"dtype":)" + dtype + "}", count));
  };
  const auto good = read(text, "[2, 3]", "6", 24);
  REQUIRE(good);
  CHECK(good->features.equal(at::zeros({2, 3})));
  CHECK(read(text, "[2, 3]", "15", 12)->features.scalar_type() == at::kBFloat16);
  CHECK_FALSE(from_entry(entry_of("{}", 0)));
  CHECK_FALSE(from_entry(entry_of("[]", 0)));
  for (const std::string& texts :
       {std::string("3"), std::string("null"), std::string("{}"), std::string("[3]"),
        std::string("[[]]"), std::string("[{}]"), std::string(R"([["a", 1, 1, false]])"),
        text_with("[1, 1, 2]", "[]"), text_with("[1, 1, 2, 1.5]", "[]"), text_with("3", "[]"),
        text_with("[1, 1, 2, 1]", "[[1, 2]]"), text_with("[1, 1, 2, 1]", "{}"),
        text_with("[1, 1, 2, 1]", "[]", "0")}) {
    INFO(texts);
    CHECK_FALSE(read(texts, "[2, 3]", "6", 24));
  }
  for (const char* shape :
       {"3", "null", "[]", "[1, 2, 3]", "[2, \"3\"]", "[2, -3]", "[-2, -3]", "[2, 0]", "[2, 4]",
        "[4294967296, 4294967296]", "[2, 9223372036854775807]", "[2, 3.0]"}) {
    INFO(shape);
    CHECK_FALSE(read(text, shape, "6", 24));
  }
  for (const char* dtype : {"\"6\"", "null", "-1", "7", "99", "4294967302", "6.0", "true"}) {
    INFO(dtype);
    CHECK_FALSE(read(text, "[2, 3]", dtype, 24));
  }
  CHECK_FALSE(read(text, "[2, 3]", "6", 25));
}

}  // namespace
}  // namespace vlm::train
