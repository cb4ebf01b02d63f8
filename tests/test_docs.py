"""Commands in the documents parse, options exist, links and paths lead somewhere, Python runs. `make docs-check`

No command is run: each is parsed by the program that it calls. Python in the README, and blocks with `<!-- runs -->`
before them, are run on a small data set that stands for /data/imagenet.
"""

import ast
import dataclasses
import importlib.util
import re
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from model import build_model
from model.__main__ import main as model_main
from model.weights import About, save_weights
from shards.common.cli import parse
from shards.common.command import PROGRAMS
from shards.common.errors import UsageError
from shards.dataset import open_dataset
from shards.format.layout import Encoding
from shards.format.ppm import ppm
from shards.format.verify import verify
from tests import ROOT
from tests.conftest import decoded, jpeg, photo, write_split
from tests.helpers.docs import DOCUMENTS, Command, anchors, blocks, commands, inline_code, links
from tests.test_advice import commands as options_of_commands

# What documents write for a value of the reader's own.
PLACES = {"R": "cnn", "N": "1", "X": "1000", "i/n": "0/8"}
# Options of other programs that sentences name, and those that every command has; those of torchrun are known.
FOREIGN = {"--array", "--wrap", "--editable", "--extra-index-url", "--help", "--version", "--json", "--debug"}


def check(command: Command) -> None:
    """Raises UsageError, or fails, for a command that its program would refuse as a mistake."""
    words = command.words
    # What is left out in a sentence, or by dots, may be missing.
    partial = not command.whole or "..." in words
    words = [word for word in words if word != "..."]
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        for word in words[1:]:
            name, is_variable, _ = word.partition("=")
            pattern = rf"^{name} [?:]?=" if is_variable else rf"^{re.escape(name)}:"
            assert re.search(pattern, makefile, re.MULTILINE), f"the Makefile has no {name}"
    elif words[0] == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for extra in re.findall(r"shardfeed\[(\w+)\]", command.text):
            assert extra in project["optional-dependencies"], f"there is no extra [{extra}]"
    elif words[0] == "sbatch":
        for word in words:
            assert not word.endswith(".sh") or (ROOT / word).exists(), f"there is no {word}"
        if "--wrap" in words:
            check(dataclasses.replace(command, text=words[words.index("--wrap") + 1]))
    elif words[1] == "-c":
        ast.parse(words[2])
    elif script := next((word for word in words if word.endswith(".py")), None):
        assert (ROOT / script).exists(), f"there is no {script}"
        for word in words[words.index(script) + 1 :]:
            assert not word.startswith("--") or f'"{word}"' in (ROOT / script).read_text(), f"{script} has no {word}"
    elif "shardfeed" in words:
        _check_program(words[words.index("shardfeed") + 1 :], partial)
    else:
        _check_program(words[words.index("-m") + 1 :] if words[0] != "pytest" else words, partial)
    if words[0] == "torchrun":
        _torchrun().parse_args(words[1:])


def _check_program(words: list[str], partial: bool) -> None:
    """Checks the words behind `python -m` or `shardfeed`."""
    if partial and not words:
        return
    name, rest = words[0], words[1:]
    if name == "pytest":
        for word in rest:
            assert not word.startswith("tests/") or (ROOT / word.partition("::")[0]).exists(), f"there is no {word}"
        return
    if name.partition(".")[0] not in PROGRAMS or (partial and not rest):
        assert importlib.util.find_spec(name) is not None, f"there is no {name}"
        return
    values = [PLACES.get(word, re.sub(r"\$\{?\w+\}?", "0", word)) for word in rest if word != "--debug"]
    try:
        _parser(name)(values)
    except UsageError as error:
        if not (partial and str(error).startswith("missing")):
            raise
    except SystemExit as stop:  # --help
        if stop.code:
            raise


def _parser(name: str) -> Callable[[list[str]], object]:
    """Parses the command line of a program."""
    if name == "train":
        from train.__main__ import parse_config

        return parse_config
    if name.startswith("preprocess"):
        module = "preprocess.options" if name == "preprocess" else f"{name}.__main__"
        options = importlib.import_module(module).Options
        return lambda words: parse(options, words, name)
    known = importlib.import_module(f"{name}.__main__").COMMANDS

    def parser(words: list[str]) -> object:
        if words[0] not in known:
            raise UsageError(f"unknown command {words[0]!r}: choose one of {', '.join(known)}")
        return parse(known[words[0]].config, words[1:], words[0])

    return parser


@cache
def _torchrun() -> Any:
    from torch.distributed.run import get_args_parser

    return get_args_parser()


@cache
def known_options() -> frozenset[str]:
    """Every option of every command of ours, and of torchrun."""
    torchruns = {option for action in _torchrun()._actions for option in action.option_strings}
    return frozenset().union(*options_of_commands().values(), torchruns, FOREIGN)


