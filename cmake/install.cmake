# What `make install` puts under the prefix:
#
#   bin/hypura  include/hypura*.h  lib/hypura/{hypura-engine,*.so}  lib/pkgconfig/hypura.pc  share/doc/hypura/*
#   share/man/man1/hypura.1  completion for bash, zsh and fish  lib/systemd/user/hypura.service (Linux)
#
# Everything shared lies in one folder of our own, found relative to the program: the tree can be moved, and no other
# llama.cpp on the machine is disturbed or picked up.
set(_lib lib/hypura)
set(_origin $ORIGIN)
if(APPLE)
  set(_origin @loader_path)
endif()

set_target_properties(hypura PROPERTIES INSTALL_RPATH "${_origin}/../${_lib}")
set_target_properties(hypura_shared PROPERTIES INSTALL_RPATH "${_origin}")
install(TARGETS hypura RUNTIME DESTINATION bin)
# The server starts it; nobody else.
set_target_properties(hypura-engine PROPERTIES INSTALL_RPATH "${_origin}")
install(TARGETS hypura-engine RUNTIME DESTINATION ${_lib})
install(TARGETS hypura_shared LIBRARY DESTINATION ${_lib})
if(TARGET ggml_hypura)
  set_target_properties(ggml_hypura PROPERTIES INSTALL_RPATH "${_origin}")
  install(TARGETS ggml_hypura LIBRARY DESTINATION ${_lib})
endif()
foreach(_header hypura hypura_plan hypura_measure hypura_server)
  install(FILES ${CMAKE_SOURCE_DIR}/include/${_header}.h DESTINATION include)
endforeach()
configure_file(${CMAKE_SOURCE_DIR}/cmake/hypura.pc.in ${CMAKE_BINARY_DIR}/hypura.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/hypura.pc DESTINATION lib/pkgconfig)

# Whichever ggml backends were built. The links lead from the plain name over the versioned one to the file, and are
# installed as they are.
set(_suffix ${CMAKE_SHARED_LIBRARY_SUFFIX})
file(GLOB _llama_files ${HYPURA_LLAMA_BUILD}/bin/libggml*${_suffix})
foreach(_name llama llama-common llama-server-impl mtmd)
  list(APPEND _llama_files ${HYPURA_LLAMA_BUILD}/bin/lib${_name}${_suffix})
endforeach()
list(TRANSFORM _llama_files REPLACE "(.+)" "\"\\1\"")
list(JOIN _llama_files " " _llama_files)
install(CODE "file(INSTALL DESTINATION \"\${CMAKE_INSTALL_PREFIX}/${_lib}\"
  TYPE SHARED_LIBRARY FOLLOW_SYMLINK_CHAIN FILES ${_llama_files})")

install(FILES ${HYPURA_GPU_MODULES} DESTINATION ${_lib})

install(FILES ${CMAKE_SOURCE_DIR}/LICENSE ${CMAKE_SOURCE_DIR}/README.md ${CMAKE_SOURCE_DIR}/docs/api.md
  ${CMAKE_SOURCE_DIR}/docs/cli.md ${CMAKE_SOURCE_DIR}/docs/openapi.yaml DESTINATION share/doc/hypura)
install(FILES ${HYPURA_LLAMA_DIR}/LICENSE DESTINATION share/doc/hypura RENAME LICENSE.llama.cpp)

set(_share ${CMAKE_SOURCE_DIR}/share)
install(FILES ${_share}/completion/hypura.bash DESTINATION share/bash-completion/completions RENAME hypura)
install(FILES ${_share}/completion/_hypura DESTINATION share/zsh/site-functions)
install(FILES ${_share}/completion/hypura.fish DESTINATION share/fish/vendor_completions.d)
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  # The prefix is known when it is installed.
  install(CODE "configure_file(\"${_share}/systemd/hypura.service.in\" \"${CMAKE_BINARY_DIR}/hypura.service\" @ONLY)")
  install(FILES ${CMAKE_BINARY_DIR}/hypura.service DESTINATION lib/systemd/user)
endif()

# The man page is what the program says of itself, so it takes a program that runs here.
if(NOT CMAKE_CROSSCOMPILING)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/hypura.1
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/scripts/man.py $<TARGET_FILE:hypura> > ${CMAKE_BINARY_DIR}/hypura.1
    DEPENDS hypura ${CMAKE_SOURCE_DIR}/scripts/man.py VERBATIM)
  add_custom_target(man ALL DEPENDS ${CMAKE_BINARY_DIR}/hypura.1)
  install(FILES ${CMAKE_BINARY_DIR}/hypura.1 DESTINATION share/man/man1)
endif()
