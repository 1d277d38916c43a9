# Configures, builds and runs the mini project tests/consumer_<WAY>; unless it is a subdirectory there, the
# library is installed first: for find_package from its Debian package, where dpkg-deb can unpack it.
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
find_program(DPKG_DEB dpkg-deb)
if(WAY STREQUAL "find_package" AND DPKG_DEB)
  run(${CMAKE_COMMAND} -G "${GENERATOR}" -S "${SOURCE}" -B "${here}/package" ${options} -DATMANRL_BUILD_COMPILED=OFF
      -DATMANRL_BUILD_TESTS=OFF -DATMANRL_BUILD_EXAMPLES=OFF -DATMANRL_BUILD_BENCH=OFF -DATMANRL_CUDA=OFF)
  run(${CMAKE_COMMAND} --build "${here}/package" --target package --config "${CONFIG}")
  file(GLOB package "${here}/package/libatmanrl-dev_*_all.deb")
  run(${DPKG_DEB} --extract "${package}" "${here}/prefix")
  list(APPEND options "-Datmanrl_ROOT=${here}/prefix/usr")
elseif(NOT WAY STREQUAL "add_subdirectory")
  run(${CMAKE_COMMAND} --install "${BUILD}" --config "${CONFIG}" --prefix "${here}/prefix")
  list(APPEND options "-Datmanrl_ROOT=${here}/prefix")
else()
  list(APPEND options "-DATMANRL_SOURCE=${SOURCE}")
endif()
run(${CMAKE_COMMAND} -G "${GENERATOR}" -S "${SOURCE}/tests/consumer_${WAY}" -B "${here}/build" ${options})
run(${CMAKE_COMMAND} --build "${here}/build" --config "${CONFIG}")
run(${CMAKE_COMMAND} -E env "${here}/build/consumer")

if(WAY STREQUAL "compiled")
  execute_process(COMMAND ${CMAKE_COMMAND} --build "${here}/build" --config "${CONFIG}" --target other_version
                  RESULT_VARIABLE status OUTPUT_VARIABLE says ERROR_VARIABLE says)
  if(status EQUAL 0 OR NOT says MATCHES "undefined (reference|symbol).*atmanrl::v9_9_9::")
    message(FATAL_ERROR "headers of another version link with the library, or the linker does not say why: ${says}")
  endif()
endif()
