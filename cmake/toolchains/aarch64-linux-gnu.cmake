# Programs for 64-bit Arm, compiled on another machine by Debian's g++-aarch64-linux-gnu and run by qemu-user.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
# All that the newest processor has; static, so that no library of that architecture need be installed.
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -cpu max)
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
