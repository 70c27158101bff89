// GGUF files: what the Python package wrote is read to the bit, what is written reads back, and
// every damage is an Error that says where.
#include <ATen/ATen.h>

#include <cstring>

#include "tests/support/scratch_folder.h"
#include "tests/support/tensors.h"
#include "tests/support/thrown.h"
#include "vlm/core/json.h"
#include "vlm/io/gguf/gguf_file.h"

namespace vlm {
namespace {

const std::vector<std::string> kTypes = {"F32",  "F16",    "BF16",   "Q4_0",  "Q4_1", "Q5_0",
                                         "Q5_1", "Q8_0",   "Q2_K",   "Q3_K",  "Q4_K", "Q5_K",
                                         "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4"};

TEST_CASE("blocks of every type are the numbers of the Python package, bit for bit") {
  const GgufFile file(fixture("gguf/blocks.gguf"));
  const Golden golden("gguf/blocks.safetensors");
  REQUIRE(file.header().tensors.size() == kTypes.size());
  for (const std::string& type : kTypes) {
    INFO(type);
    CHECK(gguf_block(file.tensor(type).type).name == type);
    const at::Tensor found = file.values(type).to(at::kFloat);
    REQUIRE(found.sizes() == golden[type].sizes());
    CHECK(found.view(at::kInt).equal(golden[type].view(at::kInt)));
  }
}

TEST_CASE("values of every kind, and what asks for another one") {
  const GgufFile file(fixture("gguf/blocks.gguf"));
  const GgufHeader& header = file.header();
  CHECK(header.text("general.architecture") == "test");
  CHECK(header.number("test.u8") == 200);
  CHECK(header.number("test.i8") == -100);
  CHECK(header.number("test.i64") == -(1LL << 40));
  CHECK(header.find("test.u64")->get<std::uint64_t>() == ~0ULL);
  CHECK(header.real("test.f64", 0) == 0.1);
  CHECK(header.flag("test.bool", false));
  CHECK(header.list("test.texts") == Json({"a", "ü", ""}));
  CHECK(header.list("test.numbers") == Json({1, -2, 3}));
  CHECK(header.number("test.none", 7) == 7);
  CHECK(header.text("test.none", "x") == "x");
  const std::string where = fixture("gguf/blocks.gguf").string() + ": ";
  CHECK_THROWS_WITH(
      header.number("test.u64"),
      where +
          "test.u64: value of another kind: got number 18446744073709551615, wanted an "
          "integer");
  CHECK_THROWS_WITH(header.text("test.none"), where + "test.none: key is missing: wanted a text");
  CHECK_THROWS_WITH(header.list("test.u8"),
                    where + "test.u8: value of another kind: got number 200, wanted a list");
  CHECK_THROWS_WITH(header.flag("test.u8", false),
                    where + "test.u8: value of another kind: got number 200, wanted true or false");
  CHECK_THROWS_WITH(header.real("test.bool", 0),
                    where + "test.bool: value of another kind: got boolean true, wanted a number");
  CHECK_THROWS_WITH(file.values("none"),
                    fixture("gguf/blocks.gguf").string() + ": no tensor 'none'");
}

std::vector<std::pair<std::string, GgufValue>> some_values() {
  using Type = GgufValueType;
  return {{"u8", {Type::kUint8, 255}},
          {"i8", {Type::kInt8, -3}},
          {"u16", {Type::kUint16, 65535}},
          {"i16", {Type::kInt16, -300}},
          {"u32", {Type::kUint32, 1 << 30}},
          {"i32", {Type::kInt32, -5}},
          {"f32", {Type::kFloat32, 0.5}},
          {"bool", {Type::kBool, true}},
          {"text", {Type::kString, "ö"}},
          {"list", {Type::kInt32, {1, 2}}},
          {"texts", {Type::kString, {"a", "b c"}}},
          {"empty", {Type::kFloat32, Json::array()}},
          {"u64", {Type::kUint64, ~0ULL}},
          {"i64", {Type::kInt64, -(1LL << 50)}},
          {"f64", {Type::kFloat64, 0.1}}};
}

std::string small_file() {
  const ScratchFolder scratch;
  save_gguf(scratch.at("a.gguf"), some_values(),
            {gguf_dense("one", at::arange(6).to(at::kFloat).view({2, 3}), GgufType::kF32),
             {"two", GgufType::kQ8_0, {2, 32}, at::arange(68).to(at::kByte)}});
  return load_text(scratch.at("a.gguf"));
}

TEST_CASE("what is written reads back") {
  const ScratchFolder scratch;
  const GgufFile file(scratch.write("b.gguf", small_file()));
  for (const auto& [key, value] : some_values()) {
    INFO(key);
    CHECK(file.header().values.at(key).type == value.type);
    CHECK(file.header().values.at(key).value == value.value);
  }
  CHECK(file.values("one").equal(at::arange(6).to(at::kFloat).view({2, 3})));
  CHECK(file.tensor("two").shape == std::vector<std::int64_t>{2, 32});
  CHECK(file.blocks("two").flatten().equal(at::arange(68).to(at::kByte)));
  for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16}) {
    const at::Tensor values = at::randn({3, 5}).to(dtype);
    const GgufType type = dtype == at::kHalf ? GgufType::kF16 : GgufType::kBF16;
    save_gguf(scratch.at("c.gguf"), {}, {gguf_dense("x", values, type)});
    CHECK(GgufFile(scratch.at("c.gguf")).values("x").equal(values));
  }
}

