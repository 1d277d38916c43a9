#!/usr/bin/env python3
"""Makes a site of README.md, docs/ and the headers' doc comments, and checks every link in it.

    python3 docs/site/build.py [--out build/site] [--api off]

Pages are made by MkDocs with the Material theme, which a virtual environment below OUT gets from PyPI on the first run;
the reference by Doxygen (Debian: doxygen). OUT/html/index.html is where to begin. Exits with 77 where one of them
cannot be had, and with 1 where a page, an image or a heading that is linked to does not exist.
"""
import argparse
import html.parser
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
PACKAGES = ["mkdocs==1.6.1", "mkdocs-material==9.8.2"]


class cannot_be_had(Exception):
    pass


def mkdocs_of(out):
    """The mkdocs command of a virtual environment that has PACKAGES."""
    venv = out / "venv"
    stamp = venv / "installed"
    if not stamp.exists() or stamp.read_text() != "\n".join(PACKAGES):
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True, capture_output=True)
            subprocess.run([str(venv / "bin/pip"), "-q", "install", *PACKAGES], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as problem:
            raise cannot_be_had(f"{' '.join(PACKAGES)} cannot be installed: {getattr(problem, 'stderr', problem)}")
        stamp.write_text("\n".join(PACKAGES))
    return venv / "bin/mkdocs"


def lay_out_pages(pages):
    """Copies what is read; README.md becomes the first page, and links that leave docs/ lose their link."""
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(ROOT / "docs", pages, ignore=shutil.ignore_patterns("site", "*.json", "*.claim", "__pycache__"))
    readme = (ROOT / "README.md").read_text()
    (pages / "index.md").write_text(re.sub(r"\]\(docs/", "](", readme))
    shutil.copy(ROOT / "CONTRIBUTING.md", pages / "CONTRIBUTING.md")
    shutil.copy(ROOT / "CHANGELOG.md", pages / "CHANGELOG.md")
    for page in pages.rglob("*.md"):
        text = page.read_text()

        def link(match):
            shown, address = match.group(1), match.group(2)
            if "://" in address or address.startswith("#"):
                return match.group(0)
            file, _, heading = address.partition("#")
            if (page.parent / file).exists():
                return match.group(0)
            inside = re.sub(r"^(\.\./)+", "", file)  # ../CONTRIBUTING.md, for instance
            if (pages / inside).exists():
                up = "../" * len(page.relative_to(pages).parts[1:])
                return f"[{shown}]({up}{inside}{'#' + heading if heading else ''})"
            if (ROOT / "docs" / page.relative_to(pages).parent / file).exists() or (ROOT / inside).exists():
                return shown  # a file of the repository that is no page
            return match.group(0)  # a dead link; the check names it

        page.write_text(re.sub(r"\[([^\]\[]*(?:\[[^\]]*\][^\]\[]*)?)\]\(([^)\s]+)\)", link, text))


def unlink_missing_sections(reference):
    """Doxygen 1.9.4 lists sections ("Classes", "Concepts") at the top of pages on which it does not write them."""
    for page in reference.glob("*.html"):
        text = page.read_text(errors="replace")
        for section in re.findall(r'<a href="#([a-z-]+)">', text):
            if f'name="{section}"' not in text and f'id="{section}"' not in text:
                text = re.sub(rf'<a href="#{section}">([^<]*)</a>(?: &#124;)?', "", text)
                page.write_text(text)


class links_and_anchors(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.anchors = [], {"", "top"}

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        for name in ("id", "name"):
            if values.get(name):
                self.anchors.add(values[name])
        address = values.get({"a": "href", "link": "href", "img": "src", "script": "src", "iframe": "src"}.get(tag, ""))
        if address:
            self.links.append(address)


def dead_links(site):
    """`page: link` for each link of the site's pages that leads to no file or no anchor of the site."""
    parsed = {}

    def read(file):
        if file not in parsed:
            parsed[file] = links_and_anchors()
            parsed[file].feed(file.read_text(errors="replace"))
        return parsed[file]

    dead, looked_at = [], 0
    for page in sorted(site.rglob("*.html")):
        for address in read(page).links:
            where = urllib.parse.urlsplit(address)
            if where.scheme or where.netloc:
                continue
            looked_at += 1
            path = urllib.parse.unquote(where.path)
            if page.name == "404.html":  # it is shown at any address, so its links begin with a slash
                path = path.lstrip("/") or "index.html"
            target = page if not path else (page.parent / path).resolve()
            if target.is_dir():
                target = target / "index.html"
            if not target.is_file():
                dead.append(f"{page.relative_to(site)}: {address}: no such file")
            elif where.fragment and target.suffix == ".html":
                if urllib.parse.unquote(where.fragment) not in read(target).anchors:
                    dead.append(f"{page.relative_to(site)}: {address}: no such heading")
    return dead, looked_at


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=pathlib.Path, default=ROOT / "build/site")
    options.add_argument("--api", choices=["on", "off"], default="on", help="the reference made of doc comments")
    options.add_argument("--only-check", type=pathlib.Path, metavar="HTML", help="check the links of this folder, make nothing")
    given = options.parse_args()
    if given.only_check:
        site = given.only_check.resolve()
    else:
        out = given.out.resolve()
        out.mkdir(parents=True, exist_ok=True)
        site = out / "html"
        try:
            mkdocs = mkdocs_of(out)
            if given.api == "on" and not shutil.which("doxygen"):
                raise cannot_be_had("there is no doxygen")
        except cannot_be_had as problem:
            print(f"site: skipped: {problem}")
            return 77
        shutil.rmtree(site, ignore_errors=True)
        lay_out_pages(out / "pages")
        settings = (HERE / "mkdocs.yml").read_text()
        if given.api == "off":
            settings = "".join(line for line in settings.splitlines(True) if "api/" not in line)
        (out / "mkdocs.yml").write_text(settings)
        shutil.copytree(HERE / "style", out / "pages/style")
        subprocess.run([str(mkdocs), "build", "-q", "--strict", "-f", str(out / "mkdocs.yml"), "-d", str(site)],
                       check=True, env={"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1"})
        if given.api == "on":
            doxyfile = (HERE / "Doxyfile").read_text()
            doxyfile += f'\nINPUT = "{ROOT}/include/atmanrl" "{HERE}/reference.dox"\nSTRIP_FROM_PATH = "{ROOT}/include"\n'
            doxyfile += f'STRIP_FROM_INC_PATH = "{ROOT}/include"\nOUTPUT_DIRECTORY = "{site}"\n'
            doxyfile += f'HTML_EXTRA_STYLESHEET = "{HERE}/style/reference.css"\n'
            with open(out / "doxygen.log", "w") as log:
                subprocess.run(["doxygen", "-q", "-"], input=doxyfile, text=True, check=True, stderr=log)
            unlink_missing_sections(site / "api")
    dead, looked_at = dead_links(site)
    print("\n".join(dead + [f"site: {len(dead)} of {looked_at} links are dead"]))
    if looked_at == 0:
        print(f"site: {site} holds no link")
    return 1 if dead or looked_at == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
