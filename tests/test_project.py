"""The project folder: what goes in comes out, and nothing bad leads to a loss."""

import doctest
import json
import os
import shutil
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

from napari_unetseg.errors import AnnotationError, ProjectError, ReadError, WriteError
from napari_unetseg.io import read, write
from napari_unetseg.project import Project, ProjectLocked, names
from napari_unetseg.volume import Geometry, LabelVolume, Volume

TILTED = np.array([[0.5, -1.8, 0.4, 5], [0.3, 0.5, 1.9, -7], [2.9, 0.2, -0.1, 3], [0, 0, 0, 1]])


def image_2d(path, shape=(20, 30), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 60000, (1, *shape), dtype=np.uint16)
    return write(path, Volume(pixels, Geometry((0.5, 0.5), "um")))


def image_3d(path, shape=(5, 12, 14)):
    voxels = np.random.default_rng(1).integers(-900, 900, (1, *shape), dtype=np.int16)
    spacing = tuple(np.linalg.norm(TILTED[:3, :3], axis=0))
    return write(path, Volume(voxels, Geometry(spacing, "mm", TILTED, "RAS+")))


@pytest.fixture
def project(tmp_path):
    image_2d(tmp_path / "a.tif")
    image_3d(tmp_path / "scan.nii.gz")
    with Project.create(tmp_path / "p.unetseg", ["background", "cell", "debris"]) as made:
        made.add(tmp_path / "a.tif")
        made.add(tmp_path / "scan.nii.gz", group="patient 3")
        yield made


def again(project):
    project.close()
    return Project.open(project.path)


def box(*bounds):
    return tuple(slice(*pair) for pair in bounds)


# ---- what goes in comes out ----------------------------------------------------------------------------------------


def test_everything_is_found_after_reopening(project, tmp_path):
    labels = np.zeros((20, 30), np.int64)
    labels[3:6, 4:9], labels[10:12] = 2, 1
    assert project.annotate("a", labels, done=True) == 1
    project.journal("scan", box((1, 2), (3, 7), (2, 9)), np.full((1, 4, 7), 3))
    project.accept("scan", np.ones((5, 12, 14), int))
    project.state = {"case": "scan", "zoom": 2.5}
    with again(project) as found:
        assert found.name == "p"
        assert found.cases == ("a", "scan")
        assert found.classes == ("background", "cell", "debris")
        assert found.group("scan") == "patient 3"
        assert found.group("a") is None
        assert np.array_equal(found.annotation("a").data, labels)
        assert found.annotation("a").geometry.matches(read(tmp_path / "a.tif").geometry)
        assert found.done("a")
        assert not found.done("scan")
        assert found.annotation("scan").data.sum() == 3 * 28
        assert found.annotated() == ["a", "scan"]
        assert found.counts("a") == np.bincount(labels.ravel()).tolist()
        assert found.counts("scan") == [5 * 12 * 14 - 28, 0, 0, 28]
        assert found.journalled() == ["scan"]
        assert found.accepted() == ["scan"]
        assert found.state == {"case": "scan", "zoom": 2.5}
        kinds = [json.loads(line)["kind"] for line in (found.path / "log.jsonl").read_text().splitlines()]
        assert kinds == ["created", "added", "added", "accepted"]


def test_a_mask_lies_where_its_image_lies(project, tmp_path):
    mask = np.random.default_rng(2).integers(0, 3, (5, 12, 14))
    path = project.save_mask("scan", mask)
    assert path.name == "scan.nii.gz"
    image, back = read(tmp_path / "scan.nii.gz"), project.mask("scan")
    assert back.geometry.matches(image.geometry)
    assert np.array_equal(back.data, mask)
    assert project.mask("a") is None
    assert project.save_mask("a", np.zeros((20, 30), int)).name == "a.tif"


def test_random_strokes_and_revisions_follow_a_plain_array(project):
    rng, expected = np.random.default_rng(3), {case: np.zeros(project.shape(case), np.uint8) for case in project.cases}
    for step in range(120):
        case = ("a", "scan")[step % 2]
        truth = expected[case]
        bounds = [sorted(rng.integers(0, size + 1, 2)) for size in truth.shape]
        region = box(*bounds)
        truth[region] = rng.integers(0, 4)
        project.journal(case, region, truth[region])
        if rng.random() < 0.1:
            assert project.annotate(case, project.annotation(case)) == project.revisions(case)[-1]
        if rng.random() < 0.1:
            project = again(project)
        assert np.array_equal(project.annotation(case).data, truth)
    project.close()


