# An overlay port: it takes the sources that it lies in, a checkout or an unpacked release, and downloads nothing.
#   vcpkg install atmanrl --overlay-ports=cmake/packages/vcpkg
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../../.." ABSOLUTE)
set(VCPKG_BUILD_TYPE release) # headers only: there is nothing to build twice,
set(VCPKG_FIXUP_ELF_RPATH OFF) # nor programs whose search paths would have to be mended, for which it downloads a tool
vcpkg_cmake_configure(SOURCE_PATH "${SOURCE_PATH}"
                      OPTIONS -DATMANRL_BUILD_COMPILED=OFF -DATMANRL_BUILD_TESTS=OFF -DATMANRL_BUILD_EXAMPLES=OFF
                              -DATMANRL_BUILD_BENCH=OFF -DATMANRL_CUDA=OFF)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH share/cmake/atmanrl)
file(INSTALL "${CMAKE_CURRENT_LIST_DIR}/usage" DESTINATION "${CURRENT_PACKAGES_DIR}/share/${PORT}")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
