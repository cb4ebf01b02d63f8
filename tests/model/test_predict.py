"""`python -m model predict`: the same pixels as in evaluation, the best classes, and errors in a line."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from model import build_model
from model.__main__ import main
from model.images import open_image, to_tensor
from model.predict import _percent, predict
from model.weights import About, load_model, save_weights
from preprocess.images.convert import convert
from shards.common.errors import ShardfeedError, UsageError
from tests.conftest import jpeg, photo, write_split
from tests.helpers.pictures import with_exif

CLASSES = tuple(f"class {number}" for number in range(7))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A cnn of seven classes, evaluated at 32 pixels."""
    torch.manual_seed(0)
    path = tmp_path / "model.pth"
    save_weights(build_model("cnn", 7), path, About("cnn", CLASSES, size=32, resize=40))
    return path


def image_file(directory: Path, height: int = 48, width: int = 60, name: str = "photo.jpg") -> Path:
    path = directory / name
    path.write_bytes(jpeg(photo(height, width)))
    return path


def test_a_picture_becomes_what_the_loader_gives_in_evaluation(tmp_path: Path) -> None:
    from shards import Loader
    from train.checkpoints.weights import describe

    images = [jpeg(photo(40, 57, 1)), jpeg(photo(64, 40, 2)), jpeg(photo(40, 40, 3))]
    split = write_split(tmp_path / "data", images, short_side=40)
    about = describe(split, model="cnn", size=32)
    assert (about.resize, about.class_names) == (37, split.class_names)
    with Loader(split, batch_size=3, train=False, size=32) as loader:
        [(batch, _)] = list(loader)
    for number, (data, expected) in enumerate(zip(images, batch, strict=True)):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(data)
        found = to_tensor(open_image(path), about)
        assert found.shape == expected.shape
        assert (found - expected).abs().mean() < 0.02  # two resizing filters, each rounding to 8 bits


def test_without_a_resize_the_pixels_are_the_loader_s(tmp_path: Path) -> None:
    from shards import Loader
    from train.checkpoints.weights import describe

    data = jpeg(photo(36, 51, 1))
    split = write_split(tmp_path / "data", [data], short_side=36)
    with Loader(split, batch_size=1, train=False, size=32) as loader:
        [(batch, _)] = list(loader)
    (tmp_path / "a.jpg").write_bytes(data)
    about = describe(split, model="cnn", size=32)
    assert about.resize == 36
    torch.testing.assert_close(to_tensor(open_image(tmp_path / "a.jpg"), about), batch[0], atol=1e-5, rtol=0)


def test_the_best_classes_come_with_the_network_s_probabilities(weights: Path, tmp_path: Path) -> None:
    network, about = load_model(weights)
    image = open_image(image_file(tmp_path))
    guesses = predict(network, about, image)
    with torch.inference_mode():
        expected = network(to_tensor(image, about)[None])[0].softmax(0)
    order = expected.argsort(descending=True)[:5]
    assert [guess.name for guess in guesses] == [CLASSES[label] for label in order]
    assert [guess.probability for guess in guesses] == pytest.approx(expected[order].tolist())


def test_with_fewer_than_five_classes_all_are_named(tmp_path: Path) -> None:
    about = About("cnn", ("a", "b"), size=32, resize=32)
    guesses = predict(build_model("cnn", 2).eval(), about, Image.new("RGB", (40, 40)))
    assert sum(guess.probability for guess in guesses) == pytest.approx(1)
    assert {guess.name for guess in guesses} == {"a", "b"}


def test_the_mean_over_mirror_images_is_predicted_where_the_file_says_so(weights: Path, tmp_path: Path) -> None:
    network, about = load_model(weights)
    image = open_image(image_file(tmp_path))
    about = dataclasses.replace(about, flip_tta=True)
    first, second = (predict(network, about, each) for each in (image, ImageOps.mirror(image)))
    assert [guess.name for guess in first] == [guess.name for guess in second]
    alone = predict(network, dataclasses.replace(about, flip_tta=False), image)
    assert [guess.probability for guess in first] != [guess.probability for guess in alone]


