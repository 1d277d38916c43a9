# A Debian package of the headers and their CMake package, for every architecture: cmake --preset package && cmake --build
# --preset package. What a program is compiled for is the business of its own build, so nothing compiled is in it.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME libatmanrl-dev)
set(CPACK_PACKAGE_VENDOR "The atmanrl authors")
set(CPACK_PACKAGE_CONTACT "The atmanrl authors <authors@atmanrl.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "reinforcement learning with differentiable attention saliency (headers)")
set(CPACK_PACKAGE_DESCRIPTION
    "atmanrl finds out whether a language model's chain of thought carries its
answer, and trains against the opposite: attention masks that are optimised
through the frozen model, rewards made of them, and a GRPO trainer.
This package has the headers and the files for find_package(atmanrl).")
set(CPACK_RESOURCE_FILE_LICENSE "${PROJECT_SOURCE_DIR}/LICENSE")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE all)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "libeigen3-dev (>= 3.4), libfmt-dev (>= 9), nlohmann-json3-dev (>= 3.10), \
libpcre2-dev, libutf8proc-dev, libxxhash-dev (>= 0.8)")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "g++ (>= 4:12), cmake (>= 3.24)")
set(ATMANRL_DOC_DIR "${CMAKE_INSTALL_DATADIR}/doc/libatmanrl-dev")
install(FILES "${PROJECT_SOURCE_DIR}/cmake/packages/copyright" DESTINATION "${ATMANRL_DOC_DIR}" COMPONENT deb
        EXCLUDE_FROM_ALL)
file(ARCHIVE_CREATE OUTPUT "${PROJECT_BINARY_DIR}/changelog.gz" PATHS "${PROJECT_SOURCE_DIR}/CHANGELOG.md" FORMAT raw
     COMPRESSION GZip COMPRESSION_LEVEL 9)
install(FILES "${PROJECT_BINARY_DIR}/changelog.gz" DESTINATION "${ATMANRL_DOC_DIR}" COMPONENT deb EXCLUDE_FROM_ALL)
# What `cmake --install` installs, and that.
set(CPACK_INSTALL_CMAKE_PROJECTS "${PROJECT_BINARY_DIR};atmanrl;ALL;/" "${PROJECT_BINARY_DIR};atmanrl;deb;/")
include(CPack)
