#!/bin/sh
# two_versions.sh COMPILER INCLUDE FOLDER: units with headers of two versions, in which a class has another layout, link
# into one program and each call functions of their own; an object of one version handed to a unit of the other does not
# link, and the linker says of which version it is.
set -eu
compiler=$1 include=$2 folder=$3
rm -rf "$folder"
mkdir -p "$folder/other/atmanrl/core"
cd "$folder"
sed -e 's/define ATMANRL_VERSION "[0-9.]*"/define ATMANRL_VERSION "9.9.9"/' -e 's/define ATMANRL_ABI v.*/define ATMANRL_ABI v9_9_9/' \
  "$include/atmanrl/core/config.hpp" >other/atmanrl/core/config.hpp
grep -q '"9.9.9"' other/atmanrl/core/config.hpp
grep -q ' v9_9_9$' other/atmanrl/core/config.hpp
sed 's/^  char32_t code = 0;.*/&\n  char32_t added[64] = {};/' "$include/atmanrl/core/utf8.hpp" >other/atmanrl/core/utf8.hpp
grep -q 'added' other/atmanrl/core/utf8.hpp
cat >user.cpp <<'CODE'
#include <atmanrl/core/utf8.hpp>
int difference_there(char const*);
int main(int, char** arguments) {
  auto const unit = atmanrl::next_utf8(arguments[0]);
  return int(unit.length) - 1 + (sizeof unit < 64 ? difference_there(arguments[0]) : 1);
}
CODE
cat >part.cpp <<'CODE'
#include <atmanrl/core/utf8.hpp>
int difference_there(char const* text) {
  auto const unit = atmanrl::next_utf8(text);
  return int(unit.length) - 1 + (sizeof unit > 256 ? 0 : 1);
}
CODE
printf '#include <atmanrl/core/utf8.hpp>\nint length(atmanrl::utf8_unit const&);\nint main() { return length({}); }\n' >hands_on.cpp
printf '#include <atmanrl/core/utf8.hpp>\nint length(atmanrl::utf8_unit const& unit) { return int(unit.length); }\n' >takes.cpp

printf 'int main() {}\n' >nothing.cpp
together="-O2 -flto"  # clang's needs a linker that takes its plugin
"$compiler" $together nothing.cpp -o nothing || together=
for optimised in -O0 ${together:+"$together"}; do
  for source in user hands_on takes; do
    "$compiler" -std=c++20 $optimised "-I$include" -c $source.cpp -o $source.o
  done
  "$compiler" $optimised hands_on.o takes.o -o same
  ./same
  "$compiler" -std=c++20 $optimised -Iother "-I$include" -c part.cpp -o part.o
  "$compiler" $optimised user.o part.o -o two
  ./two
  "$compiler" -std=c++20 $optimised -Iother "-I$include" -c takes.cpp -o takes.o
  if "$compiler" $optimised hands_on.o takes.o -o across 2>refused; then
    echo "an object of one version is taken by a unit of another, $optimised"
    exit 1
  fi
  grep -E "undefined (reference to|symbol:?) .*atmanrl::v[0-9]+_[0-9]+_[0-9]+::utf8_unit" refused
done
