# Finds the pinned llama.cpp, built once into the user's cache, as imported targets:
#   hypura::llama  hypura::ggml  hypura::ggml_cpu  hypura::llama_common
set(HYPURA_LLAMA_DIR "/tmp/w/src/llama.cpp" CACHE PATH "llama.cpp source tree")
set(HYPURA_LLAMA_BUILD "/tmp/w/bld" CACHE PATH "llama.cpp build tree")

function(hypura_import name file)
  add_library(hypura::${name} SHARED IMPORTED GLOBAL)
  set_target_properties(hypura::${name} PROPERTIES
    IMPORTED_LOCATION ${HYPURA_LLAMA_BUILD}/bin/lib${file}.so
    INTERFACE_INCLUDE_DIRECTORIES "${ARGN}")
endfunction()

set(_ggml_include ${HYPURA_LLAMA_DIR}/ggml/include ${HYPURA_LLAMA_DIR}/ggml/src)
hypura_import(ggml_base ggml-base ${_ggml_include})
hypura_import(ggml_cpu ggml-cpu ${_ggml_include})
hypura_import(ggml ggml ${_ggml_include})
hypura_import(llama llama ${HYPURA_LLAMA_DIR}/include)
hypura_import(llama_common llama-common ${HYPURA_LLAMA_DIR}/common ${HYPURA_LLAMA_DIR}/vendor)
set_property(TARGET hypura::ggml PROPERTY INTERFACE_LINK_LIBRARIES hypura::ggml_base hypura::ggml_cpu)
set_property(TARGET hypura::llama PROPERTY INTERFACE_LINK_LIBRARIES hypura::ggml)
set_property(TARGET hypura::llama_common PROPERTY INTERFACE_LINK_LIBRARIES hypura::llama)
