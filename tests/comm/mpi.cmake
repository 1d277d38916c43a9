# The communicator over MPI, as processes; skipped, and counted, where MPI is not.
if(TARGET atmanrl::mpi)
  add_executable(mpi_program comm/mpi_program.cpp)
  target_link_libraries(mpi_program PRIVATE atmanrl_program atmanrl::mpi)
  target_include_directories(mpi_program PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}")
  set(mpirun ${MPIEXEC_EXECUTABLE})
  execute_process(COMMAND ${MPIEXEC_EXECUTABLE} --version OUTPUT_VARIABLE version ERROR_VARIABLE version)
  if(version MATCHES "Open ?MPI|OpenRTE|PRRTE")  # which counts cores, and does not like root
    list(APPEND mpirun --allow-run-as-root --oversubscribe)
  endif()
  set(mpi_test ${Python3_EXECUTABLE} -B "${CMAKE_CURRENT_SOURCE_DIR}/comm/mpi_test.py")
  foreach(ranks 1 2 3 4)
    add_test(NAME comm.mpi.${ranks} COMMAND ${mpi_test} checks --ranks ${ranks} $<TARGET_FILE:mpi_program> ${mpirun})
  endforeach()
  foreach(ranks 1 3)
    add_test(NAME comm.mpi.faults_of_${ranks}
             COMMAND ${mpi_test} faults --ranks ${ranks} $<TARGET_FILE:mpi_program> ${mpirun})
    list(APPEND faults comm.mpi.faults_of_${ranks})
  endforeach()
  # Their ranks look for messages all the time, and a time limit is part of the tests of faults.
  set_tests_properties(comm.mpi.1 comm.mpi.2 comm.mpi.3 comm.mpi.4 ${faults} PROPERTIES PROCESSORS 2 TIMEOUT 400)
  # Whole runs by the example programs.
  set(mpi_run_test ${Python3_EXECUTABLE} -B "${CMAKE_CURRENT_SOURCE_DIR}/experiment/mpi_run_test.py")
  foreach(what bytes faults killed)
    add_test(NAME experiment.mpi.${what}
             COMMAND ${mpi_run_test} ${what} "${PROJECT_BINARY_DIR}/examples" "${CMAKE_CURRENT_BINARY_DIR}/mpi_${what}"
                     ${mpirun})
    # Most of their time is mpirun's beginning and end, so they may run beside others; first, for they are long.
    set_tests_properties(experiment.mpi.${what} PROPERTIES COST 900 TIMEOUT 900 SKIP_RETURN_CODE 77)
  endforeach()
else()
  add_test(NAME comm.mpi COMMAND sh -c "echo no MPI: skipped; exit 77")
  set_tests_properties(comm.mpi PROPERTIES SKIP_RETURN_CODE 77)
endif()
