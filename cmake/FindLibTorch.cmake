# LibTorch without its own CMake package, which asks for a CUDA toolkit.
#
# Looks in VLM_TORCH_DIR (cache or environment variable); without it in .deps/libtorch of this tree, or, as part of the
# installed package, where the library was built with it. It may be the unpacked pip wheel (torch/include, torch/lib) or
# a LibTorch folder (include, lib).
# Defines the target LibTorch::LibTorch: include folders, libtorch_cpu and libc10 (CUDA libraries are opened at run time).
set(VLM_TORCH_DIR "$ENV{VLM_TORCH_DIR}" CACHE PATH "LibTorch: unpacked wheel or LibTorch folder")
if(DEFINED VLM_BUILT_WITH_LIBTORCH)
  set(_torch_roots ${VLM_BUILT_WITH_LIBTORCH}/..)
else()
  set(_torch_roots ${CMAKE_SOURCE_DIR}/.deps/libtorch/torch)
endif()
if(VLM_TORCH_DIR)
  set(_torch_roots ${VLM_TORCH_DIR} ${VLM_TORCH_DIR}/torch)
endif()

find_path(LibTorch_INCLUDE_DIR NAMES ATen/ATen.h PATHS ${_torch_roots} PATH_SUFFIXES include
          NO_DEFAULT_PATH)
find_library(LibTorch_CPU_LIBRARY NAMES torch_cpu PATHS ${_torch_roots} PATH_SUFFIXES lib
             NO_DEFAULT_PATH)
find_library(LibTorch_C10_LIBRARY NAMES c10 PATHS ${_torch_roots} PATH_SUFFIXES lib NO_DEFAULT_PATH)

set(_torch_version_header ${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h)
if(EXISTS ${_torch_version_header})
  file(STRINGS ${_torch_version_header} LibTorch_VERSION REGEX "^ *\"[0-9.]+\"$")
  string(REGEX REPLACE "[ \"]" "" LibTorch_VERSION "${LibTorch_VERSION}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  LibTorch VERSION_VAR LibTorch_VERSION REQUIRED_VARS LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "run scripts/setup, or set VLM_TORCH_DIR to a LibTorch folder")

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  get_filename_component(LibTorch_LIBRARY_DIR ${LibTorch_CPU_LIBRARY} DIRECTORY)
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  target_include_directories(
    LibTorch::LibTorch SYSTEM
    INTERFACE ${LibTorch_INCLUDE_DIR} ${LibTorch_INCLUDE_DIR}/torch/csrc/api/include)
  # The kernels register themselves when the library is loaded, so it must stay although no symbol asks for it.
  target_link_options(LibTorch::LibTorch INTERFACE -Wl,--no-as-needed
                      -Wl,-rpath,${LibTorch_LIBRARY_DIR})
  target_link_libraries(LibTorch::LibTorch INTERFACE ${LibTorch_CPU_LIBRARY} ${LibTorch_C10_LIBRARY})
endif()
mark_as_advanced(LibTorch_INCLUDE_DIR LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY)
