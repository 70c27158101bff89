# `cmake --install`: the program, the library as one archive (vlm::vlm), its public headers and the CMake package.
#
# The folders' libraries stay what the tree builds with; libvlm.a holds the objects of those that inference needs, so that
# its users link one target and see no header but the public ones.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# Appends to TO_OBJECTS the objects of `target` and of the folders behind it, to TO_LIBRARIES what they link from outside.
function(vlm_collect target to_objects to_libraries)
  set(found_objects ${${to_objects}})
  set(found_libraries ${${to_libraries}})
  if(NOT "$<TARGET_OBJECTS:${target}>" IN_LIST found_objects)
    list(APPEND found_objects $<TARGET_OBJECTS:${target}>)
    get_target_property(links ${target} LINK_LIBRARIES)
    foreach(link IN LISTS links)
      if(link MATCHES "^vlm_")
        vlm_collect(${link} found_objects found_libraries)
      elseif(NOT link MATCHES "^nlohmann_json")  # headers, for our sources alone
        list(APPEND found_libraries ${link})
      endif()
    endforeach()
  endif()
  list(REMOVE_DUPLICATES found_libraries)
  set(${to_objects} ${found_objects} PARENT_SCOPE)
  set(${to_libraries} ${found_libraries} PARENT_SCOPE)
endfunction()

vlm_collect(vlm_infer objects libraries)
add_library(vlm_library STATIC ${objects})
set_target_properties(vlm_library PROPERTIES OUTPUT_NAME vlm EXPORT_NAME vlm LINKER_LANGUAGE CXX)
target_compile_features(vlm_library INTERFACE cxx_std_17)  # what the public headers take
target_include_directories(vlm_library INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
# Private: users link them, but don't see their headers.
target_link_libraries(vlm_library PRIVATE ${libraries})

get_target_property(torch_libraries LibTorch::LibTorch INTERFACE_LINK_LIBRARIES)
list(GET torch_libraries 0 torch_library)
get_filename_component(VLM_BUILT_WITH_LIBTORCH ${torch_library} DIRECTORY)
# Where the build found LibTorch, or beside the program when someone puts it there. The program is built with what it is
# installed with: for a change CMake would leave room, and that is filled with empty entries, which mean the folder that
# someone stands in.
cmake_path(ABSOLUTE_PATH CMAKE_INSTALL_LIBDIR BASE_DIRECTORY "\$ORIGIN/.." OUTPUT_VARIABLE beside_program)
set_target_properties(vlm PROPERTIES INSTALL_RPATH "${beside_program};${VLM_BUILT_WITH_LIBTORCH}"
                                     BUILD_WITH_INSTALL_RPATH ON)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/vlm)
install(TARGETS vlm RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY models/easy-vqa-emoji DESTINATION ${CMAKE_INSTALL_DATADIR}/vlm/models)  # vlm serve without --model
install(TARGETS vlm_library EXPORT vlmTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES infer/vlm.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/vlm)
install(FILES vlm/core/error.h vlm/core/log.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/vlm/core)
install(EXPORT vlmTargets NAMESPACE vlm:: DESTINATION ${package_folder})
configure_package_config_file(cmake/vlmConfig.cmake.in ${CMAKE_BINARY_DIR}/vlmConfig.cmake
                              INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/vlmConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/vlmConfig.cmake ${CMAKE_BINARY_DIR}/vlmConfigVersion.cmake
              cmake/dependencies.cmake cmake/FindLibTorch.cmake
        DESTINATION ${package_folder})
