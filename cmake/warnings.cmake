# hypura_layer(NAME SOURCES...): one folder of src/ as an object library. hypura_once(NAME): what runs there runs for a request, a
# command or a model, not for each read or node of a graph: more than -O1 would be seen in the compiler's time alone.
add_library(hypura_warnings INTERFACE)
target_compile_options(hypura_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:C>:-Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes
    -Werror=implicit-function-declaration>
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra>)
target_compile_definitions(hypura_warnings INTERFACE _FILE_OFFSET_BITS=64
  $<$<NOT:$<PLATFORM_ID:Darwin>>:_GNU_SOURCE>)
target_include_directories(hypura_warnings INTERFACE ${CMAKE_SOURCE_DIR}/include ${CMAKE_SOURCE_DIR}/src)

function(hypura_layer name)
  add_library(hypura_${name} OBJECT ${ARGN})
  set_target_properties(hypura_${name} PROPERTIES C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden)
  target_link_libraries(hypura_${name} PRIVATE hypura_warnings Threads::Threads)
endfunction()

function(hypura_once name)
  target_compile_options(hypura_${name} PRIVATE $<$<CONFIG:Release>:-O1>)
endfunction()
