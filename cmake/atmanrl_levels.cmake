# Programs that run the kernels of the processor that they are on (docs/processors.md): x86-64 alone.
#
#   atmanrl_add_program_of_levels(NAME SOURCES FILE... [LIBRARIES TARGET...] [COMPILED] [INSTALL] [LEVELS LEVEL...])
#
# adds one executable for each level, NAME_LEVEL, in libexec/atmanrl/LEVEL/, and NAME, in bin/, which begins the best
# one that the processor has; both folders lie in the current build folder and, with INSTALL, below the prefix when the
# component `programs` is installed. With COMPILED each links what of the library is the same in every program, compiled
# for its level once (atmanrl_compiled_LEVEL): only where the library's sources are, which an installed one has not.
# ATMANRL_LEVELS says which levels there are where LEVELS does not.
set(ATMANRL_LEVELS "plain;avx2;avx512;avx512_bf16" CACHE STRING "Levels of programs of several levels")

# Sets `variable` to the compiler's options of a level.
function(atmanrl_flags_of_level level variable)
  set(plain -march=x86-64)
  set(avx2 -march=x86-64-v3)
  set(avx512 -march=x86-64-v4)
  set(avx512_bf16 -march=x86-64-v4 -mavx512bf16 -mavx512vnni)
  if(NOT level MATCHES "^(plain|avx2|avx512|avx512_bf16)$")
    message(FATAL_ERROR "atmanrl: there is no level ${level}, but plain, avx2, avx512 and avx512_bf16")
  endif()
  set(${variable} ${${level}} PARENT_SCOPE)
endfunction()

function(atmanrl_add_compiled_of_level level)
  set(target atmanrl_compiled_${level})
  if(NOT TARGET ${target})
    set(from "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/compiled")
    atmanrl_flags_of_level(${level} flags)
    add_library(${target} STATIC EXCLUDE_FROM_ALL "${from}/functions.cpp" "${from}/templates.cpp")
    target_link_libraries(${target} PUBLIC atmanrl::atmanrl)
    target_compile_definitions(${target} PUBLIC ATMANRL_COMPILED)
    target_compile_options(${target} PRIVATE ${flags})
  endif()
endfunction()

function(atmanrl_add_program_of_levels name)
  cmake_parse_arguments(PARSE_ARGV 1 of "COMPILED;INSTALL" "" "SOURCES;LIBRARIES;LEVELS")
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    message(FATAL_ERROR "atmanrl: programs of several levels are there for x86-64, not for ${CMAKE_SYSTEM_PROCESSOR}")
  endif()
  if(NOT of_LEVELS)
    set(of_LEVELS ${ATMANRL_LEVELS})
  endif()
  add_executable(${name} "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/levels/launcher.cpp")
  target_link_libraries(${name} PRIVATE atmanrl::atmanrl)
  target_compile_options(${name} PRIVATE -march=x86-64)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/bin")
  if(of_INSTALL)
    install(TARGETS ${name} DESTINATION bin COMPONENT programs EXCLUDE_FROM_ALL)
  endif()
  foreach(level IN LISTS of_LEVELS)
    atmanrl_flags_of_level(${level} flags)
    set(target ${name}_${level})
    add_executable(${target} ${of_SOURCES})
    target_link_libraries(${target} PRIVATE atmanrl::atmanrl ${of_LIBRARIES})
    if(of_COMPILED)
      atmanrl_add_compiled_of_level(${level})
      target_link_libraries(${target} PRIVATE atmanrl_compiled_${level})
    endif()
    target_compile_options(${target} PRIVATE ${flags})
    set_target_properties(${target} PROPERTIES OUTPUT_NAME ${name} RUNTIME_OUTPUT_DIRECTORY
                          "${CMAKE_CURRENT_BINARY_DIR}/libexec/atmanrl/${level}")
    if(of_INSTALL)
      install(TARGETS ${target} DESTINATION libexec/atmanrl/${level} COMPONENT programs EXCLUDE_FROM_ALL)
    endif()
    add_dependencies(${name} ${target})
  endforeach()
endfunction()
