"""Every layout people have becomes cases; what cannot be learned from is refused in one line."""

import json

import numpy as np
import pytest

from napari_unetseg.data.dataset import _Files, load_dataset
from napari_unetseg.errors import AnnotationError, ReadError, UnetSegError
from napari_unetseg.io import read, write
from napari_unetseg.plan import DataPlan
from napari_unetseg.project import Project
from napari_unetseg.volume import Geometry, LabelVolume, Volume

ANNOTATION = DataPlan(labels="annotation")


def put_image(path, shape=(20, 24), channels=1, seed=0, **geometry):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(seed).integers(0, 255, (channels, *shape)).astype(np.uint8)
    write(path, Volume(data, Geometry(**geometry) if geometry else None))
    return data


def put_labels(path, shape=(20, 24), values=(0, 1), **geometry):
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.resize(np.repeat(values, 5), shape).astype(np.uint8)
    write(path, LabelVolume(labels, Geometry(**geometry) if geometry else None))
    return labels


def plain_folder(root, n=3, **kw):
    for i in range(n):
        put_image(root / "images" / f"im{i}.png", seed=i)
        put_labels(root / "labels" / f"im{i}.png", **kw)
    return root


@pytest.mark.parametrize("labels", ["labels", "masks", "Masks"])
def test_images_and_labels(tmp_path, labels):
    image = put_image(tmp_path / "images" / "a.tif")
    truth = put_labels(tmp_path / labels / "a.png", values=(0, 255))
    put_image(tmp_path / "images" / "b.tif")
    dataset = load_dataset(tmp_path)
    (case,) = dataset.cases
    sample = case.load()
    assert (case.name, case.group, case.fold) == ("a", "a", None)
    assert np.array_equal(sample.image.data, image)
    assert np.array_equal(sample.target, truth > 0)
    assert sample.known.all()
    assert (dataset.in_channels, dataset.ndim, dataset.classes) == (1, 2, ("background", "foreground"))
    assert any("1 image without labels is left out: b" in note for note in dataset.notes)
    assert dataset.counts(case).tolist() == [(truth == 0).sum(), (truth > 0).sum()]


def test_common_endings_and_subfolders(tmp_path):
    for patient in "pq":
        put_image(tmp_path / "images" / patient / "1.png")
        put_labels(tmp_path / "masks" / patient / "1_mask.png")
    dataset = load_dataset(tmp_path)
    assert [(case.name, case.group) for case in dataset.cases] == [("p/1", "p"), ("q/1", "q")]


@pytest.mark.parametrize("style", ["msd", "nnunet"])
def test_decathlon_layouts(tmp_path, style):
    labels = {"msd": {"0": "nothing", "1": "liver", "2": "ignore"}, "nnunet": {"nothing": 0, "liver": 1, "ignore": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels[style]}))
    parts = [put_image(tmp_path / "imagesTr" / f"c_{i:04d}.nii.gz", (4, 9, 8), seed=i) for i in range(2)]
    truth = put_labels(tmp_path / "labelsTr" / "c.nii.gz", (4, 9, 8), values=(0, 1, 2))
    dataset = load_dataset(str(tmp_path))
    sample = dataset.cases[0].load()
    assert dataset.classes == ("nothing", "liver")
    assert (dataset.in_channels, dataset.ndim) == (2, 3)
    assert np.array_equal(sample.image.data, np.concatenate(parts))
    assert np.array_equal(sample.known, truth != 2)
    assert np.array_equal(sample.target, truth == 1)


def test_decathlon_names_with_numbers_and_a_missing_channel(tmp_path):
    put_image(tmp_path / "imagesTr" / "c_0001.tif")
    put_labels(tmp_path / "labelsTr" / "c_0001.tif")
    assert load_dataset(tmp_path).cases[0].name == "c_0001"
    put_labels(tmp_path / "labelsTr" / "d.tif")
    put_image(tmp_path / "imagesTr" / "d_0001.tif")
    with pytest.raises(ReadError, match="no channel _0000"):
        load_dataset(tmp_path)


