# The library's headers, read once for all units of a program (docs/compile_time.md).
#
#   atmanrl_precompile_headers(TARGET [HEADER...])
#
# precompiles the umbrella headers that are named, atmanrl/experiment.hpp where none is, and has every unit of the target
# begin with them. Another target with the same options takes what the first one made:
# target_precompile_headers(OTHER REUSE_FROM TARGET). With ccache, CCACHE_SLOPPINESS=pch_defines,time_macros must be set,
# or it compiles each time.
function(atmanrl_precompile_headers target)
  set(headers ${ARGN})
  if(NOT headers)
    set(headers atmanrl/experiment.hpp)
  endif()
  foreach(header IN LISTS headers)
    target_precompile_headers(${target} PRIVATE "<${header}>")
  endforeach()
endfunction()