def test_old_revisions_stay(project):
    for value in (1, 2, 3):
        assert project.annotate("a", np.full((20, 30), value)) == value
    assert project.revisions("a") == [1, 2, 3]
    assert [project.annotation_at("a", n).data.max() for n in (1, 2, 3)] == [1, 2, 3]
    with pytest.raises(ProjectError, match="revision 9"):
        project.annotation_at("a", 9)


def test_the_same_annotation_makes_no_new_revision(project):
    labels = np.ones((20, 30), int)
    assert [project.annotate("a", labels), project.annotate("a", labels)] == [1, 1]
    assert project.annotate("a", labels, done=True) == 2
    project.journal("a", box((0, 2), (0, 2)), np.zeros((2, 2), int))
    assert project.annotate("a", labels, done=True) == 2
    assert project.annotation("a").data.min() == 1  # the stroke was undone


def test_any_viewer_opens_a_revision(project):
    labels = np.random.default_rng(0).integers(0, 4, (5, 12, 14))
    project.annotate("scan", labels)
    back = read(project.path / "annotations" / "scan" / "0001.tif")
    assert np.array_equal(back.data[0], labels)


def test_strokes_from_several_threads(project):
    def paint(row):
        for column in range(30):
            project.journal("a", box((row, row + 1), (column, column + 1)), np.full((1, 1), 2))

    threads = [threading.Thread(target=paint, args=(row,)) for row in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (project.annotation("a").data == 2).sum() == 180


# ---- strokes that cannot be ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.ones((20, 31), int), "shape"),
        (np.ones((1, 20, 30), int), "shape"),
        (np.full((20, 30), 4), "value 4"),
        (np.full((20, 30), -1), "value -1"),
        (np.full((20, 30), 257), "value 257"),
        (np.ones((20, 30)), "float64"),
    ],
)
def test_wrong_labels_are_refused(project, labels, says):
    project.annotate("a", np.ones((20, 30), int))
    with pytest.raises(AnnotationError, match=says):
        project.annotate("a", labels)
    with pytest.raises(AnnotationError):
        project.journal("a", box((0, 20), (0, 30)), labels)
    with pytest.raises(AnnotationError):
        project.save_mask("a", labels)
    assert project.revisions("a") == [1]
    assert project.mask("a") is None


def test_wrong_regions_are_refused(project):
    with pytest.raises(AnnotationError, match="region"):
        project.journal("a", box((0, 5)), np.ones(5, int))
    with pytest.raises(AnnotationError, match="region"):
        project.journal("a", (slice(0, 4, 2), slice(0, 2)), np.ones((2, 2), int))
    with pytest.raises(AnnotationError, match="shape"):
        project.journal("a", box((18, 25), (0, 2)), np.ones((7, 2), int))
    project.journal("a", (slice(None), slice(28, None)), np.ones((20, 2), int))
    assert project.annotation("a").data.sum() == 40


def test_unknown_image(project):
    with pytest.raises(ProjectError, match="'b'"):
        project.annotation("b")


# ---- a journal that was cut off or damaged -------------------------------------------------------------------------


def journal_with(project, strokes):
    for row in range(strokes):
        project.journal("a", box((row, row + 1), (0, 30)), np.full((1, 30), 2))
    return project.path / "annotations" / "a" / "strokes-0000.journal"


def test_a_journal_cut_off_anywhere_keeps_the_whole_strokes(project):
    path = journal_with(project, 2)
    two = path.stat().st_size
    journal_with(project, 3)
    project.close()
    whole = path.read_bytes()
    for size in range(two, len(whole)):
        path.write_bytes(whole[:size])
        with Project.open(project.path) as found:
            assert (found.annotation("a").data == 2).sum(axis=1).tolist() == [30, 30, *[0] * 18]
            found.journal("a", box((19, 20), (0, 30)), np.full((1, 30), 1))
            assert found.annotation("a").data.sum() == 60 * 2 + 30
        with Project.open(project.path) as found:
            assert found.annotation("a").data.sum() == 60 * 2 + 30