std::string error_of(const std::string& bytes, std::uint64_t file_bytes) {
  return thrown_by([&] { parse_gguf_header(bytes, file_bytes, "f"); });
}

std::string error_of(const std::string& bytes) {
  return error_of(bytes, bytes.size());
}

// Adds to what a file is made of.
struct Bytes {
  std::string text = "GGUF";
  template <typename T>
  Bytes& add(T value) {
    text.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Bytes& add_text(const std::string& value) {
    add<std::uint64_t>(value.size());
    text += value;
    return *this;
  }
  Bytes& begin(std::uint64_t tensors, std::uint64_t pairs) {
    return add<std::uint32_t>(3).add(tensors).add(pairs);
  }
};

// One tensor of a file without keys.
std::string one_tensor(std::vector<std::uint64_t> sizes, std::uint32_t type,
                       std::uint64_t offset = 0) {
  Bytes bytes;
  bytes.begin(1, 0).add_text("t").add<std::uint32_t>(sizes.size());
  for (const std::uint64_t size : sizes) bytes.add(size);
  bytes.add(type).add(offset);
  bytes.text.resize((bytes.text.size() + 31) / 32 * 32 + 32);
  return bytes.text;
}

std::string one_key(std::uint32_t type, const std::string& value) {
  return Bytes().begin(0, 1).add_text("k").add(type).text + value;
}

TEST_CASE("damaged files are refused with what, where and the bound") {
  CHECK(error_of("") == "f: is not a GGUF file: wanted the bytes GGUF in front");
  CHECK(error_of("GGML1234") == "f: is not a GGUF file: wanted the bytes GGUF in front");
  CHECK(error_of("GGUF\3") == "f: file ends within its header (is it whole?)");
  CHECK(error_of(Bytes().add<std::uint32_t>(1).text) ==
        "f: unsupported version of GGUF: got 1, wanted 2 or 3");
  CHECK(error_of(Bytes().add<std::uint32_t>(3U << 24).text) ==
        "f: a big-endian GGUF file: wanted a little-endian one");
  const std::string many = Bytes().begin(1ULL << 60, 0).text;
  CHECK(error_of(many) ==
        "f: length of a list of tensors is past the end of the file: got "
        "1152921504606846976, wanted what 8 bytes can hold (is the file whole?)");
  CHECK(error_of(Bytes().begin(0, 2).text + std::string(20, '\0')) ==
        "f: length of a list of keys is past the end of the file: got 2, wanted what 20 bytes can "
        "hold (is the file whole?)");
  CHECK(error_of(one_key(8, Bytes{""}.add(~0ULL).text + "xxxxxxxx")) ==
        "f: k: length of a text is past the end of the file: got 18446744073709551615, wanted what "
        "8 bytes can hold (is the file whole?)");
  CHECK(error_of(one_key(8, Bytes{""}.add_text("\xC3(").text)) == "f: k: text is not UTF-8");
  CHECK(error_of(one_key(9, Bytes{""}.add<std::uint32_t>(9).add<std::uint64_t>(1).text)) ==
        "f: k: a list of lists, or a value of no type: got type 9, wanted 0 to 8, or 10 to 12");
  CHECK(error_of(one_key(13, "xxxxxxxx")) ==
        "f: k: a list of lists, or a value of no type: got type 13, wanted 0 to 8, or 10 to 12");
  CHECK(error_of(one_key(9, Bytes{""}.add<std::uint32_t>(0).add<std::uint64_t>(9).text + "x")) ==
        "f: k: length of a list is past the end of the file: got 9, wanted what 1 bytes can hold "
        "(is the file whole?)");
  const std::string twice = Bytes().begin(0, 2).add_text("k").add<std::uint32_t>(0).text + "x";
  CHECK(error_of(twice + twice.substr(24)) == "f: k: key given twice");
  CHECK(error_of(Bytes()
                     .begin(0, 1)
                     .add_text("general.alignment")
                     .add<std::uint32_t>(4)
                     .add<std::uint32_t>(24)
                     .text) ==
        "f: general.alignment: value out of range: got 24, wanted a power of two");
}

TEST_CASE("tensors that don't fit the file are refused") {
  CHECK(error_of(one_tensor({8}, 0)).empty());
  CHECK(error_of(one_tensor({9}, 0)) ==
        "f: t: data leave the file: got offset 0, 36 bytes, wanted within 96 bytes (is the file "
        "whole?)");
  CHECK(error_of(one_tensor({1ULL << 40}, 0)).starts_with("f: t: data leave the file"));
  CHECK(error_of(one_tensor({1ULL << 40, 1ULL << 40}, 0)) ==
        "f: t: absurd shape: got size 1099511627776");
  CHECK(error_of(one_tensor({0}, 0)) == "f: t: absurd shape: got size 0");
  CHECK(error_of(one_tensor({}, 0)) == "f: t: number of dimensions: got 0, wanted 1 to 4");
  CHECK(error_of(one_tensor({1, 1, 1, 1, 1}, 0)) ==
        "f: t: number of dimensions: got 5, wanted 1 to 4");
  CHECK(error_of(one_tensor({8}, 0, 32)) ==
        "f: t: gap or overlap: got offset 32, 32 bytes, wanted offset 0 (is the file whole?)");
  CHECK(error_of(one_tensor({33}, 8)) ==
        "f: t: row isn't whole blocks: got 33 values, wanted a multiple of 32 for Q8_0");
  const std::string wanted =
      ", wanted F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, "
      "IQ4_NL, IQ4_XS, MXFP4 or NVFP4";
  CHECK(error_of(one_tensor({256}, 16)) ==
        "f: t: unsupported type of tensor: got IQ2_XXS" + wanted);
  CHECK(error_of(one_tensor({256}, 99)) ==
        "f: t: unsupported type of tensor: got type 99" + wanted);
}

TEST_CASE("a file that ends anywhere, or with any byte changed, is an Error or whole") {
  const std::string whole = small_file();
  const std::uint64_t header = parse_gguf_header(whole, whole.size(), "f").header_bytes;
  for (std::uint64_t size = 0; size < header; ++size) {
    CHECK_FALSE(error_of(whole.substr(0, size), whole.size()).empty());
  }
  for (std::uint64_t at = 0; at < header; ++at) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 0xFF);
    const std::string error = error_of(changed);
    CHECK((error.empty() || error.starts_with("f: ")));
  }
}

