"""What the documents hold that can be checked: blocks of code, commands, inline code, links and headings."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import ROOT

# In front of a block of Python that the tests run.
RUNS = "<!-- runs -->"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_VARIABLE = re.compile(r"[A-Z_]+=\S*")
# A program of the environment may be called by its path.
_PATH = ".venv/bin/"
_PROGRAMS = ("python", "shardfeed", "torchrun", "make", "sbatch", "pip", "pytest", "accelerate")


@dataclass(frozen=True)
class Block:
    """A fenced block. `line`: of its first line in the document, from 1; `runs`: whether it is marked to be run."""

    line: int
    language: str
    text: str
    runs: bool


@dataclass(frozen=True)
class Command:
    """One command line. `whole`: it stands in a block, to be copied, and not in a sentence."""

    line: int
    text: str
    whole: bool

    @property
    def words(self) -> list[str]:
        """The words as a shell would split them, without variables in front and without a comment."""
        words = [word.removeprefix(_PATH) for word in shlex.split(self.text, comments=True)]
        while _VARIABLE.fullmatch(words[0]):
            words = words[1:]
        return words


def blocks(document: Path) -> list[Block]:
    """The fenced blocks of a document, in order."""
    text = document.read_text()
    return [
        Block(
            line=text.count("\n", 0, match.start(2)) + 1,
            language=match[1],
            text=match[2],
            runs=text[: match.start()].rstrip().endswith(RUNS),
        )
        for match in _FENCE.finditer(text)
    ]


def inline_code(document: Path) -> Iterator[tuple[int, str]]:
    """The code between backticks in sentences, each with its line."""
    text = _prose(document)
    for match in _INLINE.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, " ".join(match[1].split())


def commands(document: Path) -> Iterator[Command]:
    """Every command line of a document, in its blocks and its sentences."""
    for block in blocks(document):
        if block.language in ("", "sh", "bash", "console"):
            joined = re.sub(r"\\\n", "  ", block.text)
            for number, line in enumerate(joined.splitlines(), block.line):
                if _is_command(line):
                    yield Command(number, line.strip(), whole=True)
    for number, code in inline_code(document):
        if _is_command(code):
            yield Command(number, code, whole=False)


def links(document: Path) -> list[str]:
    """The targets of a document's links."""
    return _LINK.findall(_prose(document))


def anchors(document: Path) -> set[str]:
    """What links can name in a document: its headings as GitHub writes them."""
    titles = (re.sub(r"[^\w\- ]", "", title.lower()) for title in _HEADING.findall(_prose(document)))
    return {title.strip().replace(" ", "-") for title in titles}


def _prose(document: Path) -> str:
    """A document without its blocks, which leave their empty lines behind."""
    return _FENCE.sub(lambda match: "\n" * match[0].count("\n"), document.read_text())


def _is_command(line: str) -> bool:
    words = line.split()
    while words and _VARIABLE.fullmatch(words[0]):
        words = words[1:]
    return len(words) > 1 and words[0].removeprefix(_PATH) in _PROGRAMS