def test_split_json_with_pages(tmp_path):
    image = put_image(tmp_path / "volume.tif", (4, 20, 24))
    truth = put_labels(tmp_path / "labels.tif", (4, 20, 24), values=(0, 255, 255, 0, 0))
    entry = {"image": "volume.tif", "label": "labels.tif"}
    cases = {f"s{i}": {**entry, "page": i, "fold": i % 2, "group": f"g{i}"} for i in range(4)}
    (tmp_path / "split.json").write_text(json.dumps({"cases": cases}))
    dataset = load_dataset(tmp_path)
    assert dataset.ndim == 2
    assert [(c.fold, c.group) for c in dataset.cases] == [(0, "g0"), (1, "g1"), (0, "g2"), (1, "g3")]
    sample = dataset.cases[2].load()
    assert np.array_equal(sample.image.data, image[:, 2])
    assert np.array_equal(sample.target, truth[2] > 0)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"image": "../out.tif", "label": "labels.tif"}, "outside its folder"),
        ({"image": "/out.tif", "label": "labels.tif"}, "outside its folder"),
        ({"image": "gone.tif", "label": "labels.tif"}, "does not exist"),
        ({"image": "volume.tif", "label": "labels.tif", "page": 4}, "no page 4"),
        ({"image": "volume.tif", "label": "labels.tif", "page": "4"}, "no whole number"),
        ({"image": "volume.tif", "label": "labels.tif", "fold": [1]}, "no whole number"),
        ({"label": "labels.tif"}, "names no image"),
        ("volume.tif", "names no image"),
    ],
)
def test_split_json_that_cannot_be(tmp_path, facts, words):
    put_image(tmp_path / "volume.tif", (4, 20, 24))
    put_labels(tmp_path / "labels.tif", (4, 20, 24))
    (tmp_path / "split.json").write_text(json.dumps({"cases": {"a": facts}}))
    with pytest.raises(ReadError, match=words):
        load_dataset(tmp_path)


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"cases": 3}'])
def test_split_json_that_is_none(tmp_path, text):
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(ReadError, match=r"split\.json"):
        load_dataset(tmp_path)


def test_pairs_stay_stacks_and_get_names(tmp_path):
    for folder in ("x", "y"):
        put_image(tmp_path / folder / "a.tif", (3, 20, 24))
        put_labels(tmp_path / folder / "a_labels.tif", (3, 20, 24))
    pairs = [(tmp_path / f / "a.tif", tmp_path / f / "a_labels.tif") for f in ("x", "y")]
    dataset = load_dataset(None, pairs=pairs)
    assert [case.name for case in dataset.cases] == ["a", "a-2"]
    assert len({case.group for case in dataset.cases}) == 2
    assert dataset.cases[0].load().target.shape == (3, 20, 24)


def test_a_project_gives_its_annotated_images(tmp_path):
    project = Project.create(tmp_path / "p.unetseg", classes=["background", "cell"])
    images = [put_image(tmp_path / f"{n}.tif", seed=i) for i, n in enumerate("abc")]
    names = [project.add(tmp_path / f"{n}.tif", group=g) for n, g in (("a", "mouse"), ("b", None), ("c", None))]
    with pytest.raises(AnnotationError, match="Nothing is annotated"):
        load_dataset(project)
    strokes = np.zeros((20, 24), np.uint8)
    strokes[2, 2:9], strokes[9, 2:9] = 1, 2
    project.annotate(names[0], strokes)
    project.annotate(names[2], strokes)
    for data in (project, project.path):
        dataset = load_dataset(data)
        assert [(case.name, case.group) for case in dataset.cases] == [(names[0], "mouse"), (names[2], names[2])]
        assert (dataset.classes, dataset.labels) == (("background", "cell"), "annotation")
        sample = dataset.cases[0].load()
        assert np.array_equal(sample.image.data, images[0])
        assert np.array_equal(sample.known, strokes > 0)
        assert np.array_equal(sample.target, strokes == 2)
    project.annotate(names[2], np.zeros_like(strokes))
    project.annotate(names[0], (strokes == 1).astype(np.uint8))
    with pytest.raises(AnnotationError, match="Only the class 'background'"):
        load_dataset(project)


def test_annotation_files(tmp_path):
    plain_folder(tmp_path, values=(0, 1, 2, 3))
    dataset = load_dataset(tmp_path, ANNOTATION)
    sample = dataset.cases[0].load()
    assert dataset.classes == ("background", "class 1", "class 2")
    assert 0.2 < (~sample.known).mean() < 0.3
    assert dataset.counts(dataset.cases[0]).sum() == sample.known.sum()