def test_a_damaged_record_costs_only_itself(project):
    path = journal_with(project, 3)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    project = again(project)
    assert (project.annotation("a").data == 2).any(axis=1).tolist() == [True, False, True, *[False] * 17]
    project.journal("a", box((5, 6), (0, 30)), np.full((1, 30), 2))
    assert (project.annotation("a").data == 2).sum() == 90
    project.close()


def test_noise_is_no_journal(project):
    path = project.path / "annotations" / "a" / "strokes-0000.journal"
    path.parent.mkdir(parents=True)
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    assert not project.annotation("a").data.any()
    project.journal("a", box((0, 1), (0, 1)), np.ones((1, 1), int))
    assert again(project).annotation("a").data.sum() == 1


def test_a_journal_goes_with_its_revision_only(project):
    journal_with(project, 3)
    project.annotate("a", np.ones((20, 30), int))
    assert project.annotation("a").data.max() == 1  # the strokes of revision 0 are part of revision 1, or undone
    assert project.journalled() == []


# ---- a full disk, and folders that cannot be written ---------------------------------------------------------------


@pytest.fixture
def full_disk():
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    yield fill
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_changes_nothing(project, full_disk):
    noise = np.random.default_rng(0).integers(0, 4, (20, 30))
    project.annotate("a", np.ones((20, 30), int))
    project.accept("a", np.ones((20, 30), int))
    project.journal("a", box((0, 1), (0, 4)), np.full((1, 4), 2))
    before = project.annotation("a").data
    files = {path: path.read_bytes() for path in project.path.rglob("*") if path.is_file()}
    full_disk(100)
    with pytest.raises(WriteError):
        project.annotate("a", noise)
    with pytest.raises(WriteError, match="stroke"):
        project.journal("a", box((0, 20), (0, 30)), noise)
    with pytest.raises(WriteError):
        project.accept("a", noise % 3)
    with pytest.raises(WriteError):
        project.set_classes(["background", "other", "debris"])
    with pytest.raises(WriteError):
        project.state = {"long": "x" * 1000}
    with pytest.raises(WriteError):
        project.add_array("new", Volume(noise[None].astype(np.uint8)))
    full_disk(10**9)
    assert project.classes == ("background", "cell", "debris")
    assert project.cases == ("a", "scan")
    assert np.array_equal(project.annotation("a").data, before)
    now = {path: path.read_bytes() for path in project.path.rglob("*") if path.is_file()}
    # the log may have taken a line
    assert {path for path in files if path.name != "log.jsonl" and now.get(path) != files[path]} == set()
    assert set(now) == set(files)
    project.journal("a", box((0, 20), (0, 30)), noise)
    assert np.array_equal(again(project).annotation("a").data, noise)


def test_a_folder_that_is_a_file(project, tmp_path):
    (project.path / "annotations").write_text("in the way")
    with pytest.raises(WriteError):
        project.annotate("a", np.ones((20, 30), int))
    with pytest.raises(WriteError):
        project.journal("a", box((0, 1), (0, 1)), np.ones((1, 1), int))
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError):
        Project.create(tmp_path / "file" / "p.unetseg", ["a", "b"])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder(project):
    project.close()
    project.path.chmod(0o555)
    try:
        with pytest.raises(ProjectError, match="opened for work"):
            Project.open(project.path)
        assert Project.open(project.path, read_only=True).cases == ("a", "scan")
    finally:
        project.path.chmod(0o755)


# ---- images: where they are ----------------------------------------------------------------------------------------


def test_project_and_images_move_together(project, tmp_path):
    project.annotate("a", np.ones((20, 30), int))
    project.close()
    old = tmp_path.rename(tmp_path.with_name(tmp_path.name + "-moved"))
    try:
        with Project.open(old / "p.unetseg") as found:
            assert found.image_path("a") == old / "a.tif"
            assert found.image("scan").shape == (5, 12, 14)
            assert found.annotation("a").data.all()
    finally:
        old.rename(tmp_path)


def test_images_far_away_are_found_when_the_project_moves(tmp_path):
    far = image_2d(tmp_path / "far" / "b.tif")
    (tmp_path / "home").mkdir()
    with Project.create(tmp_path / "home" / "p", ["a", "b"]) as made:
        made.add(far)
    (tmp_path / "home" / "p").rename(tmp_path / "q")
    with Project.open(tmp_path / "q") as found:
        assert found.image_path("b") == far


