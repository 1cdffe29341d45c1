"""Studies in napari: dropped, asked about, shown in their place."""

from __future__ import annotations

import dicoms
import napari
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QApplication

from napari_unetseg.errors import ReadError
from napari_unetseg.io import read, write
from napari_unetseg.volume import LabelVolume
from napari_unetseg.widgets.napari_io import get_reader
from napari_unetseg.widgets.series_dialog import SeriesDialog


@pytest.fixture
def study(tmp_path):
    dicoms.series(tmp_path / "study" / "a", dicoms.values(), SeriesNumber=2)
    dicoms.series(tmp_path / "study" / "b", dicoms.values((9, 8, 10)), SeriesNumber=5, tilt=0.3)
    return tmp_path / "study"


@pytest.fixture
def viewer(qapp, monkeypatch):
    made = ViewerModel()
    monkeypatch.setattr(napari, "current_viewer", lambda: made)
    return made


def dialogs() -> list[SeriesDialog]:
    return [w for w in QApplication.topLevelWidgets() if isinstance(w, SeriesDialog) and w.isVisible()]


def test_a_series_folder_is_a_layer_in_its_place(study):
    path = str(study / "a")
    ((data, options, kind),) = get_reader(path)(path)
    layer = Image(data, **options)
    scan = read(path)
    assert (kind, layer.name, layer.axis_labels) == ("image", "a", ("z", "y", "x"))
    assert layer.scale == pytest.approx(scan.geometry.spacing)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert layer.metadata["geometry"].matches(scan.geometry)


def test_a_study_asks_which_series_without_stopping_the_window(study, viewer, qtbot):
    path = str(study)
    assert get_reader(path)(path) == [(None,)], "napari adds nothing yet"
    (dialog,) = dialogs()
    assert not dialog.isModal()
    texts = [dialog.list.item(row).text() for row in range(dialog.list.count())]
    assert texts == ["a: number 2, CT, 6 slices of 8 x 10", "b: number 5, CT, 9 slices of 8 x 10"]
    assert [p.name for p in dialog.chosen()] == ["b"], "the largest is taken beforehand"
    assert not viewer.layers
    notification_manager.records.clear()
    dialog.list.selectAll()
    dialog.open_button.click()
    assert [layer.name for layer in viewer.layers] == ["a", "b"]
    assert any("gantry tilt" in note.message for note in notification_manager.records)
    assert not any(t in n.message.lower() for n in notification_manager.records for t in dicoms.TRACES)
    assert not dialogs()


def test_cancel_opens_nothing(study, viewer):
    get_reader(str(study))(str(study))
    (dialog,) = dialogs()
    dialog.list.clearSelection()
    assert not dialog.open_button.isEnabled()
    dialog.reject()
    assert not viewer.layers


def test_a_series_that_cannot_be_read_does_not_keep_the_others_out(study, viewer):
    get_reader(str(study))(str(study))
    for path in (study / "a").iterdir():
        path.write_bytes(path.read_bytes()[:-50])
    (dialog,) = dialogs()
    dialog.list.selectAll()
    notification_manager.records.clear()
    dialog.accept()
    assert [layer.name for layer in viewer.layers] == ["b"]
    assert any("cut short" in note.message for note in notification_manager.records)


def test_the_files_of_a_series_dropped_together_are_one_layer(study, viewer):
    for path in sorted(map(str, (study / "b").iterdir())):
        for layer in get_reader(path)(path):
            if len(layer) == 3:  # (None,) is nothing
                viewer.add_layer(Image(layer[0], **layer[1]))
    assert [layer.data.shape for layer in viewer.layers] == [(9, 8, 10)]


def test_without_a_window_the_choices_are_named(study, monkeypatch):
    monkeypatch.setattr(napari, "current_viewer", lambda: None)
    with pytest.raises(ReadError, match="holds 2 series"):
        get_reader(str(study))(str(study))


def test_a_dicom_seg_is_labels(study):
    pytest.importorskip("highdicom")
    scan = read(study / "a")
    mask = LabelVolume((np.arange(480).reshape(6, 8, 10) % 3).astype(np.uint8))
    path = str(write(study / "mask.dcm", mask, like=scan))
    ((data, options, kind),) = get_reader(path)(path)
    assert kind == "labels"
    assert np.array_equal(Labels(data, **options).data, mask.data)


def test_folders_without_dicom_are_left_to_others(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "0").write_bytes(b"a chunk" * 50)
    assert get_reader(str(tmp_path / "plain")) is None


def test_the_images_panel_takes_a_study(bench, study):
    bench.images.add_paths([str(path) for path in (study / "b").iterdir()])
    assert bench.context.workspace.cases[-1] == "b", "its files are one image"
    bench.images.add_paths([str(study)])
    assert bench.context.workspace.cases[-2:] == ("b", "a")
