# Fuzz targets (docs/reliability.md): one program that clang compiles with libFuzzer, whatever compiles the rest.
set(fuzz_targets answer chat checkpoint config csv generation_config gguf jsonl llama2c peft safetensors tokenizer_json utf8)
set(ATMANRL_FUZZ_SECONDS 10 CACHE STRING "Seconds of each fuzz target in the tests")

set(fuzz_dir "${CMAKE_CURRENT_BINARY_DIR}/fuzz")
set(fuzzer_works NO)
if(ATMANRL_CLANG)
  file(CONFIGURE OUTPUT fuzz/probe.cpp @ONLY CONTENT [[
#include <cstddef>
#include <cstdint>
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const*, std::size_t) { return 0; }
]])
  execute_process(COMMAND ${ATMANRL_CLANG} -std=c++20 -fsanitize=fuzzer,address,undefined "${fuzz_dir}/probe.cpp"
                          -o "${fuzz_dir}/probe"
                  RESULT_VARIABLE built OUTPUT_QUIET ERROR_QUIET)
  if(built EQUAL 0)
    execute_process(COMMAND "${fuzz_dir}/probe" -runs=1 RESULT_VARIABLE ran OUTPUT_QUIET ERROR_QUIET)
    if(ran EQUAL 0)
      set(fuzzer_works YES)
    endif()
  endif()
endif()

if(NOT fuzzer_works)
  foreach(target IN LISTS fuzz_targets)
    add_test(NAME fuzz.${target}
             COMMAND sh -c "echo 'no clang++ with libFuzzer (Debian: clang, libclang-rt-dev): skipped'; exit 77")
    set_tests_properties(fuzz.${target} PROPERTIES SKIP_RETURN_CODE 77)
  endforeach()
  return()
endif()

set(fuzz_checks -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all -D_GLIBCXX_ASSERTIONS)
function(atmanrl_add_fuzz_program name)
  add_custom_command(
    OUTPUT "${fuzz_dir}/${name}.o"
    COMMAND ${CMAKE_CXX_COMPILER_LAUNCHER} ${ATMANRL_CLANG} -std=c++20 -g1 -Wall -Wextra ${fuzz_checks} ${ARGN}
            "-I$<JOIN:$<TARGET_PROPERTY:two_units,INCLUDE_DIRECTORIES>,;-I>" "-I${CMAKE_CURRENT_SOURCE_DIR}"
            "$<$<BOOL:$<TARGET_PROPERTY:two_units,COMPILE_DEFINITIONS>>:-D$<JOIN:$<TARGET_PROPERTY:two_units,COMPILE_DEFINITIONS>,;-D>>"
            "-DATMANRL_FIXTURES=\"${CMAKE_CURRENT_SOURCE_DIR}/fixtures\"" -MD -MF "${fuzz_dir}/${name}.d"
            -c "${CMAKE_CURRENT_SOURCE_DIR}/fuzz/all.cpp" -o "${fuzz_dir}/${name}.o"
    DEPENDS fuzz/all.cpp DEPFILE "${fuzz_dir}/${name}.d" COMMAND_EXPAND_LISTS VERBATIM)
  add_custom_command(
    OUTPUT "${fuzz_dir}/${name}"
    COMMAND ${ATMANRL_CLANG} -fsanitize=fuzzer ${fuzz_checks} "${fuzz_dir}/${name}.o" -o "${fuzz_dir}/${name}"
            $<TARGET_LINKER_FILE:fmt::fmt> $<TARGET_LINKER_FILE:PCRE2::PCRE2> $<TARGET_LINKER_FILE:utf8proc::utf8proc>
            $<TARGET_LINKER_FILE:xxHash::xxHash> -pthread
    DEPENDS "${fuzz_dir}/${name}.o" COMMAND_EXPAND_LISTS VERBATIM)
endfunction()

# What the tests run sees every comparison, and so finds its way past magic numbers and names; what the long run uses
# does not, and is three times as fast. Undefined behaviour ends it without a sentence; the other program has one.
atmanrl_add_fuzz_program(fuzz -O1 -fsanitize=fuzzer-no-link)
atmanrl_add_fuzz_program(fuzz_fast -O2 -fsanitize-coverage=inline-8bit-counters,pc-table
                         -fsanitize-trap=undefined,float-cast-overflow)
add_custom_target(fuzz ALL DEPENDS "${fuzz_dir}/fuzz")
add_custom_target(fuzz_fast DEPENDS "${fuzz_dir}/fuzz_fast")
foreach(target IN LISTS fuzz_targets)
  add_test(NAME fuzz.${target} COMMAND bash "${CMAKE_CURRENT_SOURCE_DIR}/fuzz/run.sh" "${fuzz_dir}/fuzz" ${target}
                                       ${ATMANRL_FUZZ_SECONDS})
endforeach()
