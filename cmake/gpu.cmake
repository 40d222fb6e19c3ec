# ggml's GPU backends, as modules beside libhypura. It loads those that lie there when a program asks for devices, so one
# program serves machines with any of these drivers, or with none.
#
#   HYPURA_VULKAN  HYPURA_CUDA  HYPURA_HIP  HYPURA_METAL
#   CMAKE_CUDA_ARCHITECTURES  the GPUs that CUDA's is built for, as CMake names them: "native" is this machine's. ggml builds
#                             for many when it is not given, which takes hours
#   HYPURA_GPU_VULKAN, ...   the module's file, built by the target gpu_vulkan, ...
#   HYPURA_GPU_MODULES       all of them
set(_linux OFF)
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  set(_linux ON)
endif()
set(_macos OFF)
if(APPLE)
  set(_macos ON)
endif()
option(HYPURA_VULKAN "GPUs of every vendor, through Vulkan" ${_linux})
option(HYPURA_CUDA "NVIDIA GPUs, through CUDA" OFF)
option(HYPURA_HIP "AMD GPUs, through ROCm" OFF)
option(HYPURA_METAL "Apple GPUs, through Metal" ${_macos})

set(HYPURA_GPU_MODULES)
foreach(_backend vulkan cuda hip metal)
  string(TOUPPER ${_backend} _option)
  if(NOT HYPURA_${_option})
    continue()
  endif()
  set(_gpu_options ${HYPURA_LLAMA_OPTIONS})
  if(_backend STREQUAL "cuda" AND CMAKE_CUDA_ARCHITECTURES)
    string(REPLACE ";" "," _gpu_architectures "${CMAKE_CUDA_ARCHITECTURES}")
    list(APPEND _gpu_options "-DCMAKE_CUDA_ARCHITECTURES=${_gpu_architectures}")
  endif()
  set(_gpu_script ${CMAKE_COMMAND} -E env CC=${HYPURA_LLAMA_CC} CXX=${HYPURA_LLAMA_CXX}
    ${CMAKE_SOURCE_DIR}/scripts/gpu.sh --source ${HYPURA_LLAMA_DIR} ${_gpu_options})
  execute_process(COMMAND ${_gpu_script} --where ${_backend}
    OUTPUT_VARIABLE _module OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE _failed)
  if(_failed OR NOT _module MATCHES "^module=(.+)$")
    message(FATAL_ERROR "no place for ggml's ${_backend} backend; see the messages above")
  endif()
  set(_module ${CMAKE_MATCH_1})
  set(_beside ${CMAKE_BINARY_DIR}/libggml-${_backend}.so)
  set(HYPURA_GPU_${_option} ${_module})
  list(APPEND HYPURA_GPU_MODULES ${_module})
  # Minutes when it is new to this machine, and beside everything else that is built.
  add_custom_target(gpu_${_backend} ALL
    COMMAND ${_gpu_script} ${_backend}
    COMMAND ${CMAKE_COMMAND} -E create_symlink ${_module} ${_beside}
    BYPRODUCTS ${_beside}
    COMMENT "ggml's ${_backend} backend" VERBATIM)
endforeach()