@pytest.fixture(params=DOCUMENTS, ids=lambda path: path.name)
def document(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_each_command_is_one_that_its_program_takes(document: Path) -> None:
    wrong = []
    for command in commands(document):
        try:
            check(command)
        except (Exception, SystemExit) as error:
            wrong.append(f"{document.name}:{command.line} {command.text}: {error}")
    assert wrong == []


@pytest.mark.parametrize(
    "text",
    [
        "python -m train --data DIR --no-such-option 1",
        "shardfeed train --data DIR --recipe no-such-recipe",
        "torchrun --no-python shardfeed train --dota DIR",
        "python -m shards verify",
        "python -m shards nothing DIR",
        "python -m no_such_module",
        "python -m pytest tests/test_nothing.py",
        "OMP_WAIT_POLICY=PASSIVE python -m train --data DIR --batch-size many",
        "make nowhere",
        "make install DALY=cuda12",
        "pip install 'shardfeed[nothing]'",
        "sbatch docs/slurm/nothing.sh",
        "torchrun --standalone docs/examples/nothing.py --data DIR",
        "torchrun --standalone docs/examples/plain.py --dota DIR",
        "accelerate launch docs/examples/accelerate_script.py --dota DIR",
        "sbatch --array=0-7 --wrap 'python -m preprocess SOURCE'",
    ],
)
def test_a_wrong_command_is_found(text: str) -> None:
    with pytest.raises((UsageError, AssertionError)):
        check(Command(1, text, whole=True))


def test_options_in_sentences_exist(document: Path) -> None:
    named = [(line, word) for line, code in inline_code(document) for word in re.findall(r"(?<!\S)--[a-z][\w-]*", code)]
    assert [f"{document.name}:{line} {word}" for line, word in named if word not in known_options()] == []


def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for target in links(document):
        path, _, anchor = target.partition("#")
        there = (document.parent / path).resolve() if path else document
        if not re.match(r"[a-z]+:", target) and (not there.exists() or (anchor and anchor not in anchors(there))):
            broken.append(target)
    assert broken == []


def test_files_folders_and_tests_that_are_named_exist(document: Path) -> None:
    absent = []
    for line, code in inline_code(document):
        for path, name in re.findall(
            r"(?<![\w/.])((?:shards|preprocess|train|model|benchmarks|tests|docs)/[\w./-]*)(?:::(\w+))?", code
        ):
            if "NAME" in path:  # of a file that a reader is to write
                continue
            if not (ROOT / path).exists() or (name and f"def {name}(" not in (ROOT / path).read_text()):
                absent.append(f"{document.name}:{line} {code}")
    assert absent == []


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """256 training and 70 validation images of 256 pixels, of 8 pictures, in shards of 50."""
    root = tmp_path_factory.mktemp("imagenet")
    pictures = [jpeg(photo(256, 256 + 4 * i, seed=i)) for i in range(8)]
    parts = [
        write_split(root, [pictures[i % 8] for i in range(count)], short_side=256, shard_size=50, name=name).manifest
        for name, count in (("train", 256), ("validation", 70))
    ]
    splits = {name: info for part in parts for name, info in part.splits.items()}
    dataclasses.replace(parts[0], splits=splits).write(root)
    return root


def run(document: Path, data: Path) -> dict[str, Any]:
    """Compiles a document's Python, and runs what is marked, block after block; returns the names that it left."""
    names: dict[str, Any] = {"__name__": document.name}
    for block in blocks(document):
        if block.language == "python":
            text = "\n" * (block.line - 1) + block.text.replace("/data/imagenet", str(data))
            code = compile(text, str(document), "exec")
            if block.runs or document.name == "README.md":
                exec(code, names)
    return names


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files that documents speak of: weights of a run, exported ones, a photo."""
    directory = tmp_path_factory.mktemp("workplace")
    weights = directory / "Results" / "imagenet_trained_model.pth"
    save_weights(build_model("resnet18", 3), weights, About("resnet18", ("cat", "dog", "bird"), size=32, resize=36))
    assert model_main(["export", str(weights), "--output", str(directory / "model")]) == 0
    (directory / "photo.jpg").write_bytes(jpeg(photo(60, 80)))
    return directory


def test_python_runs(document: Path, imagenet: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    run(document, imagenet)


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_the_reader_of_the_format_reads_every_sample(encoding: Encoding, tmp_path: Path) -> None:
    pixels = [decoded(jpeg(photo(40, 40 + i, seed=i))) for i in range(9)]
    files = [jpeg(image) if encoding == "jpeg" else ppm(image) for image in pixels]
    split = write_split(tmp_path / "data", files, short_side=40, shard_size=4, encoding=encoding)
    read = run(ROOT / "docs" / "format.md", tmp_path / "data")["read"]
    found = list(read(str(tmp_path / "data"), "train"))
    assert [(key, image, label) for key, image, label, _, _ in found] == [
        (f"{row:08d}", file, int(split.labels[row])) for row, file in enumerate(files)
    ]


def test_what_the_writer_of_the_format_writes_is_a_whole_data_set(tmp_path: Path, imagenet: Path) -> None:
    write = run(ROOT / "docs" / "format.md", imagenet)["write"]
    images = [jpeg(photo(40, 44, seed=i)) for i in range(7)]
    samples = [(image, i % 3, 44, 40) for i, image in enumerate(images)]
    write(str(tmp_path / "data"), "train", samples, ["a", "b", "c"], 40, 3)
    assert verify(tmp_path / "data", decode=True).problems == ()
    split = open_dataset(tmp_path / "data")["train"]
    assert (len(split), len(split.info.shards), split.class_names) == (7, 3, ("a", "b", "c"))