def test_a_missing_image_says_so_and_can_be_found_again(project, tmp_path):
    project.annotate("a", np.ones((20, 30), int))
    (tmp_path / "a.tif").rename(tmp_path / "elsewhere.tif")
    with pytest.raises(ProjectError, match=r"a\.tif") as caught:
        project.image("a")
    assert "relink" in caught.value.hint
    assert project.annotation("a").data.all()  # strokes need no image
    with pytest.raises(ProjectError, match="shape"):
        project.relink("a", image_2d(tmp_path / "c.tif", (21, 30)))
    project.relink("a", tmp_path / "elsewhere.tif")
    assert again(project).image("a").shape == (20, 30)


def test_another_image_under_the_same_name_is_noticed(project, tmp_path):
    image_2d(tmp_path / "a.tif", (64, 64))
    with pytest.raises(ProjectError, match=r"\(64, 64\)"):
        project.image("a")


def test_a_corrected_header_moves_the_strokes_along(project, tmp_path):
    write(tmp_path / "a.tif", Volume(read(tmp_path / "a.tif").data, Geometry((0.25, 0.25), "um")))
    project.image("a")
    assert project.annotation("a").geometry.spacing == pytest.approx((0.25, 0.25))


def test_copies_live_in_the_project(project, tmp_path):
    case = project.add(image_3d(tmp_path / "x" / "b.nii.gz"), copy=True)
    shutil.rmtree(tmp_path / "x")
    assert project.image_path(case) == project.path / "images" / "b.nii.gz"
    assert project.image(case).shape == (5, 12, 14)


def test_arrays_live_in_the_project(project):
    flat = Volume(np.random.default_rng(0).integers(0, 255, (3, 9, 11), dtype=np.uint8), Geometry((2.0, 2.0), "um"))
    deep = Volume(
        np.arange(4 * 5 * 6, dtype=np.float32).reshape(1, 4, 5, 6), Geometry((3.0, 2.0, 2.0), "mm", TILTED, "RAS+")
    )
    for name, volume in (("layer/1", flat), ("layer/1", deep)):
        case = project.add_array(name, volume)
        back = project.image(case)
        assert np.array_equal(back.data, volume.data)
        assert back.geometry.matches(volume.geometry)
        assert project.image_path(case).parent == project.path / "images"
    assert project.cases[2:] == ("layer_1", "layer_1-2")


def test_adding_twice_and_removing(project, tmp_path):
    assert project.add(tmp_path / "a.tif") == "a"
    assert project.add(tmp_path / "a.tif", group="slide") == "a"
    assert project.group("a") == "slide"
    project.annotate("a", np.full((20, 30), 3))
    project.remove("a")
    assert project.cases == ("scan",)
    assert project.annotated() == []
    assert project.add(image_2d(tmp_path / "other" / "a.tif")) == "a-2"  # never onto another image's strokes
    assert not project.annotation("a-2").data.any()
    project = again(project)
    assert project.add(tmp_path / "a.tif") == "a"
    assert project.annotation("a").data.min() == 3
    project.close()


def test_what_is_no_image_is_not_added(project, tmp_path):
    (tmp_path / "bad.tif").write_bytes(b"not an image")
    for name in ("bad.tif", "absent.tif"):
        with pytest.raises(ReadError):
            project.add(tmp_path / name)
    assert project.cases == ("a", "scan")


@pytest.mark.parametrize(
    ("text", "name"),
    [("../../x", "_.._x"), ("CON", "CON_"), ("nul.2", "nul_.2"), ("a\x00\nb", "a__b"), (".", "image"), ("..", "image"),
     ("Größe µ", "Größe µ"), ("a:b*c?", "a_b_c_"), (" x. ", "x"), ("C:\\x", "C__x"), ("", "image")],
)  # fmt: skip
def test_names_are_safe(text, name):
    assert names.safe_name(text) == name
    assert names.is_safe(name)
    assert names.is_safe(text) == (text == name)


