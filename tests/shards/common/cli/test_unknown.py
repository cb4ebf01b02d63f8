"""An unknown option is answered with the right one: by the names of timm and torchvision, or the closest."""

import pytest

from shards.common.cli.options import options_of
from shards.common.cli.unknown import stray_word, unknown_options
from tests.test_advice import configs


def said(command: str, *words: str) -> str:
    return " ".join(unknown_options(words, list(options_of(configs()[command])), ("--help",)))


@pytest.mark.parametrize(
    ("command", "word", "right"),
    [
        ("train", "--batchsize", "--batch-size"),
        ("train", "--epoch=3", "--epochs"),
        ("train", "--lr", "--max-lr"),
        ("train", "--opt", "--optimizer"),
        ("train", "--workers", "--threads"),
        ("train", "-j", "--threads"),
        ("train", "-b", "--batch-size"),
        ("train", "--data-path", "--data"),
        ("train", "--input-size", "--size"),
        ("train", "--val-resize-size", "--val-resize"),
        ("train", "--val-crop-size", "--val-size"),
        ("train", "--output", "--out"),
        ("train", "--output-dir", "--out"),
        ("train", "--model-ema-decay", "--ema"),
        ("train", "--smoothing", "--label-smoothing"),
        ("train", "--auto-augment", "--augment"),
        ("train", "--arch", "--model"),
        ("preprocess", "--size", "--short-side"),
        ("train", "--clip-grad-norm", "--clip"),
        ("preprocess", "--num-workers", "--workers"),
        ("preprocess", "--img-size", "--short-side"),
        ("shards verify", "-j", "--threads"),
        ("shards preview", "--out", "--output"),
        ("benchmarks loaders", "--batch", "--batch-size"),
        ("model export", "--out", "--output"),
    ],
)
def test_the_right_option_is_named(command: str, word: str, right: str) -> None:
    given = word.partition("=")[0]
    assert said(command, word, "1") == f"there is no option {given}: did you mean {right}?"


def test_what_is_like_no_option_is_not_taken_for_one() -> None:
    assert said("train", "--distilled") == "there is no option --distilled."


@pytest.mark.parametrize(
    ("command", "word", "right"),
    [
        ("train", "--amp", "--precision"),
        ("train", "--crop-pct", "--val-resize"),
        ("train", "--test-only", "--evaluate"),
        ("train", "--warmup-epochs", "--pct-start"),
        ("shards info", "--data", "DIR by itself"),
        ("preprocess", "--output", "OUT by itself"),
        ("preprocess", "--src", "SOURCE by itself"),
    ],
)
def test_what_is_no_single_option_here_is_explained(command: str, word: str, right: str) -> None:
    assert right in said(command, word)


def test_an_explanation_is_only_given_where_its_options_exist() -> None:
    assert said("shards preview", "--amp") == "there is no option --amp."


def test_several_are_several_sentences() -> None:
    assert said("train", "--lr", "1", "--nothing-like-it") == (
        "there is no option --lr: did you mean --max-lr? There is no option --nothing-like-it."
    )


@pytest.mark.parametrize(
    "words", [("--val_size", "3"), ("--no-drop-last",), ("--batch", "8"), ("-3",), ("x-y",), ("--help",)]
)
def test_spellings_that_work_and_values_are_left_alone(words: tuple[str, ...]) -> None:
    assert said("train", *words) == ""


@pytest.mark.parametrize(
    ("command", "words", "sentence"),
    [
        ("train", ["imnet"], "imnet stands behind no option: did you mean --data imnet?"),
        ("train", ["imnet", "--epochs", "3"], "imnet stands behind no option: did you mean --data imnet?"),
        ("train", ["imnet", "--data=x"], "imnet stands behind no option."),
        ("train", ["--data", "imnet"], None),
        ("train", [], None),
        ("shards info", ["imnet"], None),
    ],
)
def test_a_word_without_an_option_is_taken_for_what_is_missing(
    command: str, words: list[str], sentence: str | None
) -> None:
    assert stray_word(words, list(options_of(configs()[command]))) == sentence
