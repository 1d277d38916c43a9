# Configures, builds and runs the mini project tests/consumer_<WAY>; unless it is a subdirectory there, the
# library is installed first.
set(here "${BUILD}/consumer_${WAY}")
file(REMOVE_RECURSE "${here}")

function(run)
  execute_process(COMMAND ${ARGV} COMMAND_ECHO STDOUT RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    list(JOIN ARGV " " command)
    message(FATAL_ERROR "failed (${status}): ${command}")
  endif()
endfunction()

set(options "-DCMAKE_BUILD_TYPE=${CONFIG}" "-DCMAKE_CXX_COMPILER=${COMPILER}"
            "-DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER}" "-DCMAKE_CXX_FLAGS=-O0")
if(NOT WAY STREQUAL "add_subdirectory")
  run(${CMAKE_COMMAND} --install "${BUILD}" --config "${CONFIG}" --prefix "${here}/prefix")
  list(APPEND options "-Datmanrl_ROOT=${here}/prefix")
else()
  list(APPEND options "-DATMANRL_SOURCE=${SOURCE}")
endif()
run(${CMAKE_COMMAND} -G "${GENERATOR}" -S "${SOURCE}/tests/consumer_${WAY}" -B "${here}/build" ${options})
run(${CMAKE_COMMAND} --build "${here}/build" --config "${CONFIG}")
run(${CMAKE_COMMAND} -E env "${here}/build/consumer")
