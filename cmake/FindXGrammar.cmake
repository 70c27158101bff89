# XGrammar (structured answers), which scripts/setup builds from its source distribution (cmake/xgrammar).
#
# Looks in VLM_XGRAMMAR_DIR (cache or environment variable); without it in .deps/xgrammar of this tree.
# Defines the target XGrammar::XGrammar.
set(VLM_XGRAMMAR_DIR "" CACHE PATH "XGrammar: folder with include and lib, as cmake/xgrammar installs it")
set(_xgrammar_root ${CMAKE_SOURCE_DIR}/.deps/xgrammar)
if(VLM_XGRAMMAR_DIR)
  set(_xgrammar_root ${VLM_XGRAMMAR_DIR})
elseif(NOT "$ENV{VLM_XGRAMMAR_DIR}" STREQUAL "")
  set(_xgrammar_root $ENV{VLM_XGRAMMAR_DIR})
endif()

find_path(XGrammar_INCLUDE_DIR NAMES xgrammar/compiler.h PATHS ${_xgrammar_root} PATH_SUFFIXES include NO_DEFAULT_PATH)
find_library(XGrammar_LIBRARY NAMES libxgrammar.a PATHS ${_xgrammar_root} PATH_SUFFIXES lib NO_DEFAULT_PATH)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(XGrammar REQUIRED_VARS XGrammar_LIBRARY XGrammar_INCLUDE_DIR)

if(XGrammar_FOUND AND NOT TARGET XGrammar::XGrammar)
  find_package(Threads REQUIRED)
  add_library(XGrammar::XGrammar STATIC IMPORTED)
  set_target_properties(XGrammar::XGrammar PROPERTIES IMPORTED_LOCATION ${XGrammar_LIBRARY}
                                                      INTERFACE_LINK_LIBRARIES Threads::Threads)
  target_include_directories(XGrammar::XGrammar SYSTEM INTERFACE ${XGrammar_INCLUDE_DIR})
endif()
mark_as_advanced(XGrammar_INCLUDE_DIR XGrammar_LIBRARY)
