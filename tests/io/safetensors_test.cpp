// What is written comes back; a file that lies is refused with the reason.
#include "vlm/io/safetensors.h"

#include <ATen/ATen.h>

#include <cstring>
#include <filesystem>

#include "tests/support/catch.h"
#include "tests/support/scratch_folder.h"
#include "vlm/core/concat.h"
#include "vlm/core/error.h"
#include "vlm/core/json.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

// What parse_safetensors_header says about a header, or "".
std::string header_error(const std::string& json, std::uint64_t data_bytes) {
  try {
    parse_safetensors_header(json, data_bytes, "m");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// A header with the one tensor t.
std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return concat(R"({"t":{"dtype":)", dtype, R"(,"shape":)", shape, R"(,"data_offsets":)", offsets,
                "}}");
}

// Two tensors of 4 bytes each, a and b, at the given offsets.
std::string pair_at(const std::string& a, const std::string& b) {
  return concat(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":)", a,
                R"(},"b":{"dtype":"F32","shape":[1],"data_offsets":)", b, "}}");
}

std::string file_bytes(const std::string& header, std::size_t data_bytes,
                       std::int64_t claimed = -1) {
  std::uint64_t length = claimed < 0 ? header.size() : static_cast<std::uint64_t>(claimed);
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes + header + std::string(data_bytes, '\1');
}

TEST_CASE("every dtype, scalars and empty tensors come back as they were written") {
  const ScratchFolder scratch;
  NamedTensors tensors;
  for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble, at::kLong,
                                     at::kInt, at::kChar, at::kByte, at::kBool}) {
    tensors.emplace_back(dtype_text(dtype), at::arange(-3, 3).view({2, 3}).to(dtype));
  }
  tensors.emplace_back("scalar", at::full({}, 2.5));
  tensors.emplace_back("empty", at::empty({2, 0}));
  tensors.emplace_back("transposed", at::arange(6.0).view({2, 3}).t());
  save_safetensors(scratch.at("m"), tensors);

  const SafetensorsFile file(scratch.at("m"));
  CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"}});
  REQUIRE(file.entries().size() == tensors.size());
  for (const auto& [name, tensor] : tensors) {
    INFO(name);
    const at::Tensor read = file.tensor(name);
    CHECK(read.scalar_type() == tensor.scalar_type());
    CHECK(read.sizes() == tensor.sizes());
    CHECK(read.equal(tensor));
    const auto place = reinterpret_cast<std::uintptr_t>(read.data_ptr());
    CHECK(place % read.element_size() == 0);
  }
  CHECK_THROWS_WITH(file.tensor("x"), scratch.at("m") + ": no tensor 'x'");
}

TEST_CASE("a file can be read into memory of its own, and written without a temporary one") {
  const ScratchFolder scratch;
  const NamedTensors tensors = {{"z", at::arange(5).to(at::kFloat)},
                                {"bytes", at::arange(3).to(at::kByte)},
                                {"half", at::ones({2, 2}, at::kHalf)},
                                {"none", at::empty({0, 3})}};
  write_safetensors(scratch.at("m"), tensors);
  CHECK(scratch.names() == std::vector<std::string>{"m"});
  const NamedTensors read = read_safetensors(scratch.at("m"));
  fs::resize_file(scratch.at("m"), 0);  // a mapping would fault from here on
  REQUIRE(read.size() == 4);
  const std::size_t order[] = {1, 2, 3, 0};  // of the names
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(read[i].first == tensors[order[i]].first);
    CHECK(read[i].second.scalar_type() == tensors[order[i]].second.scalar_type());
    CHECK(read[i].second.equal(tensors[order[i]].second));
  }
  CHECK_THROWS_WITH(read_safetensors(scratch.at("m")),
                    Contains("too short for a safetensors file"));
  CHECK_THROWS_WITH(read_safetensors(scratch.at("none")), Contains("can't open the file"));
  CHECK_THROWS_WITH(write_safetensors(scratch.at("none/m"), tensors),
                    scratch.at("none/m") + ": can't write the file: got No such file or directory");
}

