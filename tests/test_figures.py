import subprocess
import sys

import imageio.v3 as iio
import numpy as np
import pytest

from napari_unetseg.errors import WriteError
from napari_unetseg.figures import curves, overlay, panels, reliability_diagram, save_png, strips

RED, GREEN, GREY = "#ff0000", "#00ff00", "#808080"
COLOURS = (GREY, RED, GREEN)


def square(value=1):
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, 5:15] = value
    return mask


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64, bool])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_every_image_can_be_shown(channels, dtype):
    image = np.random.default_rng(0).random((channels, 20, 30)) * 200
    image = image > 100 if dtype is bool else image.astype(dtype)
    out = overlay(image)
    assert out.shape == (20, 30, 3)
    assert out.dtype == np.uint8
    assert out.min() < 30
    assert out.max() > 190
    if channels not in (2, 3):
        assert (out[..., 0] == out[..., 2]).all()


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan, np.inf])
def test_images_without_contrast_are_black(value):
    assert overlay(np.full((1, 4, 5), value)).max() == 0


def test_a_few_bright_pixels_do_not_darken_the_rest():
    image = np.tile(np.arange(200, dtype=np.uint16), (1, 200, 1))
    image[0, 0, 0] = 65535
    image = image.astype(float)
    image[0, 1, 1] = np.nan
    assert overlay(image)[100, 195].max() > 240


def test_colour_photographs_keep_their_colours():
    image = np.random.default_rng(0).integers(90, 110, (3, 20, 30), dtype=np.uint8)
    np.testing.assert_array_equal(overlay(image), image.transpose(1, 2, 0))


def test_mask_is_filled_half_transparent_with_a_sharp_outline():
    image = np.full((3, 20, 30), 100, np.uint8)
    out = overlay(image, square(2), colours=COLOURS)
    assert out[0, 0].tolist() == [100, 100, 100]
    assert out[5, 10].tolist() == [0, 255, 0]
    assert out[4, 10].tolist() == [100, 100, 100]
    inside = out[10, 10]
    assert inside[1] > 120 > 100 > inside[0] > 40
    assert (overlay(image, square(0), colours=COLOURS) == 100).all()


def test_strokes_are_opaque_and_truth_shows_where_it_differs():
    image = np.full((3, 20, 30), 100, np.uint8)
    strokes = np.zeros((20, 30), np.uint8)
    strokes[0, :5], strokes[1, :5], strokes[10, 10] = 1, 2, 3
    truth = np.zeros_like(strokes)
    truth[5:15, 5:20] = 1
    out = overlay(image, square(), strokes, COLOURS, truth)
    assert out[0, 0].tolist() == [128, 128, 128]
    assert out[1, 0].tolist() == [255, 0, 0]
    assert out[10, 10].tolist() == [0, 255, 0]
    assert out[10, 19].tolist() == [255, 255, 255]
    assert out[10, 5].tolist() == [255, 0, 0]


def test_panels_stand_side_by_side_pixel_for_pixel():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (size, size + 10, 3), dtype=np.uint8) for size in (400, 90)]
    page = panels(images, ["one", "a title that is so long that it has to be broken into several lines"])
    assert page.dtype == np.uint8
    assert page.shape[1] == 8 + 410 + 8 + 400 + 8
    head = page.shape[0] - 400 - 8
    np.testing.assert_array_equal(page[head : head + 400, 8:418], images[0])
    np.testing.assert_array_equal(page[head : head + 360 : 4, 426:826:4], images[1])
    assert (page[:head] < 100).any()
    assert panels(images[:1], ["one"]).shape[1] == 8 + 410 + 8
    with pytest.raises(ValueError):
        panels(images, ["one"])


def test_png_is_written_whole_or_not_at_all(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 255, (9, 8, 3), dtype=np.uint8)
    path = save_png(tmp_path / "new folder" / "a.png", rgb)
    np.testing.assert_array_equal(iio.imread(path), rgb)
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError):
        save_png(tmp_path / "file" / "a.png", rgb)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def drawn(path, colour):
    page = iio.imread(path).astype(int)
    right = page[:, page.shape[1] // 2 :]
    return int((abs(right - [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).max(axis=2) < 30).sum())


def test_curves_show_every_class(tmp_path):
    history = [{"step": s, "seconds": s / 2, "loss": 1 / s} for s in range(1, 100)]
    plain = curves(history, tmp_path / "loss.png")
    assert iio.imread(plain).shape[2] == 3
    scores = [{"step": s, "dice liver": s / 100, "jaccard liver": s / 200, "dice 2": 0.4} for s in (30, 60, 90)]
    both = curves([*history, *scores], tmp_path / "both.png")
    for colour in ("#e69f00", "#009e73"):
        assert drawn(plain, colour) == 0
        assert drawn(both, colour) > 200


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"step": 1, "loss": 0.5}],
        [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": None}, {"step": 3, "dice x": float("nan")}],
        [{"step": s, "loss": -0.9} for s in range(100)],
        [{"step": 1, **{f"dice class {k}": k / 12 for k in range(12)}}],
    ],
)
def test_curves_of_odd_histories(history, tmp_path):
    assert iio.imread(curves(history, tmp_path / "c.png")).shape[:2] == (418, 1045)


def test_neither_torch_nor_pyplot_is_loaded(tmp_path):
    code = (
        "import sys, numpy as np; from napari_unetseg import figures, metrics, postprocess\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"figures.curves([], {str(tmp_path / 'c.png')!r}); figures.panels([np.zeros((9, 9, 3), np.uint8)], ['a'])\n"
        "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_strips_show_every_value_at_its_place():
    plain = strips({"a": [], "b": []}, "Dice")
    low, high = (strips({"a": [value], "b": []}, "Dice") for value in (0.2, 0.8))
    assert low.dtype == np.uint8
    assert low.shape == high.shape == plain.shape
    columns = [np.nonzero((picture != plain).any(axis=(0, 2)))[0].mean() for picture in (low, high)]
    rows = [np.nonzero((picture != plain).any(axis=(1, 2)))[0].mean() for picture in (low, high)]
    assert columns[1] - columns[0] > 0.4 * low.shape[1]
    assert rows[0] == pytest.approx(rows[1], abs=1)


def test_strips_grow_with_the_number_of_names():
    assert len(strips({str(i): [0.5, 0.6] for i in range(20)}, "Dice")) > 2 * len(strips({"a": [0.5]}, "Dice"))


def test_reliability_lies_on_the_diagonal_where_probabilities_are_honest():
    honest = [[p / 10 + 0.05, p / 10 + 0.05, 100] for p in range(10)]
    modest = [[p / 10 + 0.05, 0.5, 100] for p in range(10)]
    one, other, same = (
        reliability_diagram(honest, honest),
        reliability_diagram(modest, honest),
        reliability_diagram([], []),
    )
    assert one.dtype == np.uint8
    assert one.shape == other.shape == same.shape
    assert (one != other).any(axis=2).mean() > 0.001
