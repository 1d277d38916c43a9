"""The loop of a worker: a line of JSON in, a line of JSON out, as bench/compare_atmanrl.cpp describes it."""

import json
import sys


def serve(prepare, forget):
    """
    prepare  takes a request and returns the case: a function of the output file's name ("" for none) that runs it once
             and returns the answer
    """
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print must not come between
    cases = {}
    for line in sys.stdin:
        request = json.loads(line)
        reply = {}
        if request["do"] == "prepare":
            case = prepare(request)
            cases[request["case"]] = case
            reply = getattr(case, "notes", {})
        elif request["do"] == "run":
            reply = cases[request["case"]](request.get("out", ""))
        else:
            cases.clear()
            forget()
        print(json.dumps(reply), file=answers, flush=True)
