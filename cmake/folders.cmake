# One static library a folder, with the subfolders named by ALSO. TORCH: it uses LibTorch's tensors; MODULES: it defines
# LibTorch modules. Both decide which precompiled header it shares with others.
function(vlm_add_folder target folder)
  cmake_parse_arguments(ARG "TORCH;MODULES" "" "LINK;ALSO" ${ARGN})
  list(TRANSFORM ARG_ALSO REPLACE ".+" "${CMAKE_SOURCE_DIR}/${folder}/\\0/*.cpp")
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/*.cpp ${ARG_ALSO})
  if(NOT sources)
    add_library(${target} INTERFACE)
    return()
  endif()
  add_library(${target} STATIC ${sources})
  target_include_directories(${target} PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(${target} PUBLIC ${ARG_LINK})
  if(ARG_TORCH OR ARG_MODULES)
    # Files of one folder are compiled together, so that they share the cost of templates. What stands in anonymous
    # namespaces needs names of its own within a folder.
    set_target_properties(${target} PROPERTIES UNITY_BUILD ${VLM_UNITY_BUILD} UNITY_BUILD_BATCH_SIZE 8)
  endif()
  if(ARG_MODULES)
    vlm_use_torch(${target} module)
  elseif(ARG_TORCH)
    vlm_use_torch(${target} torch)
  endif()
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
