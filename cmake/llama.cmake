# llama.cpp as imported targets, and where its programs for tests and measurements are:
#
#   hypura::llama  hypura::ggml  hypura::ggml_base  hypura::ggml_cpu  hypura::llama_common  hypura::mtmd  hypura::llama_server
#   HYPURA_LLAMA_DIR  HYPURA_LLAMA_BUILD                          source and build tree
#   HYPURA_LLAMA_ARCHS  HYPURA_BACKEND_OPS  HYPURA_LLAMA_BENCH    programs, made by the target llama_test_programs
#
# By default the pinned release, built once into the user's cache while configuring (scripts/llama.sh). llama.cpp is built
# by a compiler of its own choice and never instrumented, whatever Hypura itself is built with.
set(HYPURA_LLAMA_DIR "" CACHE PATH "llama.cpp source tree to use instead of the pinned release")
set(HYPURA_LLAMA_BUILD "" CACHE PATH "finished build of HYPURA_LLAMA_DIR; it is built when this is empty")
set(HYPURA_LLAMA_OPTIONS "" CACHE STRING "options for llama.cpp, such as -DGGML_CUDA=ON or -DGGML_NATIVE=OFF")
# Remembered, as Ninja configures again without the environment of the first time.
set(HYPURA_LLAMA_CC "$ENV{CC}" CACHE STRING "C compiler for llama.cpp; empty: cc")
set(HYPURA_LLAMA_CXX "$ENV{CXX}" CACHE STRING "C++ compiler for llama.cpp; empty: c++")

if(HYPURA_LLAMA_BUILD)
  if(NOT HYPURA_LLAMA_DIR)
    message(FATAL_ERROR "HYPURA_LLAMA_BUILD needs the source tree it was built from: set HYPURA_LLAMA_DIR as well")
  endif()
else()
  set(_llama_script ${CMAKE_COMMAND} -E env CC=${HYPURA_LLAMA_CC} CXX=${HYPURA_LLAMA_CXX}
    ${CMAKE_SOURCE_DIR}/scripts/llama.sh ${HYPURA_LLAMA_OPTIONS})
  if(HYPURA_LLAMA_DIR)
    list(APPEND _llama_script --source ${HYPURA_LLAMA_DIR})
  endif()
  execute_process(COMMAND ${_llama_script} llama llama-common mtmd llama-server-impl
    OUTPUT_VARIABLE _llama_places OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE _llama_failed)
  if(_llama_failed OR NOT _llama_places MATCHES "^source=(.+)\nbuild=(.+)$")
    message(FATAL_ERROR "llama.cpp is not there; see the messages above")
  endif()
  # These hide the cache variables of the same names, which stay what the user said.
  set(HYPURA_LLAMA_DIR ${CMAKE_MATCH_1})
  set(HYPURA_LLAMA_BUILD ${CMAKE_MATCH_2})
  # Another wrapper is another build, and a cache that was cleared is filled again.
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
    ${CMAKE_SOURCE_DIR}/scripts/llama.sh ${CMAKE_SOURCE_DIR}/cmake/llama/CMakeLists.txt
    ${CMAKE_SOURCE_DIR}/cmake/llama/mmap_hook.h ${HYPURA_LLAMA_BUILD}/build.ninja)
endif()
message(STATUS "llama.cpp: ${HYPURA_LLAMA_BUILD}")

function(hypura_import name file)
  add_library(hypura::${name} SHARED IMPORTED GLOBAL)
  set_target_properties(hypura::${name} PROPERTIES
    IMPORTED_LOCATION ${HYPURA_LLAMA_BUILD}/bin/lib${file}${CMAKE_SHARED_LIBRARY_SUFFIX}
    INTERFACE_INCLUDE_DIRECTORIES "${ARGN}")
endfunction()

# ggml/src for ggml-backend-impl.h, which a backend needs and no installation brings.
set(_ggml_include ${HYPURA_LLAMA_DIR}/ggml/include ${HYPURA_LLAMA_DIR}/ggml/src)
hypura_import(ggml_base ggml-base ${_ggml_include})
hypura_import(ggml_cpu ggml-cpu ${_ggml_include})
hypura_import(ggml ggml ${_ggml_include})
hypura_import(llama llama ${HYPURA_LLAMA_DIR}/include)
hypura_import(llama_common llama-common ${HYPURA_LLAMA_DIR}/common ${HYPURA_LLAMA_DIR}/vendor)
hypura_import(llama_server llama-server-impl)
hypura_import(mtmd mtmd ${HYPURA_LLAMA_DIR}/tools/mtmd)
set_property(TARGET hypura::ggml PROPERTY INTERFACE_LINK_LIBRARIES hypura::ggml_base hypura::ggml_cpu)
set_property(TARGET hypura::llama PROPERTY INTERFACE_LINK_LIBRARIES hypura::ggml)
set_property(TARGET hypura::llama_common PROPERTY INTERFACE_LINK_LIBRARIES hypura::llama)
set_property(TARGET hypura::mtmd PROPERTY INTERFACE_LINK_LIBRARIES hypura::llama)
set_property(TARGET hypura::llama_server PROPERTY INTERFACE_LINK_LIBRARIES hypura::llama_common)

set(HYPURA_LLAMA_ARCHS ${HYPURA_LLAMA_BUILD}/bin/test-llama-archs)
set(HYPURA_BACKEND_OPS ${HYPURA_LLAMA_BUILD}/bin/test-backend-ops)
set(HYPURA_LLAMA_BENCH ${HYPURA_LLAMA_BUILD}/bin/llama-bench)

# Part of "all" with the tests, but not of hypura: running a model does not wait for them.
if(HYPURA_TESTS AND _llama_script)
  add_custom_target(llama_test_programs ALL
    COMMAND ${_llama_script} test-llama-archs test-backend-ops llama-bench
    BYPRODUCTS ${HYPURA_LLAMA_ARCHS} ${HYPURA_BACKEND_OPS} ${HYPURA_LLAMA_BENCH}
    COMMENT "llama.cpp's test programs" USES_TERMINAL VERBATIM)
endif()
