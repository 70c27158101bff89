# Writes OUTPUT, a C++ source that holds the files of the web page in FOLDER (infer/server/page/page_files.h), byte by
# byte, with their digests. Run as a script: cmake -DFOLDER=… -DOUTPUT=… -P embed_page.cmake
set(entries "")
file(GLOB names RELATIVE ${FOLDER} ${FOLDER}/*.html ${FOLDER}/*.css ${FOLDER}/*.js ${FOLDER}/*.svg)
foreach(name ${names})
  file(READ ${FOLDER}/${name} bytes HEX)
  file(SHA256 ${FOLDER}/${name} digest)
  string(LENGTH "${bytes}" digits)
  math(EXPR size "${digits} / 2")
  string(REGEX REPLACE "(..)" "\\\\x\\1" text "${bytes}")
  string(APPEND entries "    {\"${name}\", std::string_view(\"${text}\", ${size}), \"${digest}\"},\n")
endforeach()
file(WRITE ${OUTPUT} "// Made from infer/server/page by cmake/embed_page.cmake.
#include \"infer/server/page/page_files.h\"

namespace vlm::infer {

const std::vector<PageFile>& page_files() {
  static const std::vector<PageFile> all = {
${entries}  };
  return all;
}

}  // namespace vlm::infer
")