def test_the_command_prints_a_table_and_json(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [image_file(tmp_path), image_file(tmp_path, 70, 41, "b c.jpg")]
    assert main(["predict", str(weights), *map(str, paths)]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith(f"{weights}: cnn, 7 classes; images: shorter side 40, centre crop 32, mean 0.485")
    lines = printed.out.splitlines()
    assert len(lines) == 2 * 6 + 1
    assert lines[6] == str(paths[1])
    result = json.loads(lines[-1])
    assert [entry["image"] for entry in result] == [str(path) for path in paths]
    best = result[0]["classes"][0]
    assert lines[1] == f"  {best['probability']:>6.1%}  {best['name']}"
    assert [len(entry["classes"]) for entry in result] == [5, 5]


def test_an_image_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    upright = photo(48, 60)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to show
    turned = Image.fromarray(np.rot90(upright))
    turned.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(np.array(open_image(tmp_path / "turned.png")), upright)


def test_an_image_of_damaged_exif_lies_as_a_conversion_leaves_it_and_nothing_warns(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    # Five tags are announced, and the orientation alone is there: Pillow takes it, and warns.
    tags = b"II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
    (tmp_path / "a.jpg").write_bytes(with_exif(jpeg(photo(20, 30)), tags))
    converted = convert((tmp_path / "a.jpg").read_bytes(), None, 90, "raw")
    assert open_image(tmp_path / "a.jpg").size == (converted.width, converted.height) == (30, 20)
    assert not list(recwarn)


def test_wrong_paths_are_named_before_any_prediction(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [image_file(tmp_path), tmp_path / "a.jpg", tmp_path / "b.jpg"]
    assert main(["predict", str(weights), *map(str, paths), "--json"]) == 2
    told = f"{paths[1]}, {paths[2]} are not files: give the paths of images"
    assert capsys.readouterr() == ("", f"python -m model predict: {told}\n")


def test_a_bad_image_among_several_does_not_keep_the_others_back(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = tmp_path / "notes.jpg"
    notes.write_text("no pixels")
    good = image_file(tmp_path)
    assert main(["predict", str(weights), str(notes), str(good)]) == 1
    printed = capsys.readouterr()
    bad, whole = json.loads(printed.out.splitlines()[-1])
    assert bad == {"image": str(notes), "error": f"{notes} is not an image that Pillow can read"}
    assert (whole["image"], len(whole["classes"])) == (str(good), 5)
    assert printed.err.splitlines()[-2:] == [
        f"{notes} is not an image that Pillow can read",
        "python -m model predict: 1 of 2 images could not be read; they are named above",
    ]


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "LA", "1"])
def test_every_kind_of_image_becomes_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "image.tiff"
    if mode == "P":
        path = tmp_path / "image.png"
    Image.fromarray(photo(20, 24)).convert("L" if mode == "LA" else "RGB").convert(mode).save(path)
    image = open_image(path)
    assert (image.mode, image.size) == ("RGB", (24, 20))


def test_transparency_lies_over_white_and_16_bits_become_8(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert open_image(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)
    Image.fromarray(np.full((4, 4), 0x8000, np.uint16)).save(tmp_path / "deep.png")
    assert open_image(tmp_path / "deep.png").getpixel((0, 0)) == (128, 128, 128)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("no pixels")
    (tmp_path / "cut.jpg").write_bytes(jpeg(photo(64, 64))[:900])
    with pytest.raises(UsageError, match=r"nowhere\.jpg is not a file"):
        open_image(tmp_path / "nowhere.jpg")
    with pytest.raises(ShardfeedError, match=r"notes\.jpg is not an image"):
        open_image(tmp_path / "notes.jpg")
    with pytest.raises(ShardfeedError, match=r"cut\.jpg is damaged"):
        open_image(tmp_path / "cut.jpg")


def test_mistakes_are_one_line_and_an_exit_status(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, notes = image_file(tmp_path), tmp_path / "notes.txt"
    notes.write_text("no pixels")
    cases = [
        ([str(tmp_path / "no.pth"), str(good)], 2, "no.pth is not a file"),
        ([str(weights), str(tmp_path / "no.jpg")], 2, "no.jpg is not a file"),
        ([str(weights), str(notes)], 1, "notes.txt is not an image"),
        ([str(good), str(good)], 2, "photo.jpg was not written by torch.save: give the .pth file that training wrote"),
        ([str(weights)], 2, "no images to predict"),
    ]
    for words, status, message in cases:
        assert main(["predict", *words]) == status
        said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(f"{weights}: cnn")]
        assert len(said) == 1
        assert message in said[0]


def test_real_photographs_are_read(real_images: list[bytes], tmp_path: Path) -> None:
    about = About("cnn", CLASSES, size=224, resize=256)
    for number, data in enumerate(real_images[:10]):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(data)
        short = min(Image.open(io.BytesIO(data)).size)
        assert min(open_image(path).size) == short
        assert to_tensor(open_image(path), about).shape == (3, 224, 224)


@pytest.mark.parametrize("image", ["photo.jpg", None, Image.new("L", (40, 40)), torch.zeros(3, 40, 40)])
def test_what_is_no_rgb_image_is_refused_in_one_line(image: Any) -> None:
    about = About("cnn", ("cat", "dog"), size=32, resize=36)
    with pytest.raises(UsageError, match=r"^image must be an RGB image of Pillow's, as open_image[^\n]+$"):
        to_tensor(image, about)


def test_almost_no_probability_is_not_none() -> None:
    assert [_percent(each) for each in (0.9412, 0.001, 0.0004)] == ["94.1%", "0.1%", "<0.1%"]
