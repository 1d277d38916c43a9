# The communicator over MPI: targets that link atmanrl::mpi may include <atmanrl/comm/mpi.hpp>. The target is there where
# MPI is, and is never installed, so that projects without MPI do not look for it.

# Adds atmanrl::mpi if MPI is found, and sets MPIEXEC_EXECUTABLE.
macro(atmanrl_add_mpi)
  # The component CXX for want of the language C in this project; what is used is MPI's C interface, and without this
  # <mpi.h> would bring the C++ one of 2012, too.
  set(MPI_CXX_SKIP_MPICXX TRUE)
  find_package(MPI 3.0 QUIET COMPONENTS CXX)
  if(MPI_CXX_FOUND AND NOT TARGET atmanrl::mpi)
    add_library(atmanrl::mpi INTERFACE IMPORTED GLOBAL)
    target_link_libraries(atmanrl::mpi INTERFACE atmanrl::atmanrl MPI::MPI_CXX)
    target_compile_definitions(atmanrl::mpi INTERFACE ATMANRL_MPI)
  endif()
endmacro()
