"""What the documents hold that can be checked: blocks of code, commands, inline code, links and headings."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests import ROOT

# In front of a block of Python that the tests run.
RUNS = "<!-- runs -->"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_VARIABLE = re.compile(r"[A-Z_]+=\S*")
# A program of the environment may be called by its path.
_PATH = ".venv/bin/"
_COMMANDS = ("python", "torchrun", "make", "sbatch", "pip", "pytest", "source", "hf", "git")


@dataclass(frozen=True)
class Block:
    """A fenced block. `line`: of its first line in the document, from 1; `runs`: whether it is marked to be run."""

    document: Path
    line: int
    language: str
    text: str
    runs: bool


@dataclass(frozen=True)
class Command:
    """One command line. `whole`: it stands in a block, to be copied, and not in a sentence."""

    place: str
    text: str
    whole: bool


def documents() -> list[Path]:
    """Every document of the project, the README first."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@cache
def text_of(document: Path) -> str:
    return document.read_text()


def blocks(document: Path) -> list[Block]:
    """The fenced blocks of a document, in order."""
    text = text_of(document)
    return [
        Block(
            document=document,
            line=text.count("\n", 0, match.start(2)) + 1,
            language=match[1],
            text=match[2],
            runs=text[: match.start()].rstrip().endswith(RUNS),
        )
        for match in _FENCE.finditer(text)
    ]


def prose(document: Path) -> str:
    """A document without its blocks, which leave their empty lines behind."""
    return _FENCE.sub(lambda match: "\n" * match[0].count("\n"), text_of(document))


def inline_code(document: Path) -> Iterator[tuple[str, str]]:
    """What stands between backticks in sentences, each with its place."""
    text = prose(document)
    for match in _INLINE.finditer(text):
        yield _place(document, text.count("\n", 0, match.start()) + 1), " ".join(match[1].split())


def commands(document: Path) -> Iterator[Command]:
    """Every command line of a document, of its blocks and of its sentences."""
    for block in blocks(document):
        if block.language in ("", "sh", "bash", "console"):
            joined = re.sub(r"\\\n", "  ", block.text)
            for number, line in enumerate(joined.splitlines(), block.line):
                if _is_command(line):
                    yield Command(_place(document, number), line.strip(), whole=True)
    for number, line in enumerate(prose(document).splitlines(), 1):
        if line.startswith("    ") and _is_command(line):  # a block without a fence
            yield Command(_place(document, number), line.strip(), whole=True)
    for place, code in inline_code(document):
        if _is_command(code):
            yield Command(place, code, whole=False)


def words_of(command: str) -> list[str]:
    """The words of a command line as a shell would split it, without its comment."""
    return [word.removeprefix(_PATH) for word in shlex.split(command, comments=True)]


def links(document: Path) -> Iterator[tuple[str, str]]:
    """The targets of a document's links, each with its place."""
    text = prose(document)
    for match in _LINK.finditer(text):
        yield _place(document, text.count("\n", 0, match.start()) + 1), match[1]


def anchors(document: Path) -> set[str]:
    """What links can name in a document: its headings as GitHub writes them."""
    titles = (re.sub(r"[^\w\- ]", "", match[1].lower()) for match in _HEADING.finditer(prose(document)))
    return {title.strip().replace(" ", "-") for title in titles}


def _is_command(line: str) -> bool:
    words = line.split()
    while words and _VARIABLE.fullmatch(words[0]):
        words = words[1:]
    return len(words) > 1 and words[0].removeprefix(_PATH) in _COMMANDS


def _place(document: Path, line: int) -> str:
    return f"{document.relative_to(ROOT)}:{line}"