// Part `number` of `count`, which holds a tensor of that name.
void save_part(const std::string& path, int number, int count, const std::string& tensor,
               int tensors) {
  using Type = GgufValueType;
  save_gguf(path,
            {{"split.no", {Type::kUint16, number - 1}},
             {"split.count", {Type::kUint16, count}},
             {"split.tensors.count", {Type::kInt32, tensors}}},
            {gguf_dense(tensor, at::full({2, 3}, number), GgufType::kF32)});
}

TEST_CASE("the parts of a model are one file, and what is wrong with them is said") {
  const ScratchFolder scratch;
  const std::string first = scratch.at("m-00001-of-00002.gguf");
  const std::string second = scratch.at("m-00002-of-00002.gguf");
  save_part(first, 1, 2, "one", 2);
  save_part(second, 2, 2, "two", 2);
  const GgufFile file(first);
  CHECK(file.paths() == std::vector<std::filesystem::path>{first, second});
  CHECK(file.values("one").equal(at::full({2, 3}, 1.0F)));
  CHECK(file.values("two").equal(at::full({2, 3}, 2.0F)));
  CHECK_THROWS_WITH(GgufFile(second), second +
                                          ": is not the first part of its model: got part 2 of "
                                          "2, wanted m-00001-of-00002.gguf");
  save_part(second, 2, 3, "two", 2);
  CHECK_THROWS_WITH(GgufFile(first), second +
                                         ": file is another part than its name says: got part "
                                         "2 of 3, wanted part 2 of 2");
  save_part(second, 2, 2, "one", 2);
  CHECK_THROWS_WITH(GgufFile(first), second + ": one: tensor is in two parts of the model");
  save_part(second, 2, 2, "two", 3);
  save_part(first, 1, 2, "one", 3);
  CHECK_THROWS_WITH(GgufFile(first),
                    first + ": the parts don't have all tensors of the model: got 2, wanted 3");
  std::filesystem::remove(second);
  CHECK_THROWS_WITH(GgufFile(first),
                    second + ": a part of the model is missing: wanted 2 parts beside each other");
  for (const std::string name : {"m.gguf", "m-00001-of-00003.gguf", "m-1-of-2.gguf",
                                 "-00001-of-00002.gguf", "m-0000x-of-00002.gguf"}) {
    save_part(scratch.at(name), 1, 2, "one", 2);
    CHECK_THROWS_WITH(
        GgufFile(scratch.at(name)),
        scratch.at(name) +
            ": the name of a part of a model doesn't tell which it is: got part 1 of "
            "2, wanted a name that ends in -00001-of-00002.gguf (the others are found "
            "by their names)");
  }
}

TEST_CASE("what is no file is said so") {
  const ScratchFolder scratch;
  CHECK_THROWS_WITH(GgufFile(scratch.path()), scratch.path().string() + ": is not a file");
  CHECK_THROWS_WITH(GgufFile(scratch.write("e.gguf", "")),
                    scratch.at("e.gguf") + ": file is empty");
  CHECK_THROWS_WITH(GgufFile(scratch.at("no.gguf")),
                    scratch.at("no.gguf") + ": can't open the file: got No such file or directory");
}

}  // namespace
}  // namespace vlm
