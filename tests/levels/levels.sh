#!/bin/sh
# Which executable a program of several levels begins, and that its bits are those of that executable alone:
#   levels.sh PROGRAM
set -u
program=$1
levels=$(cd "$(dirname "$program")/../libexec/atmanrl" && pwd)
name=$(basename "$program")
unset ATMANRL_CPU
wrong=0
complain() {
  echo "$*"
  wrong=1
}
flags=$(sed -n '/^flags/{s/.*://;p;q}' /proc/cpuinfo)
has() {
  case " $flags " in *" $1 "*) return 0 ;; esac
  return 1
}

best=
for level in plain avx2 avx512 avx512_bf16; do
  needs=
  case $level in
    avx2) needs="avx2 fma bmi1 bmi2" ;;
    avx512) needs="avx512f avx512bw avx512cd avx512dq avx512vl" ;;
    avx512_bf16) needs="avx512f avx512bw avx512cd avx512dq avx512vl avx512_bf16 avx512_vnni" ;;
  esac
  there=1
  for flag in $needs; do has "$flag" || there=0; done
  got=$(ATMANRL_CPU=$level "$program" 2>notes.txt)
  status=$?
  if [ $there = 0 ]; then
    echo "$level: not on this processor, not run"
    [ $status = 2 ] && grep -q "ATMANRL_CPU is $level, but this processor has" notes.txt ||
      complain "$level was not refused: status $status, $(cat notes.txt)"
    continue
  fi
  best=$level
  alone=$("$levels/$level/$name" 2>/dev/null)
  echo "$got"
  [ $status = 0 ] && [ -n "$alone" ] && [ "$got" = "$alone" ] || complain "$level: \"$got\" ($status), alone \"$alone\""
  [ "${got%% *}" = "$level" ] || complain "$level was asked for, ${got%% *} ran"
  grep -q "^note: kernels for .* (ATMANRL_CPU=$level)" notes.txt || complain "$level: no note, but \"$(cat notes.txt)\""
done

chosen=$("$program" 2>notes.txt)
[ "${chosen%% *}" = "$best" ] || complain "without ATMANRL_CPU ${chosen%% *} ran, not $best"
grep -q "^note: kernels for .* (ATMANRL_CPU=$best)" notes.txt || complain "no note, but \"$(cat notes.txt)\""

ATMANRL_CPU=sse9 "$program" >output.txt 2>notes.txt
[ $? = 2 ] && grep -q "ATMANRL_CPU is sse9, but the levels of this program are: avx512_bf16, avx512, avx2, plain" notes.txt ||
  complain "sse9 was not refused: $(cat output.txt notes.txt)"

# Other processors, as an emulator has them. What is begun runs on this one.
if command -v qemu-x86_64 >/dev/null; then
  for pair in Nehalem:plain Haswell:avx2; do
    [ "$best" = plain ] && [ "$pair" != Nehalem:plain ] && continue
    got=$(qemu-x86_64 -cpu "${pair%%:*}" "$program" 2>/dev/null)
    [ "${got%% *}" = "${pair##*:}" ] || complain "${pair%%:*}: ${got%% *} ran, not ${pair##*:}"
  done
  ATMANRL_CPU=avx512 qemu-x86_64 -cpu Haswell "$program" >output.txt 2>notes.txt
  [ $? = 2 ] && grep -q "ATMANRL_CPU is avx512, but this processor has AVX2" notes.txt ||
    complain "Haswell: avx512 was not refused: $(cat output.txt notes.txt)"
else
  echo "no qemu-x86_64: other processors not tried"
fi
exit $wrong
