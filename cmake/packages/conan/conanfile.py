"""Conan 2 recipe. It takes the sources that it lies in, a checkout or an unpacked release:

    conan create cmake/packages/conan                                       # dependencies from Conan's remotes
    conan create cmake/packages/conan -o "&:system_dependencies=True"       # those of the system; offline
"""
import pathlib

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load


class AtmanrlConan(ConanFile):
    name = "atmanrl"
    license = "Apache-2.0"
    description = "Reinforcement learning with differentiable attention saliency"
    topics = ("reinforcement-learning", "interpretability", "language-models", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"system_dependencies": [True, False]}
    default_options = {"system_dependencies": False}
    no_copy_source = True

    @property
    def checkout(self):
        return pathlib.Path(self.recipe_folder).resolve().parents[2]

    def set_version(self):
        head = load(self, str(self.checkout / "CMakeLists.txt")).split("project(atmanrl VERSION ")[1]
        self.version = head.split()[0]

    def export_sources(self):
        for pattern in ("CMakeLists.txt", "LICENSE", "CHANGELOG.md", "include/*", "cmake/*"):
            copy(self, pattern, str(self.checkout), self.export_sources_folder)

    def requirements(self):
        if not self.options.system_dependencies:
            for needed in ("eigen/3.4.0", "fmt/10.2.1", "nlohmann_json/3.11.3", "pcre2/10.42", "utf8proc/2.8.0",
                           "xxhash/0.8.2"):
                self.requires(needed, transitive_headers=True, transitive_libs=True)

    def validate(self):
        check_min_cppstd(self, 20)

    def package_id(self):
        self.info.clear()

    def layout(self):
        cmake_layout(self)

    def generate(self):
        toolchain = CMakeToolchain(self)
        for part in ("COMPILED", "TESTS", "EXAMPLES", "BENCH"):
            toolchain.cache_variables[f"ATMANRL_BUILD_{part}"] = False
        toolchain.cache_variables["ATMANRL_CUDA"] = "OFF"
        toolchain.generate()

    def package(self):
        copy(self, "LICENSE", self.source_folder, str(pathlib.Path(self.package_folder) / "licenses"))
        copy(self, "*", str(pathlib.Path(self.source_folder) / "include"),
             str(pathlib.Path(self.package_folder) / "include"))
        if self.options.system_dependencies:  # its own CMake package knows how to find them
            cmake = CMake(self)
            cmake.configure()
            cmake.install()

    def package_info(self):
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        if self.options.system_dependencies:
            self.cpp_info.set_property("cmake_find_mode", "none")
            self.cpp_info.builddirs = ["share/cmake/atmanrl"]
            return
        self.cpp_info.set_property("cmake_file_name", "atmanrl")
        self.cpp_info.set_property("cmake_target_name", "atmanrl::atmanrl")
        self.cpp_info.requires = ["eigen::eigen", "fmt::fmt", "nlohmann_json::nlohmann_json", "pcre2::pcre2-8",
                                  "utf8proc::utf8proc", "xxhash::libxxhash"]
        if self.settings.os in ("Linux", "FreeBSD"):
            self.cpp_info.system_libs = ["pthread"]
