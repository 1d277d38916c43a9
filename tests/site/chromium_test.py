"""Opens pages in headless Chromium: what a browser makes of them, and whether it complains.

    chromium_test.py EXPERIMENT WORK [SITE]

EXPERIMENT is the program gsm8k_experiment, which makes a run whose page is looked at, in the folder WORK. SITE is the
folder that docs/site/build.py made; without it only the run's page and those of docs/results are opened. Exits with 77
where there is no Chromium.
"""
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def opened(browser, page, work):
    """The page's document after its scripts ran, and what the browser's console said."""
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr",
               f"--user-data-dir={work}/profile", "--virtual-time-budget=5000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return done.stdout, said


def main():
    browser = next((b for b in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if b), None)
    if not browser:
        print("chromium: skipped: there is no Chromium")
        return 77
    experiment, work = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    run = work / "run"
    subprocess.run([experiment, "--model", str(ROOT / "examples/models/tiny"), "--steps", "2", "--prompts-per-step", "2",
                    "--group-size", "2", "--mask-steps", "2", "--eval-questions", "2", "--eval-samples", "1",
                    "--out", str(run)], check=True, capture_output=True)

    # page, and what its document must hold: figures are drawn and words are there
    wanted = [(run / "report.html", [r"<svg", r"<polyline|<path", r"reward"])]
    wanted += [(page, [r"<svg|<table", r"re_enabled"]) for page in sorted((ROOT / "docs/results").rglob("page.html"))]
    site = pathlib.Path(sys.argv[3]).resolve() if len(sys.argv) > 3 else None
    if site and (site / "index.html").exists():
        wanted += [(site / "index.html", [r"md-nav", r"faithfulness\.html", r"Two commands"]),
                   (site / "faithfulness.html", [r"<table", r"edit_log_gradient"])]
        if (site / "api/index.html").exists():
            wanted.append((site / "api/index.html", [r"conceptatmanrl_1_1Task", r"atmanrl::grpo"]))

    faults = 0
    for page, needed in wanted:
        document, said = opened(browser, page, work)
        missing = [need for need in needed if not re.search(need, document)]
        for need in missing:
            print(f"chromium: {page.name}: the document has no {need}")
        for line in said:
            print(f"chromium: {page.name}: {line}")
        faults += len(missing) + len(said)
    print(f"chromium: {len(wanted)} pages, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
