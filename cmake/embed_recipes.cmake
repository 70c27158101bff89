# Writes OUTPUT, a C++ source that holds every YAML file of FOLDER (train/config/recipes.h), byte by byte, so that no
# text in them needs quoting. Run as a script: cmake -DFOLDER=… -DOUTPUT=… -P embed_recipes.cmake
file(GLOB files ${FOLDER}/*.yaml)
set(entries "")
foreach(file IN LISTS files)
  get_filename_component(name ${file} NAME_WLE)
  file(READ ${file} bytes HEX)
  string(REGEX REPLACE "(..)" "\\\\x\\1" text "${bytes}")
  string(APPEND entries "    {\"${name}\", \"${text}\"},\n")
endforeach()
file(WRITE ${OUTPUT} "// Made from configs/*.yaml by cmake/embed_recipes.cmake.
#include \"train/config/recipes.h\"

namespace vlm::train {

const std::vector<Recipe>& recipes() {
  static const std::vector<Recipe> all = {
${entries}  };
  return all;
}

}  // namespace vlm::train
")
