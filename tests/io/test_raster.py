"""PNG, JPEG and BMP: palettes, bits, alpha, and 16-bit colours."""

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

import napari_unetseg.io as io
from napari_unetseg.errors import ReadError, WriteError
from napari_unetseg.volume import Geometry, LabelVolume, Volume

RNG = np.random.default_rng(2)


def save(tmp_path, array, name="a.png", mode=None, **options):
    picture = Image.fromarray(array) if mode is None else Image.fromarray(array).convert(mode)
    picture.save(tmp_path / name, **options)
    return tmp_path / name


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, bits, colour, rows: bytes, interlaced=0) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["a.png", "a.bmp"])
@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 3)])
def test_values(name, shape, tmp_path):
    array = RNG.integers(0, 256, shape, np.uint8)
    volume = io.read(save(tmp_path, array, name))
    assert np.array_equal(volume.data, np.moveaxis(np.atleast_3d(array), -1, 0))
    assert (volume.geometry.spacing, volume.geometry.unit) == ((1, 1), "pixel")


def test_sixteen_bits_of_gray(tmp_path):
    array = RNG.integers(0, 65536, (6, 7)).astype(np.uint16)
    volume = io.read(save(tmp_path, array))
    assert volume.data.dtype == np.uint16
    assert np.array_equal(volume.data[0], array)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg(mode, tmp_path):
    array = np.full((16, 16, 3), (200, 200, 200) if mode == "L" else (200, 100, 50), np.uint8)
    volume = io.read(save(tmp_path, array, "a.JPEG", mode, quality=95))
    assert volume.data.shape == (1 if mode == "L" else 3, 16, 16)
    assert np.abs(volume.data[0].astype(int) - 200).max() <= 3


def test_gray_in_colours_stays_three_channels_but_is_one_label(tmp_path):
    gray = RNG.integers(0, 3, (6, 7), np.uint8)
    path = save(tmp_path, np.dstack([gray] * 3))
    assert io.read(path).data.shape == (3, 6, 7)
    assert np.array_equal(io.read_labels(path).data, gray)


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha(channels, tmp_path):
    array = RNG.integers(0, 256, (6, 7, channels), np.uint8)
    assert io.read(save(tmp_path, array)).data.shape == (channels, 6, 7)
    array[..., -1] = 255
    assert np.array_equal(io.read(save(tmp_path, array)).data, np.moveaxis(array[..., :-1], -1, 0))


def test_labels_may_have_alpha(tmp_path):
    array = np.zeros((6, 7, 4), np.uint8)
    array[2:, :, :3] = 2
    array[2:, :, 3] = 255
    assert np.array_equal(io.read_labels(save(tmp_path, array)).data, array[..., 0])


