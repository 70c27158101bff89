# Included by llama.cpp's own CMake file, where scripts/setup builds it: its two folders of models (nearly 200 small
# files over the same large headers) are compiled together, 24 at a time, which takes a third of the build's time.

# The sources of a target that lie below `models`, but for `alone`, go into common files.
function(join_models target)
  get_target_property(sources ${target} SOURCES)
  get_target_property(folder ${target} SOURCE_DIR)
  foreach(source IN LISTS sources)
    cmake_path(ABSOLUTE_PATH source BASE_DIRECTORY ${folder})
    cmake_path(GET source FILENAME name)
    if(NOT source MATCHES "/models/" OR name IN_LIST ARGN)
      set_source_files_properties(${source} TARGET_DIRECTORY ${target} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    endif()
  endforeach()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 24)
endfunction()

# Both files define a function of the same name.
cmake_language(DEFER CALL join_models llama gemma3n.cpp)
cmake_language(DEFER CALL join_models mtmd)
