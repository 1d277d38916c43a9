#!/usr/bin/env python3
"""Runs mpi_program under mpirun: mpi_test.py checks|faults --ranks N PROGRAM MPIRUN [OPTIONS]...

checks: what holds for every communicator. faults: one rank fails in each of several ways, and all must end within 10
seconds, with an exit status that is not 0 and with the sentence, once.
"""
import argparse
import subprocess
import sys
import time

LIMIT = 10
# The fault, and what must be said; LAST is the last rank. None: the rank has no time to say anything.
FAULTS = {
    "throws_while_others_wait": "rank LAST: weights of rank LAST are truncated\n",
    "throws_while_others_compute": "rank LAST: an exception that is none of std::exception\n",
    "says_that_it_is_ill": "rank LAST: out of memory\n",
    "has_other_options": 'options: rank LAST differs from rank 0 from byte 7 on: it has "--seed 8" instead of "--seed 7"\n',
    "returns": "rank LAST has returned while rank 0 waits in all_gather\n",
    "makes_another_call": "rank LAST calls barrier where rank 0 calls all_gather: all ranks make the same calls in the same order\n",
    "sends_too_much": "exchange: rank LAST sends 16 bytes to rank 0, which expects 8\n",
    "knows_that_rank_0_speaks": "rank 0: for which rank 0 speaks\n",
    "is_killed": None,
}
OF_ONE_RANK = {"throws_while_others_wait", "throws_while_others_compute", "says_that_it_is_ill", "knows_that_rank_0_speaks",
               "is_killed"}


def run(options, ranks, what, limit):
    """Exit status, all text and seconds of a run."""
    began = time.monotonic()
    started = subprocess.Popen([*options.mpirun, "-n", str(ranks), options.program, what], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)
    try:
        text, _ = started.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        started.terminate()  # mpirun ends its ranks
        text, _ = started.communicate(timeout=30)
        return None, text, time.monotonic() - began
    return started.returncode, text, time.monotonic() - began


def checks(options):
    status, text, _ = run(options, options.ranks, "checks", 300)
    print(text, end="")
    return status != 0 or f"all checks passed on {options.ranks} ranks" not in text


def faults(options):
    failed = 0
    for what, sentence in FAULTS.items():
        if options.ranks == 1 and what not in OF_ONE_RANK:
            continue
        status, text, seconds = run(options, options.ranks, what, 60)
        wrong = []
        if status == 0:
            wrong.append("the exit status is 0")
        if seconds > LIMIT:
            wrong.append(f"more than {LIMIT} s")
        if sentence is not None:
            wanted = sentence.replace("LAST", str(options.ranks - 1))
            if text.count(wanted) != 1:
                wrong.append(f"{text.count(wanted)} times {wanted!r}")
        print(f"{what}: status {status}, {seconds:.1f} s{''.join(': ' + w for w in wrong)}")
        if wrong:
            print(text)
            failed += 1
    return failed > 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["checks", "faults"])
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("program")
    parser.add_argument("mpirun", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    return {"checks": checks, "faults": faults}[options.what](options)


if __name__ == "__main__":
    sys.exit(main())
