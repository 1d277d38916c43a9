#!/bin/sh
# two_versions.sh COMPILER INCLUDE FOLDER: units with headers of one version link, of two versions they do not, and the
# linker says why; also where units are optimised together, and in a program beside a shared library.
set -eu
compiler=$1 include=$2 folder=$3
rm -rf "$folder"
mkdir -p "$folder/other/atmanrl/core"
cd "$folder"
if "$compiler" -dM -E -x c++ /dev/null | grep -q __clang__; then
  echo "clang++ notices nothing of it (atmanrl/core/config.hpp): skipped"
  exit 77
fi
sed 's/define ATMANRL_VERSION "[0-9.]*"/define ATMANRL_VERSION "9.9.9"/' "$include/atmanrl/core/config.hpp" \
  >other/atmanrl/core/config.hpp
grep -q '"9.9.9"' other/atmanrl/core/config.hpp
printf '#include <atmanrl/core/config.hpp>\nint answer();\nint main() { return answer(); }\n' >user.cpp
printf '#include <atmanrl/core/config.hpp>\nint answer() { return 0; }\n' >part.cpp

for optimised in "" -flto; do
  "$compiler" $optimised "-I$include" user.cpp part.cpp -o same
  ./same
  "$compiler" $optimised "-I$include" -c user.cpp -o user.o
  "$compiler" $optimised -fPIC -Iother -c part.cpp -o other.o
  if "$compiler" $optimised user.o other.o -o two 2>refused; then
    echo "headers of two versions link $optimised"
    exit 1
  fi
  grep 'atmanrl_headers_of_two_versions_in_one_program' refused
done
"$compiler" "-I$include" -c user.cpp -o user.o
"$compiler" -fPIC -Iother -c part.cpp -o other.o
"$compiler" -shared other.o -o libother.so && "$compiler" user.o -L. -lother -Wl,-rpath,. -o beside && ./beside
