# What any clone has compiled before is taken from the user's cache, where ccache is installed. A path inside of the clone
# counts as seen from its build folder, so that another clone's is the same.
#
#   HYPURA_CCACHE   OFF compiles everything anew; so does a launcher that is given, CMAKE_C_COMPILER_LAUNCHER
option(HYPURA_CCACHE "keep what was compiled in the user's cache, with ccache" ON)
find_program(HYPURA_CCACHE_PROGRAM ccache)
if(HYPURA_CCACHE AND HYPURA_CCACHE_PROGRAM AND NOT CMAKE_C_COMPILER_LAUNCHER AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  execute_process(COMMAND bash -c ". '${CMAKE_SOURCE_DIR}/scripts/common.sh' && printf %s \"$cache\""
    OUTPUT_VARIABLE _cache RESULT_VARIABLE _failed)
  if(_failed)
    message(FATAL_ERROR "no folder to keep what was compiled in; see the messages above, or give -DHYPURA_CCACHE=OFF")
  endif()
  # One build takes 8 MB of it.
  set(CMAKE_C_COMPILER_LAUNCHER env CCACHE_DIR=${_cache}/ccache CCACHE_MAXSIZE=500M CCACHE_BASEDIR=${CMAKE_SOURCE_DIR}
    ${HYPURA_CCACHE_PROGRAM})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_C_COMPILER_LAUNCHER})
  message(STATUS "compiled files are kept in ${_cache}/ccache")
endif()