def test_long_names_and_names_that_differ_by_case(project, tmp_path):
    cases = [project.add(image_2d(tmp_path / str(n) / name)) for n, name in enumerate(["x.tif", "X.tif", "x.png"])]
    assert cases == ["x", "X-2", "x-3"]
    long = project.add(image_2d(tmp_path / ("ü" * 100 + ".tif")))
    assert len(long.encode()) <= 100
    project.annotate(long, np.ones((20, 30), int))
    assert again(project).annotation(long).data.all()


def test_doctests_of_names():
    assert doctest.testmod(names).failed == 0


# ---- classes -------------------------------------------------------------------------------------------------------


def test_classes_are_renamed_and_added_in_place(project):
    project.annotate("a", np.full((20, 30), 3))
    project.set_classes(["background", "Cell", "dirt", "new"], ["#000000", "#FF0000", "#00ff00", "#0000ff"])
    project = again(project)
    assert project.classes[2] == "dirt"
    assert project.colours[1] == "#ff0000"
    project.annotate("a", np.full((20, 30), 4))
    project.close()


def test_a_class_in_use_cannot_go(project):
    fewer = ["background", "cell"]
    project.journal("scan", box((0, 1), (0, 1), (0, 1)), np.full((1, 1, 1), 3))
    with pytest.raises(ProjectError, match="debris"):
        project.set_classes(fewer)
    project.journal("scan", box((0, 1), (0, 1), (0, 1)), np.full((1, 1, 1), 2))
    project.accept("scan", np.full((5, 12, 14), 2))
    with pytest.raises(ProjectError, match="debris"):
        project.set_classes(fewer)
    project.undo_accept("scan")
    project.set_classes(fewer)
    assert project.classes == ("background", "cell")
    assert len(project.colours) == 2


@pytest.mark.parametrize("classes", [["only"], [], ["a", "A"], ["a", " "], "ab", [str(n) for n in range(256)]])
def test_classes_that_cannot_be(tmp_path, classes):
    with pytest.raises(ProjectError):
        Project.create(tmp_path / "p", classes)
    assert not (tmp_path / "p").exists()


def test_colours_that_cannot_be(project):
    for colours in (["red", "#000000", "#000000"], ["#000000"], ["#00000"] * 3):
        with pytest.raises(ProjectError):
            project.set_classes(project.classes, colours)


# ---- models and masks ----------------------------------------------------------------------------------------------