def test_the_plan_says_which_values(tmp_path):
    plain_folder(tmp_path, values=(0, 3, 5))
    dataset = load_dataset(tmp_path, DataPlan(values=((3,), (0, 5))))
    sample = dataset.cases[0].load()
    labels = read(tmp_path / "labels" / "im0.png").data[0]
    assert np.array_equal(sample.target, labels != 3)


def test_grey_among_rgb_becomes_rgb(tmp_path):
    plain_folder(tmp_path)
    put_image(tmp_path / "images" / "z.png", channels=3)
    put_labels(tmp_path / "labels" / "z.png")
    dataset = load_dataset(tmp_path)
    assert dataset.in_channels == 3
    assert {case.load().image.data.shape[0] for case in dataset.cases} == {3}
    assert any("RGB" in note for note in dataset.notes)


def test_labels_on_another_grid_are_resampled(tmp_path):
    turn = {"unit": "mm", "world": "RAS+"}
    affine = np.array([[0, 0, 1.0, 5], [0, 1, 0, 6], [2, 0, 0, 7], [0, 0, 0, 1]])
    put_image(tmp_path / "images" / "a.nii.gz", (6, 12, 14), spacing=(2, 1, 1), affine=affine, **turn)
    fine = affine.copy()
    fine[:, 0] /= 2
    labels = np.zeros((12, 12, 14), np.uint8)
    labels[:, 3:9, 4:8] = 1
    (tmp_path / "labels").mkdir()
    write(tmp_path / "labels" / "a.nii.gz", LabelVolume(labels, Geometry((1, 1, 1), affine=fine, **turn)))
    dataset = load_dataset(tmp_path)
    assert any("resampled" in note for note in dataset.notes)
    target = dataset.cases[0].load().target
    assert target.shape == (6, 12, 14)
    assert np.array_equal(target[3], labels[6])

    far = fine.copy()
    far[:3, 3] += 500
    write(tmp_path / "labels" / "a.nii.gz", LabelVolume(labels, Geometry((1, 1, 1), affine=far, **turn)))
    with pytest.raises(AnnotationError, match="outside"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".ome.zarr", ".tif"])
def test_labels_of_every_family_may_lie_on_a_coarser_grid(suffix, tmp_path):
    affine = np.array([[0, 0, 1.0, 5], [0, 1, 0, 6], [2, 0, 0, 7], [0, 0, 0, 1]])
    grid = Geometry((2, 1, 1), "mm", affine, "RAS+")
    put_image(
        tmp_path / "images" / f"a{suffix}", (6, 12, 14), spacing=(2, 1, 1), affine=affine, unit="mm", world="RAS+"
    )
    labels = np.zeros((6, 12, 14), np.uint8)
    labels[2:5, 2:8, 4:8] = 1
    (tmp_path / "labels").mkdir()
    coarse = LabelVolume(labels[:, ::2, ::2], grid.scaled((1, 0.5, 0.5)))
    write(tmp_path / "labels" / f"a{suffix}", coarse)
    dataset = load_dataset(tmp_path)
    assert any("resampled" in note for note in dataset.notes)
    sample = dataset.cases[0].load()
    assert np.array_equal(sample.target, labels)


@pytest.mark.parametrize("unit", ["um", "pixel"])
def test_labels_of_half_the_size_are_those_of_the_same_view(unit, tmp_path):
    put_image(tmp_path / "images" / "a.tif", (40, 60), spacing=(0.5, 0.5), unit=unit)
    labels = np.zeros((20, 30), np.uint8)
    labels[5:10, 6:20] = 1
    (tmp_path / "labels").mkdir()
    step = (1, 1) if unit == "um" else (0.5, 0.5)
    write(tmp_path / "labels" / "a.tif", LabelVolume(labels, Geometry(step, unit)))
    dataset = load_dataset(tmp_path)
    assert any("resampled" in note for note in dataset.notes)
    assert np.array_equal(dataset.cases[0].load().target, labels.repeat(2, 0).repeat(2, 1))
    write(tmp_path / "labels" / "a.tif", LabelVolume(labels[:, :20], Geometry(step, unit)))
    with pytest.raises(AnnotationError, match="have shape"):
        load_dataset(tmp_path)