@pytest.mark.parametrize("name", ["a.png", "a.bmp"])
def test_a_palette_is_colours_in_an_image_and_numbers_in_labels(name, tmp_path):
    index = RNG.integers(0, 3, (6, 7), np.uint8)
    picture = Image.fromarray(index, "P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 128, 0])
    picture.save(tmp_path / name)
    image = io.read(tmp_path / name).data
    assert np.array_equal(image, np.stack([(index == 1) * 255, (index == 2) * 128, index * 0]))
    assert np.array_equal(io.read_labels(tmp_path / name).data, index)


def test_a_palette_with_a_transparent_colour(tmp_path):
    index = RNG.integers(0, 3, (6, 7), np.uint8)
    picture = Image.fromarray(index, "P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 128, 0])
    picture.save(tmp_path / "a.png", transparency=0)
    assert np.array_equal(io.read(tmp_path / "a.png").data[3], (index > 0) * 255)
    assert np.array_equal(io.read_labels(tmp_path / "a.png").data, index)


@pytest.mark.parametrize("name", ["a.png", "a.bmp"])
def test_one_bit(name, tmp_path):
    array = RNG.integers(0, 2, (16, 17)).astype(bool)
    path = save(tmp_path, array, name)
    labels = io.read_labels(path)
    assert labels.data.dtype == np.uint8
    assert np.array_equal(labels.data, array)


@pytest.mark.parametrize("bits", [2, 4])
def test_labels_of_few_bits_are_not_stretched(bits, tmp_path):
    array = RNG.integers(0, 4, (5, 8), np.uint8)
    packed = sum(array[:, i :: 8 // bits] << (8 - bits * (i + 1)) for i in range(8 // bits)).astype(np.uint8)
    rows = b"".join(b"\x00" + row.tobytes() for row in packed)
    (tmp_path / "a.png").write_bytes(png(8, 5, bits, 0, rows))
    assert np.array_equal(io.read_labels(tmp_path / "a.png").data, array)


def filtered(pixels: np.ndarray, kinds) -> bytes:
    """The rows of a PNG, each coded with its filter, as section 9 of the specification says."""
    step = pixels.shape[-1] * 2
    raw = pixels.astype(">u2").view(np.uint8).reshape(len(pixels), -1).astype(int)
    above = np.zeros_like(raw[0])
    out = b""
    for row, kind in zip(raw, kinds, strict=True):
        left = np.concatenate([np.zeros(step, int), row[:-step]])
        corner = np.concatenate([np.zeros(step, int), above[:-step]])
        guess = left + above - corner
        paeth = [
            min((abs(g - a), 0, a), (abs(g - b), 1, b), (abs(g - c), 2, c))[2]
            for g, a, b, c in zip(guess, left, above, corner, strict=True)
        ]
        coded = row - [0 * row, left, above, (left + above) // 2, np.array(paeth)][kind]
        out += bytes([kind]) + (coded % 256).astype(np.uint8).tobytes()
        above = row
    return out


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("most", [4, 65536])  # few values make ties between the neighbours
def test_sixteen_bits_of_colour_are_all_kept(most, colour, channels, tmp_path):
    pixels = RNG.integers(0, most, (15, 9, channels)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(png(9, 15, 16, colour, filtered(pixels, [0, 1, 2, 3, 4] * 3)))
    volume = io.read(tmp_path / "a.png")
    assert volume.data.dtype == np.uint16
    assert np.array_equal(volume.data, np.moveaxis(pixels, -1, 0))


def test_sixteen_bits_of_colour_that_are_damaged(tmp_path):
    pixels = RNG.integers(0, 65536, (15, 9, 3)).astype(np.uint16)
    rows = filtered(pixels, [0, 1, 2, 3, 4] * 3)
    for content, words in (
        (png(9, 15, 16, 2, rows[:300]), "cut short"),
        (png(9, 15, 16, 2, b"\x09" + rows[1:]), "cut short or damaged"),
        (png(9, 15, 16, 2, rows, interlaced=1), "interlaced"),
        (png(90000, 90000, 16, 2, rows), "promises"),
    ):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(ReadError, match=rf"^a\.png .*{words}"):
            io.read(tmp_path / "a.png")


def test_the_name_may_lie_about_the_kind(tmp_path):
    array = RNG.integers(0, 256, (6, 7), np.uint8)
    path = save(tmp_path, array, "a.png").rename(tmp_path / "a.jpg")
    assert np.array_equal(io.read(path).data[0], array)
    path.write_text("an html page")
    with pytest.raises(ReadError, match=r"a\.jpg is not a PNG, JPEG or BMP image"):
        io.read(path)


def test_a_huge_promise_is_refused_and_a_large_image_is_not(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png(200_000, 200_000, 8, 0, bytes(1000)))
    with pytest.raises(ReadError, match=r"bomb\.png is cut short or damaged: its header promises 37\.25 GiB"):
        io.read(tmp_path / "bomb.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow warns above 89 million pixels, and refuses above 178
        large = io.read_labels(save(tmp_path, np.zeros((9500, 9500), np.uint8), "large.png", compress_level=1))
    assert large.shape == (9500, 9500)


def test_masks_take_the_bits_they_need(tmp_path):
    for most, dtype in ((255, "uint8"), (256, "uint16"), (65535, "uint16")):
        labels = LabelVolume(np.array([[0, most]], np.int32))
        assert str(np.asarray(Image.open(io.write(tmp_path / "m.png", labels))).dtype) == dtype
        assert np.array_equal(io.read_labels(tmp_path / "m.png").data, labels.data)


@pytest.mark.parametrize(
    ("name", "thing", "words"),
    [
        ("m.jpg", LabelVolume(np.zeros((6, 7), np.uint8)), "would change the values"),
        ("m.png", LabelVolume(np.zeros((5, 6, 7), np.uint8)), "a stack of 5"),
        ("m.png", LabelVolume(np.full((6, 7), 70000)), "uint32"),
        ("m.png", LabelVolume(np.full((6, 7), -1)), "int16"),
        ("m.png", LabelVolume(np.full((6, 7), 2**40)), "more than 32 bits"),
        ("m.png", Volume(np.zeros((1, 6, 7), np.float32)), "float32"),
        ("m.png", Volume(np.zeros((3, 6, 7), np.uint16)), "3 x uint16"),
        ("m.png", Volume(np.zeros((5, 6, 7), np.uint8)), "5 x uint8"),
    ],
)
def test_what_png_cannot_hold_is_refused(name, thing, words, tmp_path):
    with pytest.raises(WriteError, match=rf"^{name} could not be written: .*{words}") as caught:
        io.write(tmp_path / name, thing)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_mask_of_a_sized_image_may_still_be_a_png(tmp_path):
    scan = Volume(np.zeros((1, 6, 7), np.uint8), Geometry((0.5, 0.5), "um"))
    mask = LabelVolume(np.ones((6, 7), np.int64))
    assert np.array_equal(io.read_labels(io.write(tmp_path / "m.png", mask, like=scan)).data, mask.data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_stand_upright(orientation, tmp_path):
    seen = np.zeros((16, 32), np.uint8)
    seen[:8, :16] = 200  # bright corner: top left
    stored = {2: seen[:, ::-1], 3: seen[::-1, ::-1], 4: seen[::-1], 5: seen.T, 6: seen.T[::-1], 7: seen.T[::-1, ::-1],
              8: seen.T[:, ::-1]}.get(orientation, seen)  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.jpg", exif=exif, quality=100)
    read = io.read(tmp_path / "a.jpg").data[0]
    assert read.shape == seen.shape
    assert np.abs(read.astype(int) - seen).max() < 20