def test_models_in_order(project, tmp_path):
    assert project.models == []
    assert project.current_model is None
    first, second = project.new_model_folder(), project.new_model_folder()
    assert [first.name, second.name] == ["round-001", "round-002"]
    for folder in (first, second, tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
        with pytest.raises(ProjectError):
            project.set_current_model(folder)  # not a model yet
        (folder / "model.json").write_text("{}")
    assert project.models == [first, second]
    for folder in (first, tmp_path / "elsewhere"):
        project.set_current_model(folder)
        project = again(project)
        assert project.current_model == folder
    shutil.rmtree(tmp_path / "elsewhere")
    assert project.current_model is None
    project.set_current_model(None)
    assert project.new_model_folder().name == "round-003"
    project.close()


def test_accepting_can_be_undone(project):
    def plain(value):
        return np.full((20, 30), value)

    assert project.undo_accept("a") is None
    project.accept("a", plain(1))
    project.accept("a", plain(2))
    project.save_mask("a", plain(0))
    assert project.accepted() == []
    assert project.undo_accept("a").data.min() == 2  # the prediction goes first
    assert project.accepted() == ["a"]
    project = again(project)
    assert project.undo_accept("a").data.max() == 1
    project.accept("a", plain(0))
    assert project.undo_accept("a").data.max() == 1
    assert project.undo_accept("a") is None
    assert project.mask("a") is None
    assert project.accepted() == []
    assert not (project.path / "masks" / "a.tif").exists()
    assert len(list((project.path / "masks" / "history" / "a").glob("*.tif"))) == 3  # nothing is thrown away
    project.close()


# ---- two on one project --------------------------------------------------------------------------------------------

HOLD = (
    "import sys; from napari_unetseg.project import Project; p = Project.open(sys.argv[1]); print('open', flush=True); "
)


def other_process(path, then):
    command = [sys.executable, "-c", HOLD + then, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline().strip() == b"open"
    return process


def test_the_second_to_open_is_told_who_has_it(project):
    with pytest.raises(ProjectLocked, match=f"process {os.getpid()}") as caught:
        Project.open(project.path)
    assert caught.value.holder["pid"] == os.getpid()
    with Project.open(project.path, read_only=True) as reader:
        assert reader.cases == project.cases
        with pytest.raises(ProjectError, match="reading only"):
            reader.annotate("a", np.ones((20, 30), int))
    project.annotate("a", np.ones((20, 30), int))  # the reader took nothing away
    with again(project):
        pass


def test_the_lock_of_a_process_that_ended_is_free(project):
    project.close()
    process = other_process(project.path, "sys.stdin.read()")
    with pytest.raises(ProjectLocked, match=f"process {process.pid}"):
        Project.open(project.path)
    process.communicate()
    assert not (project.path / "project.lock").exists()  # given back without close()
    process = other_process(project.path, "sys.stdin.read()")
    process.kill()
    process.communicate()
    assert (project.path / "project.lock").exists()
    Project.open(project.path).close()


def test_whoever_lost_the_lock_saves_nothing_more(project):
    labels = np.ones((20, 30), int)
    with Project.open(project.path, steal_lock=True) as thief:
        for change in (
            lambda: project.annotate("a", labels),
            lambda: project.journal("a", box((0, 20), (0, 30)), labels),
            lambda: project.set_group("a", "x"),
            lambda: project.accept("a", labels),
            lambda: project.undo_accept("a"),
        ):
            with pytest.raises(ProjectLocked):
                change()
        project.close()
        assert (thief.path / "project.lock").exists()  # it was not the loser's to remove
        assert thief.annotate("a", labels) == 1
    with pytest.raises(ProjectError, match="closed"):
        thief.annotate("a", labels)


@pytest.mark.parametrize(
    ("holder", "free"),
    [
        ({"host": "elsewhere", "pid": 1, "user": "ann", "since": "noon"}, False),
        ({"pid": "x"}, True),
        ({"pid": os.getpid(), "birth": "another life"}, True),  # the number was used again
        ("", True),
        ("{", True),
    ],
)
def test_locks_found(project, holder, free):
    project.close()
    if isinstance(holder, dict):
        own = {"host": socket.gethostname()}
        holder = json.dumps({**own, **holder})
    (project.path / "project.lock").write_text(holder)
    if free:
        Project.open(project.path).close()
    else:
        with pytest.raises(ProjectLocked, match="on elsewhere"):
            Project.open(project.path)
        Project.open(project.path, steal_lock=True).close()


# ---- folders from anywhere -----------------------------------------------------------------------------------------


def rewrite(project, change):
    project.close()
    path = project.path / "project.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def rename(new):
    return lambda d: d["cases"].update({new: d["cases"].pop("a")})


def put(**facts):
    return lambda d: d["cases"]["a"].update(facts)


@pytest.mark.parametrize(
    "change",
    [
        rename("../../evil"), rename("/etc/evil"), rename("a/b"), rename(".."), rename(""), rename("a\\b"),
        rename("C:evil"), rename("x" * 500), rename("SCAN"), rename("aux"),
        put(shape=[20]), put(shape=[0, 30]), put(shape="big"), put(relative="/etc/passwd"), put(relative="C:\\x"),
        put(geometry={}), put(geometry=7), put(accepted=[-1]), put(mask="yes"), put(unknown=1),
        lambda d: d.update(classes=["one"]), lambda d: d.update(colours=["red"] * 3), lambda d: d.pop("name"),
        lambda d: d.update(cases=[]), lambda d: d.update(schema="1"),
    ],
)  # fmt: skip
def test_a_hostile_document_is_refused(project, change):
    rewrite(project, change)
    with pytest.raises(ProjectError, match="damaged") as caught:
        Project.open(project.path)
    assert caught.value.hint
    assert not (project.path / "project.lock").exists()


@pytest.mark.parametrize("text", ["", "{", "[" * 100000, "\x00\xff", "null", "[]", '{"schema": 1}'])
def test_a_damaged_document(project, text):
    project.close()
    (project.path / "project.json").write_text(text, encoding="latin-1")
    with pytest.raises(ProjectError, match="damaged"):
        Project.open(project.path)


def test_a_newer_project(project):
    rewrite(project, lambda d: d.update(schema=99, brand_new=True))
    with pytest.raises(ProjectError, match="newer") as caught:
        Project.open(project.path)
    assert "Update" in caught.value.hint


def test_what_is_no_project(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ProjectError, match="not a project"):
            Project.open(path)
    image = image_2d(tmp_path / "a.tif")
    with pytest.raises(ProjectError):
        Project.open(image)
    with pytest.raises(ProjectError, match="exists already"):
        Project.create(tmp_path, ["a", "b"])
    Project.create(tmp_path / "p", ["a", "b"]).close()
    with pytest.raises(ProjectError, match="already a project"):
        Project.create(tmp_path / "p", ["a", "b"])
    Project.open(tmp_path / "p" / "project.json").close()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("name", ["annotations", "masks", "images", "models", "log.jsonl", "state.json"])
def test_links_do_not_lead_writing_outside(project, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    for link in (project.path / name,):
        link.unlink(missing_ok=True)
        link.symlink_to(outside / "file" if "." in name else outside)
    labels = np.ones((20, 30), int)
    changes = {
        "annotations": lambda: project.annotate("a", labels),
        "masks": lambda: project.save_mask("a", labels),
        "images": lambda: project.add_array("b", Volume(labels[None].astype(np.uint8))),
        "models": project.new_model_folder,
        "log.jsonl": lambda: project.log("x"),
        "state.json": lambda: setattr(project, "state", {}),
    }
    with pytest.raises(ProjectError, match="outside"):
        changes[name]()
    assert list(outside.iterdir()) == []


def test_a_damaged_revision_names_its_file(project):
    project.annotate("a", np.ones((20, 30), int))
    project.annotate("a", np.full((20, 30), 2))
    path = project.path / "annotations" / "a" / "0002.tif"
    for damaged in (path.read_bytes()[:-40], b"", b"II*\x00rubbish", path.read_bytes()[:20] + b"\xff" * 80):
        path.write_bytes(damaged)
        with pytest.raises(ProjectError, match=r"0002\.tif"):
            project.annotation("a")
    path.unlink()
    assert project.annotation("a").data.max() == 1


def test_a_damaged_state_counts_as_none(project):
    for text in ("{", "[1]", "[" * 100000):
        (project.path / "state.json").write_text(text)
        assert project.state == {}


def test_left_overs_of_killed_writers_are_removed(project):
    project.annotate("a", np.ones((20, 30), int))
    left = [project.path / ".0123abcd-project.json", project.path / "annotations" / "a" / ".0123abcd-0001.tif"]
    for path in left:
        path.write_text("half")
    project = again(project)
    assert not any(path.exists() for path in left)
    assert project.annotation("a").data.all()
    project.close()


def test_a_label_volume_is_taken_by_its_voxels(project):
    assert project.annotate("a", LabelVolume(np.ones((20, 30), np.uint16))) == 1
    project.annotate("scan", np.zeros((5, 12, 14), bool))
    assert project.annotated() == ["a"]


def test_no_torch_and_no_window():
    code = (
        "import sys, napari_unetseg.project, napari_unetseg.samples;"
        "print([name for name in ('torch', 'napari', 'qtpy') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("suffix", [".ome.zarr", ".mhd", ".nhdr"])
def test_images_of_several_files_are_copied_as_a_whole(project, suffix, tmp_path):
    data = np.random.default_rng(0).integers(0, 99, (1, 4, 5, 6)).astype(np.uint8)
    folder = tmp_path / "away"
    folder.mkdir()
    if suffix == ".ome.zarr":
        write(folder / "a.ome.zarr", Volume(data))
    else:
        (folder / "a.raw").write_bytes(data.tobytes())
        (folder / f"a{suffix}").write_text(
            "NDims = 3\nDimSize = 6 5 4\nElementType = MET_UCHAR\nElementDataFile = a.raw\n"
            if suffix == ".mhd"
            else "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 6 5 4\nencoding: raw\ndata file: a.raw\n"
        )
    case = project.add(folder / f"a{suffix}", copy=True)
    shutil.rmtree(folder)
    assert np.array_equal(project.image(case).data, data)
    project.save_mask(case, (data[0] > 50).astype(np.uint8))
    assert np.array_equal(project.mask(case).data, data[0] > 50)
