# Apache Arrow C++ (libarrow, libparquet and their headers) from PyPI's pyarrow wheel.
#
# Looks in VLM_ARROW_DIR (cache or environment variable); without it in .deps/arrow of this tree. It may be the unpacked
# wheel (pyarrow/include, pyarrow/libarrow.so.N) or an installed Arrow (include, lib).
# Defines the target Arrow::Parquet.
set(VLM_ARROW_DIR "$ENV{VLM_ARROW_DIR}" CACHE PATH "Apache Arrow: unpacked pyarrow wheel or installed folder")
set(_arrow_roots ${CMAKE_SOURCE_DIR}/.deps/arrow/pyarrow)
if(VLM_ARROW_DIR)
  set(_arrow_roots ${VLM_ARROW_DIR} ${VLM_ARROW_DIR}/pyarrow)
endif()

find_path(Arrow_INCLUDE_DIR NAMES parquet/arrow/reader.h PATHS ${_arrow_roots} PATH_SUFFIXES include NO_DEFAULT_PATH)
foreach(name arrow parquet)
  set(_found "")
  foreach(root IN LISTS _arrow_roots)
    file(GLOB _libraries ${root}/lib${name}.so ${root}/lib${name}.so.* ${root}/lib/lib${name}.so)
    list(APPEND _found ${_libraries})
  endforeach()
  set(Arrow_${name}_LIBRARY "")
  if(_found)
    list(GET _found 0 Arrow_${name}_LIBRARY)
  endif()
endforeach()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Arrow REQUIRED_VARS Arrow_arrow_LIBRARY Arrow_parquet_LIBRARY Arrow_INCLUDE_DIR)

if(Arrow_FOUND AND NOT TARGET Arrow::Parquet)
  get_filename_component(_arrow_folder ${Arrow_arrow_LIBRARY} DIRECTORY)
  add_library(Arrow::Parquet INTERFACE IMPORTED)
  target_include_directories(Arrow::Parquet SYSTEM INTERFACE ${Arrow_INCLUDE_DIR})
  target_link_libraries(Arrow::Parquet INTERFACE ${Arrow_parquet_LIBRARY} ${Arrow_arrow_LIBRARY})
  target_link_options(Arrow::Parquet INTERFACE -Wl,-rpath,${_arrow_folder})
endif()
mark_as_advanced(Arrow_INCLUDE_DIR Arrow_arrow_LIBRARY Arrow_parquet_LIBRARY)