def test_shapes_that_differ_are_named(tmp_path):
    plain_folder(tmp_path, shape=(20, 25))
    with pytest.raises(AnnotationError, match=r"im0\.png have shape \(20, 25\).*im0\.png \(20, 24\)"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: write(root / "images" / "im1.tif", Volume(np.zeros((1, 3, 20, 24), np.uint8))), "share"),
        (lambda root: [p.unlink() for p in (root / "labels").iterdir()], "holds no image"),
        (lambda root: [p.unlink() for p in (root / "images").iterdir()], "holds no image"),
        (lambda root: [p.rename(p.with_name("x" + p.name)) for p in (root / "labels").iterdir()], "No image"),
        (lambda root: [put_labels(p, values=(0, 0)) for p in (root / "labels").iterdir()], "only the value 0"),
        (lambda root: (root / "images" / "im0.png").write_bytes(b"no image"), "im0.png"),
        (lambda root: (root / "dataset.json").write_text('{"labels": {"a": 0, "b": 2}}'), "label value 1"),
    ],
)
def test_bad_folders(tmp_path, change, words):
    plain_folder(tmp_path)
    change(tmp_path)
    with pytest.raises(UnetSegError, match=words) as error:
        load_dataset(tmp_path)
    assert "\n" not in str(error.value)
    assert error.value.hint


def test_kinds_that_do_not_mix_name_two_files(tmp_path):
    plain_folder(tmp_path, n=1)
    put_image(tmp_path / "images" / "z.tif", (3, 20, 24))
    put_labels(tmp_path / "labels" / "z.tif", (3, 20, 24))
    with pytest.raises(ReadError, match=r"z\.tif is 3D, but im0\.png is 2D"):
        load_dataset(tmp_path)
    put_image(tmp_path / "images" / "z.tif", channels=5)
    put_labels(tmp_path / "labels" / "z.tif")
    with pytest.raises(ReadError, match=r"z\.tif has 5 channels, but im0\.png has 1"):
        load_dataset(tmp_path)


def test_nothing_to_read(tmp_path):
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    put_image(tmp_path / "bare" / "a.png")
    for path, words in (
        ("gone", "does not exist"),
        ("file.txt", "is a file"),
        ("empty", "no images/"),
        ("bare", "no folder of labels"),
    ):
        with pytest.raises(ReadError, match=words):
            load_dataset(tmp_path / path)
    with pytest.raises(ReadError, match="No data"):
        load_dataset(None)
    with pytest.raises(ReadError, match="does not exist"):
        load_dataset(None, pairs=[(tmp_path / "bare" / "a.png", tmp_path / "gone.png")])


def test_the_cache_stays_below_its_bound(tmp_path):
    paths = [tmp_path / f"{i}.tif" for i in range(5)]
    for path in paths:
        put_image(path, (100, 100))
    files = _Files(limit=25_000)
    for path in paths:
        files.image(path)
        assert files.held <= 25_000
    assert files.image(paths[4]) is files.image(paths[4])


SETS = {
    "isbi2012-em": (23, 1, 2, 2),
    "msd-hippocampus": (203, 1, 3, 3),
    "dsb2018-nuclei": (155, 3, 2, 2),
    "cvc-clinicdb": (154, 3, 2, 2),
    "chasedb1-vessels": (28, 3, 2, 2),
    "covid-ct-multiclass": (98, 1, 2, 3),
    "drosophila-vnc-em": (20, 1, 2, 9),
}


@pytest.mark.data
@pytest.mark.parametrize("name", SETS)
def test_public_sets(public, name):
    dataset = load_dataset(public(name))
    assert (len(dataset), dataset.in_channels, dataset.ndim, len(dataset.classes)) == SETS[name]
    assert {case.fold for case in dataset.cases} == set(range(5))
    total = sum(dataset.counts(case) for case in dataset.cases)
    assert (total > 0).all()
    sample = dataset.cases[-1].load()
    assert sample.target.shape == sample.known.shape == sample.image.shape
    if name == "isbi2012-em":
        assert abs(total[1] / total.sum() - 0.78) < 0.01


@pytest.mark.data
def test_public_stack_as_a_pair(public):
    folder = public("isbi2012-em")
    dataset = load_dataset(None, pairs=[(folder / "train-volume.tif", folder / "train-labels.tif")])
    assert (dataset.ndim, dataset.cases[0].load().target.shape) == (3, (23, 512, 512))


@pytest.mark.data
def test_public_values_as_the_plan_says(public):
    plan = DataPlan(values=((0, 32, 64, 96, 128), (159,), (191,), (223,), (255,)))
    dataset = load_dataset(public("drosophila-vnc-em"), plan)
    assert len(dataset.classes) == 5
    assert dataset.cases[0].load().known.all()