TEST_CASE("data starts at a multiple of eight, whatever the names' lengths") {
  const ScratchFolder scratch;
  for (std::size_t length = 1; length <= 9; ++length) {
    save_safetensors(scratch.at("m"), {{std::string(length, 'n'), at::ones({2})}});
    const std::string bytes = load_text(scratch.at("m"));
    CHECK((bytes.size() - 8) % 8 == 0);  // so is the header's length
  }
}

TEST_CASE("a tensor that lies askew in the file is read all the same") {
  const ScratchFolder scratch;
  const at::Tensor bytes = at::arange(3).to(at::kByte);
  const at::Tensor floats = at::arange(5).to(at::kFloat);
  save_safetensors(scratch.at("m"), {{"bytes", bytes}, {"floats", floats}});
  const at::Tensor read = SafetensorsFile(scratch.at("m")).tensor("floats");
  CHECK(read.equal(floats));
  CHECK(reinterpret_cast<std::uintptr_t>(read.data_ptr()) % 4 == 0);
}

TEST_CASE("tensors outlive their file, and writing to them leaves it alone") {
  const ScratchFolder scratch;
  save_safetensors(scratch.at("m"), {{"t", at::arange(1000).to(at::kFloat)}});
  const std::string before = load_text(scratch.at("m"));
  at::Tensor tensor = SafetensorsFile(scratch.at("m")).tensor("t");
  fs::remove(scratch.at("m"));
  CHECK(tensor.equal(at::arange(1000).to(at::kFloat)));

  scratch.write("m", before);
  tensor = SafetensorsFile(scratch.at("m")).tensor("t");
  tensor.zero_();
  CHECK(tensor.sum().item<float>() == 0.0F);
  CHECK(load_text(scratch.at("m")) == before);
  tensor.fill_(7);
  save_safetensors(scratch.at("m"), {{"t", tensor}});  // over the very file it is mapped from
  CHECK(SafetensorsFile(scratch.at("m")).tensor("t").equal(at::full({1000}, 7.0F)));
}

TEST_CASE("a failed save leaves neither half a file nor a temporary one") {
  const ScratchFolder scratch;
  const NamedTensors tensors = {{"t", at::ones({2})}};
  CHECK_THROWS_WITH(save_safetensors(scratch.at("none/m"), tensors),
                    scratch.at("none/m") + ": can't write the file: got No such file or directory");
  fs::create_directory(scratch.at("taken"));
  CHECK_THROWS_WITH(save_safetensors(scratch.at("taken"), tensors),
                    scratch.at("taken") + ": is a folder, not a file");
  CHECK_THROWS_WITH(save_text(scratch.at("taken"), "x"),
                    scratch.at("taken") + ": is a folder, not a file");
  CHECK_THROWS_WITH(save_safetensors(scratch.at("m"), {{"t", at::ones({2}, at::kComplexFloat)}}),
                    "dtype ComplexFloat has no place in a safetensors file");
  CHECK(scratch.names() == std::vector<std::string>{"taken"});
}

