# For scripts/macos.sh: the compiler is not asked for what a file depends on, which is looked at by its own cache.
set(CMAKE_DEPFILE_FLAGS_C "")
set(CMAKE_DEPFILE_FLAGS_CXX "")
