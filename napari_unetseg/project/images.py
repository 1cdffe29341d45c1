"""The images of a project: where they are, their grids and groups."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from napari_unetseg.errors import ProjectError
from napari_unetseg.io import atomic_write, names_patients, read, stem, write
from napari_unetseg.project.document import CaseEntry
from napari_unetseg.project.folder import ProjectFolder
from napari_unetseg.project.names import unique_name
from napari_unetseg.volume import Volume

__all__ = ["ProjectImages"]

logger = logging.getLogger(__name__)


# headers whose values lie in another file, which a copy would leave behind
_DETACHED = (".mhd", ".nhdr")


class ProjectImages(ProjectFolder):
    """A project's images; the storey between its folder and its labels."""

    def add(self, image_path: str | os.PathLike[str], *, group: str | None = None, copy: bool = False) -> str:
        """Add an image file, and return the name it goes by.

        Parameters
        ----------
        image_path : path
            The file; it is read once, to be sure that it can be.
        group : str, optional
            Patient, animal or slide it is of; images of one group are held out together.
        copy : bool
            Copy the file into the project; DICOM is copied as NIfTI or TIFF, without the patient's name. Otherwise the
            project remembers where it is: relative to the project folder where it lies near, so that both may be moved
            together.

        Returns
        -------
        str
            A name of its own, from the file's. An image that is there already keeps its name, and one that was removed
            comes back with its strokes.

        Raises
        ------
        ReadError
            If the file is no image.
        ProjectError, WriteError
            If the project is read-only, taken over, or cannot be written.
        """
        self.check()
        source = Path(os.path.abspath(Path(image_path).expanduser()))
        _check_text(str(source))
        volume = read(source)
        with self._mutex:
            known = {entry.absolute: case for case, entry in {**self._doc.removed, **self._doc.cases}.items()}
            if (case := known.get(str(source))) is not None:
                self.restore(case)
                if group is not None:
                    self.set_group(case, group)
                return case
            case = unique_name(stem(source), self._taken())
            target = source
            if copy and (names_patients(source) or source.suffix.lower() in _DETACHED):
                target = self._inside("images", case + _suffix_for(volume))
                write(target, volume, like=volume)
            elif copy:
                target = self._inside("images", case + source.name[len(stem(source)) :])
                atomic_write(target, lambda beside: _copy(source, beside), folder=source.is_dir())
            self._commit(self._doc.with_case(case, self._describe(source, target, volume, group)))
            self.log("added", case=case)
        return case

    def add_array(self, name: str, volume: Volume, *, group: str | None = None) -> str:
        """Save an image that has no file (a layer, say) inside the project, and add it.

        Parameters
        ----------
        name : str
            What to call it; made unique and safe.
        volume : Volume
            The image; saved as NIfTI when it lies in patient space, else as TIFF.
        group : str, optional
            As in `add`.
        """
        self.check()
        with self._mutex:
            case = unique_name(name, self._taken())
            target = self._inside("images", case + _suffix_for(volume))
            write(target, volume, like=volume)
            # described as it reads back: a format may keep less of the geometry than the layer had
            self._commit(self._doc.with_case(case, self._describe(target, target, read(target), group)))
            self.log("added", case=case)
        return case

    def remove(self, case: str) -> None:
        """Take an image out of the project; its strokes stay on disk, and come back when it is added again."""
        with self._mutex:
            entry = self._entry(case)
            cases = {name: other for name, other in self._doc.cases.items() if name != case}
            removed = {**self._doc.removed, case: entry}
            self._commit(self._doc.model_copy(update={"cases": cases, "removed": removed}))
            self.log("removed", case=case)

    def relink(self, case: str, image_path: str | os.PathLike[str]) -> None:
        """Say where the image of `case` is now.

        Raises
        ------
        ReadError
            If the file is no image.
        ProjectError
            If it has another shape than the image that was annotated.
        """
        source = Path(os.path.abspath(Path(image_path).expanduser()))
        _check_text(str(source))
        volume = read(source)
        with self._mutex:
            self._check_shape(case, volume, source)
            found = self._describe(source, source, volume, None)
            self._change(case, absolute=found.absolute, relative=found.relative, geometry=found.geometry)

    def image_path(self, case: str) -> Path:
        """File of an image.

        Raises
        ------
        ProjectError
            If the file is not where it was.
        """
        entry = self._entry(case)
        near = Path(os.path.normpath(self.path / entry.relative)) if entry.relative else None
        for path in (near, Path(entry.absolute)):
            if path is not None and path.is_absolute() and path.exists():
                return path
        raise ProjectError(
            f"The image of {case} is missing: {near or entry.absolute}.",
            hint="Put it back there, add it from where it is now (in Python: relink), or remove it; its strokes stay.",
        )

    def image(self, case: str) -> Volume:
        """Read an image, ``(C, [Z,] Y, X)``.

        Raises
        ------
        ProjectError
            If it is missing, or has another shape than when it was added.
        ReadError
            If it can no longer be read.
        """
        path = self.image_path(case)
        volume = read(path)
        self._check_shape(case, volume, path)
        entry = self._entry(case)
        if not volume.geometry.matches(entry.grid):
            # somebody corrected the header: strokes lie on the voxels, and go with them
            logger.info("The geometry of %s has changed.", case)
            changed = entry.model_copy(update={"geometry": volume.geometry.to_dict()})
            self._doc = self._doc.with_case(case, changed)
        return volume

    def shape(self, case: str) -> tuple[int, ...]:
        """Shape ``([Z,] Y, X)`` of an image, without reading it."""
        return self._entry(case).shape

    def group(self, case: str) -> str | None:
        """Patient, animal or slide that an image is of."""
        return self._entry(case).group

    def set_group(self, case: str, group: str | None) -> None:
        """Say which patient, animal or slide an image is of."""
        with self._mutex:
            if self._entry(case).group != group:
                self._change(case, group=group)

    # ---- how an image is remembered ----------------------------------------------------------------------------

    def _describe(self, source: Path, target: Path, volume: Volume, group: str | None) -> CaseEntry:
        """Entry for an image: `target` is the file to read, `source` what the user knows it by."""
        near = target.is_relative_to(self.path.parent)
        relative = Path(os.path.relpath(target, self.path)).as_posix() if near else ""
        return CaseEntry(
            absolute=str(source), relative=relative, shape=volume.shape, geometry=volume.geometry.to_dict(), group=group
        )

    def _taken(self) -> set[str]:
        """Names that a new image may not get, those of strokes on disk that no image claims among them."""
        folder = self.path / "annotations"
        strays = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        return strays.union(self._doc.cases, self._doc.removed)

    def restore(self, case: str) -> None:
        """Undo `remove`; harmless when it was not removed."""
        if case in self._doc.removed:
            removed = {name: entry for name, entry in self._doc.removed.items() if name != case}
            cases = {**self._doc.cases, case: self._doc.removed[case]}
            self._commit(self._doc.model_copy(update={"cases": cases, "removed": removed}))
            self.log("restored", case=case)

    def _check_shape(self, case: str, volume: Volume, path: Path) -> None:
        expected = self._entry(case).shape
        if volume.shape != expected:
            raise ProjectError(
                f"{path} has the shape {volume.shape}, but {case} was annotated on {expected}.",
                hint="Put the image back that was added, or add this one under another name.",
            )


def _suffix_for(volume: Volume) -> str:
    """Format for an image that is saved by the project itself."""
    return ".nii.gz" if volume.geometry.world else ".tif"


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _check_text(path: str) -> None:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ProjectError(
            f"The name of {path!a} holds characters that cannot be read.", hint="Rename the file or its folder."
        ) from error