TEST_CASE("files that are none are refused") {
  const ScratchFolder scratch;
  const auto error_of = [&](const std::string& name) -> std::string {
    try {
      const SafetensorsFile file(scratch.at(name));
    } catch (const Error& error) {
      const std::string text = error.what();
      REQUIRE(text.starts_with(scratch.at(name) + ": "));
      return text.substr(scratch.at(name).size() + 2);
    }
    return "";
  };
  CHECK(error_of("absent") == "can't open the file: got No such file or directory");
  fs::create_directory(scratch.at("folder"));
  CHECK(error_of("folder") == "is not a file");
  scratch.write("empty", "");
  CHECK(error_of("empty") == "too short for a safetensors file: got 0 bytes, wanted at least 8");
  scratch.write("short", "1234567");
  CHECK(error_of("short") == "too short for a safetensors file: got 7 bytes, wanted at least 8");
  scratch.write("past", file_bytes("{}", 0, 3));
  CHECK(error_of("past") ==
        "header length is past the end of the file: got 3 bytes, wanted at most 2 "
        "(is it a safetensors file, and whole?)");
  scratch.write("huge", std::string(8, '\xff') + "{}");
  CHECK(error_of("huge") ==
        "header length is past the end of the file: got 18446744073709551615 bytes, wanted at "
        "most 2 (is it a safetensors file, and whole?)");
  scratch.write("nothing", file_bytes("", 0));
  CHECK_THAT(error_of("nothing"), Contains("not valid JSON: got parse error"));
  scratch.write("cut", file_bytes(entry("\"F32\"", "[4]", "[0,16]"), 15));
  CHECK(error_of("cut") ==
        "t: offsets leave the file: got [0, 16), wanted within the 15 bytes of data "
        "(is the file cut short?)");
  scratch.write("whole", file_bytes(entry("\"F32\"", "[4]", "[0,16]"), 16));
  CHECK(error_of("whole").empty());
  scratch.write("bare", file_bytes("{}", 0));
  CHECK(error_of("bare").empty());
}

TEST_CASE("a header that isn't one is refused") {
  CHECK_THAT(header_error("{\"t\":", 0), Contains("m: not valid JSON: got parse error at line 1"));
  CHECK(header_error("[]", 0) == "m: header is not an object: got array");
  CHECK(header_error("7", 0) == "m: header is not an object: got number 7");
  CHECK(header_error(R"({"t":{},"t":{}})", 0) == R"(m: key given twice: got "t")");
  CHECK(header_error(std::string(300, '['), 0) ==
        "m: JSON is nested too deeply: wanted at most 200 levels");
  CHECK(header_error(R"({"__metadata__":{"a":1}})", 0) ==
        "m: __metadata__: malformed metadata: got object, wanted an object of strings");
  CHECK(header_error(R"({"__metadata__":"pt"})", 0) ==
        "m: __metadata__: malformed metadata: got string \"pt\", wanted an object of strings");
  CHECK(header_error(R"({"__metadata__":{"a":"1"}})", 0).empty());
}

TEST_CASE("an entry without its parts, or with parts of the wrong kind, is refused") {
  CHECK(header_error(R"({"t":{"shape":[1],"data_offsets":[0,4]}})", 4) ==
        "m: t: header entry lacks 'dtype': got object");
  CHECK(header_error(R"({"t":{"dtype":"F32","data_offsets":[0,4]}})", 4) ==
        "m: t: header entry lacks 'shape': got object");
  CHECK(header_error(R"({"t":{"dtype":"F32","shape":[1]}})", 4) ==
        "m: t: header entry lacks 'data_offsets': got object");
  CHECK(header_error(R"({"t":[1]})", 4) == "m: t: header entry lacks 'dtype': got array");
  const std::string wanted = ", wanted one of F32, F16, BF16, F64, I64, I32, I8, U8, BOOL";
  CHECK(header_error(entry("\"F8_E4M3\"", "[4]", "[0,4]"), 4) ==
        "m: t: unsupported dtype: got string \"F8_E4M3\"" + wanted);
  CHECK(header_error(entry("32", "[1]", "[0,4]"), 4) ==
        "m: t: unsupported dtype: got number 32" + wanted);

  const std::string sizes = "m: t: malformed header entry: got ";
  const std::string shape = ", wanted a list of non-negative integers";
  const std::string offsets = ", wanted a list of 2 non-negative integers";
  CHECK(header_error(entry("\"F32\"", "[-1]", "[0,4]"), 4) == sizes + "array" + shape);
  CHECK(header_error(entry("\"F32\"", "[1.0]", "[0,4]"), 4) == sizes + "array" + shape);
  CHECK(header_error(entry("\"F32\"", "1", "[0,4]"), 4) == sizes + "number 1" + shape);
  CHECK(header_error(entry("\"F32\"", "null", "[0,4]"), 4) == sizes + "null" + shape);
  for (const char* bad : {"[-4,0]", "[0,4.0]", "[0]", "[0,4,8]", "[\"0\",4]", "[]"}) {
    INFO(bad);
    CHECK(header_error(entry("\"F32\"", "[1]", bad), 4) == sizes + "array" + offsets);
  }
  CHECK(header_error(entry("\"F32\"", "[1]", R"({"a":0,"b":4})"), 4) == sizes + "object" + offsets);
}

