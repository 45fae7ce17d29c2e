# Of llama.cpp, what skydraft uses: the library, and nothing of the servers, parsers and tools around it. Given to
# llama-cpp-python's build as -DCMAKE_PROJECT_INCLUDE: it forces the cache entry on, and a variable goes before it.
set(LLAMA_BUILD_COMMON OFF)
