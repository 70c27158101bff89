# One static library a folder, with the subfolders named by ALSO. TORCH: it uses LibTorch, whose
# tensors are in a precompiled header. SEPARATE: its files are never compiled together.
function(vlm_add_folder target folder)
  cmake_parse_arguments(ARG "TORCH;SEPARATE" "" "LINK;ALSO" ${ARGN})
  list(TRANSFORM ARG_ALSO REPLACE ".+" "${CMAKE_SOURCE_DIR}/${folder}/\\0/*.cpp")
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/*.cpp ${ARG_ALSO})
  if(NOT sources)
    add_library(${target} INTERFACE)
    return()
  endif()
  add_library(${target} STATIC ${sources})
  target_include_directories(${target} PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(${target} PUBLIC ${ARG_LINK})
  if(NOT ARG_SEPARATE)
    vlm_compile_together(${target})
  endif()
  if(ARG_TORCH)
    vlm_use_torch(${target} torch)
  endif()
endfunction()

# Files of one folder share the cost of templates. What stands in anonymous namespaces needs names of its own within a
# folder.
function(vlm_compile_together target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${VLM_UNITY_BUILD} UNITY_BUILD_BATCH_SIZE 12)
endfunction()

# Makes NAME_pch: cmake/NAME_pch.h, precompiled once with the compile options given, for targets that reuse it.
function(vlm_add_precompiled name)
  file(WRITE ${CMAKE_BINARY_DIR}/${name}_pch.cpp "")
  add_library(${name}_pch OBJECT ${CMAKE_BINARY_DIR}/${name}_pch.cpp)
  target_include_directories(${name}_pch PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name}_pch PUBLIC LibTorch::LibTorch nlohmann_json::nlohmann_json)
  target_compile_options(${name}_pch PRIVATE ${ARGN})
  target_precompile_headers(${name}_pch PRIVATE ${CMAKE_SOURCE_DIR}/cmake/${name}_pch.h)
endfunction()

# Links LibTorch and reuses the precompiled header cmake/PCH_pch.h.
function(vlm_use_torch target pch)
  if(NOT TARGET ${pch}_pch)
    vlm_add_precompiled(${pch})
  endif()
  target_link_libraries(${target} PUBLIC LibTorch::LibTorch)
  target_precompile_headers(${target} REUSE_FROM ${pch}_pch)
endfunction()

# A shared object of a folder, which the program opens when it is needed. It lies beside the program.
function(vlm_add_plugin target folder)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/*.cpp)
  add_library(${target} MODULE ${sources})
  target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${target} PRIVATE ${ARGN})
  set_target_properties(${target} PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}
                                             INSTALL_RPATH_USE_LINK_PATH ON)
  install(TARGETS ${target} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/vlm)
  set_property(GLOBAL APPEND PROPERTY VLM_PLUGINS ${target})
endfunction()

# Building `target` builds what it may open.
function(vlm_needs_plugins target)
  get_property(plugins GLOBAL PROPERTY VLM_PLUGINS)
  if(plugins)
    add_dependencies(${target} ${plugins})
  endif()
endfunction()