TEST_CASE("offsets that leave the data, overlap, or leave bytes unowned are refused") {
  const std::string leave = "m: t: offsets leave the file: got ";
  CHECK(header_error(entry("\"F32\"", "[2]", "[0,8]"), 4) ==
        leave + "[0, 8), wanted within the 4 bytes of data (is the file cut short?)");
  CHECK(header_error(entry("\"F32\"", "[1]", "[4,0]"), 4) ==
        leave + "[4, 0), wanted within the 4 bytes of data (is the file cut short?)");
  CHECK_THAT(
      header_error(entry("\"F32\"", "[1]", "[18446744073709551612,18446744073709551615]"), 4),
      Contains("offsets leave the file"));
  CHECK(header_error(pair_at("[0,4]", "[4,8]"), 8).empty());
  CHECK(header_error(pair_at("[4,8]", "[0,4]"), 8).empty());  // names needn't follow the data
  CHECK(header_error(pair_at("[0,4]", "[2,6]"), 8) ==
        "m: b: tensors overlap: got begin 2, wanted 4");
  CHECK(header_error(pair_at("[0,4]", "[0,4]"), 4) ==
        "m: b: tensors overlap: got begin 0, wanted 4");
  CHECK(header_error(pair_at("[0,4]", "[6,10]"), 10) ==
        "m: b: gap before tensor: got begin 6, wanted 4");
  CHECK(header_error(pair_at("[1,5]", "[5,9]"), 9) ==
        "m: a: gap before tensor: got begin 1, wanted 0");
  CHECK(header_error(pair_at("[0,4]", "[4,8]"), 9) ==
        "m: file is longer than its tensors: got 9 bytes of data, wanted 8");
  CHECK(header_error("{}", 1) ==
        "m: file is longer than its tensors: got 1 bytes of data, wanted 0");
}

TEST_CASE("a size that doesn't fit dtype and shape, or no size at all, is refused") {
  const std::string size = "m: t: size doesn't fit dtype and shape: got ";
  CHECK(header_error(entry("\"F32\"", "[2,3]", "[0,12]"), 12) ==
        size + "12 bytes, wanted 24 bytes for F32 [2, 3]");
  CHECK(header_error(entry("\"BF16\"", "[6]", "[0,24]"), 24) ==
        size + "24 bytes, wanted 12 bytes for BF16 [6]");
  CHECK(header_error(entry("\"F32\"", "[]", "[0,4]"), 4).empty());
  const std::string absurd = "m: t: absurd shape: got ";
  CHECK(header_error(entry("\"F32\"", "[4294967296,4294967296]", "[0,0]"), 0) ==
        absurd + "[4294967296, 4294967296]");
  CHECK(header_error(entry("\"U8\"", "[18446744073709551615]", "[0,0]"), 0) ==
        absurd + "[18446744073709551615]");
  CHECK(header_error(entry("\"F64\"", "[288230376151711744]", "[0,0]"), 0) ==
        absurd + "[288230376151711744]");
  CHECK(header_error(entry("\"F32\"", "[0,4294967296,4294967296]", "[0,0]"), 0) ==
        absurd + "[0, 4294967296, 4294967296]");
  CHECK(header_error(entry("\"F32\"", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,4]"), 4) ==
        absurd + "[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]");
  CHECK(header_error(entry("\"F32\"", "[5,0]", "[0,0]"), 0).empty());
}

}  // namespace
}  // namespace vlm
