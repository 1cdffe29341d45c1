"""The *Advanced* drawer of the train panel: what may be changed about an architecture, all decided by default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtWidgets import QPushButton, QWidget

from napari_unetseg.widgets.context import Context
from napari_unetseg.widgets.drawer import Drawer
from napari_unetseg.widgets.fields import Form
from napari_unetseg.widgets.net_row import weights
from napari_unetseg.widgets.parts import Choice, label, set_role
from napari_unetseg.widgets.planned import PlannedBox
from napari_unetseg.widgets.segmenting_box import SegmentingBox

__all__ = ["AdvancedDrawer"]

_WIDTHS = (
    ("decided for me", None),
    ("double: finer, about 4 times slower", 2.0),
    ("full, as in the paper", 1.0),
    ("half, about 4 times faster", 0.5),
    ("quarter, faster still", 0.25),
    ("eighth, for a quick look", 0.125),
)
_DEPTHS = (
    ("decided for me", None),
    *((f"{depth} levels: down to 1/{2 ** (depth - 1)} of the size", depth) for depth in range(2, 8)),
)
_NORMS = (
    ("decided for me", None),
    ("the paper's own", "paper"),
    ("instance: each image by itself", "instance"),
    ("batch: over the patches of a step", "batch"),
    ("group: a few features together", "group"),
    ("none", "none"),
)
_DROPOUTS = (
    ("decided for me", None),
    ("0.1, mild", 0.1),
    ("0.2, usual", 0.2),
    ("0.3, strong", 0.3),
    ("0.5, very strong", 0.5),
)
_STARTS = (("from scratch", None), ("ImageNet: a million photographs", "imagenet"))
_FIELDS: dict[str, tuple[str, Sequence[tuple[str, Any]]]] = {
    "width": ("Width", _WIDTHS),
    "depth": ("Depth", _DEPTHS),
    "norm": ("Normalisation", _NORMS),
    "dropout": ("Dropout", _DROPOUTS),
    "pretrained": ("Start weights", _STARTS),
}
_OWN = ("decided for me", None)

_TIPS = {
    "width": "Number of features, as a factor on the paper's. Fewer are faster and a little less exact. "
    "Typical, and decided for you: 0.5 on a processor, 1 on a graphics card.",
    "depth": "Resolution levels. More levels see a wider surrounding, for large objects; fewer are faster. "
    "Typical: 4 to 6, 5 in most papers, whose own is decided for you.",
    "norm": "How the net keeps its numbers in range while it learns. Decided for you: instance, which holds with one "
    "or two patches a step; the paper's own gives the published net to the last weight.",
    "dropout": "Share of features left out at random in each step, against learning few images by heart. "
    "Typical: 0 to 0.3; decided for you: none.",
    "block": "What each level is made of, in place of the architecture's own block. Any block goes with any skip.",
    "skip": "How fine detail reaches the output, in place of the architecture's own way. Sharp and residual-path skips "
    "are made for crisp boundaries.",
    "pretrained": "Begin with an encoder that has seen a million photographs: for colour images and few strokes. "
    "Needs full width, and a file that is downloaded once.",
}
_KINDS = {"block": "Block", "skip": "Skips"}


class AdvancedDrawer(Drawer):
    """Width, depth, normalisation, dropout, block and skip of the net, patches, segmenting; closed at first.

    Parameters
    ----------
    context : Context
        Whose workspace has the plan; the choices go into its `net` section.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(
            "Advanced", "Width, depth, normalisation and parts of the net; all are decided for you otherwise"
        )
        self.context = context
        workspace = context.workspace
        self.fields = {name: Choice(options, _TIPS[name]) for name, (_, options) in _FIELDS.items()}
        self.parts = {kind: Choice((_OWN,), _TIPS[kind]) for kind in _KINDS}
        self.check = label("")
        self.planned = PlannedBox(context)
        self.segmenting = SegmentingBox(context)
        self.reset = QPushButton("Decide all for me")
        self.reset.setToolTip("Take back every choice of this drawer")
        self._lay_out()
        for name, box in self.fields.items():
            box.chosen.connect(lambda value, name=name: self._choose(name, value))
        for kind, box in self.parts.items():
            box.chosen.connect(lambda value, kind=kind: self._compose(kind, value))
        self.reset.clicked.connect(self._reset)
        workspace.plan_changed.connect(self._show)
        workspace.nets_changed.connect(self._take_parts)
        workspace.net_checked.connect(self._show_check)
        self._take_parts()
        self._show_check()

    def _lay_out(self) -> None:
        box = QWidget()
        form = Form(box, inset=8)
        titles = {name: form.field(_FIELDS[name][0], field) for name, field in self.fields.items()}
        self._start_label = titles["pretrained"]
        for kind, field in self.parts.items():
            form.field(_KINDS[kind], field)
        for below in (self.check, self.planned, label("When images are segmented", "muted"), self.segmenting):
            form.addRow(below)
        form.addRow(self.reset)
        self.add(box)

    # -- choosing ---------------------------------------------------------------------------------------------

    def _choose(self, field: str, value: Any) -> None:
        workspace = self.context.workspace
        if value is None:
            self.context.do(workspace.decide_for_me, "net", field)
        else:
            self.context.do(workspace.change_plan, net={field: value})

    def _reset(self) -> None:
        workspace = self.context.workspace
        self.segmenting.reset()
        self.context.do(workspace.decide_for_me, "training", *self.planned.fields)
        self.context.do(workspace.decide_for_me, "net", *self.fields, "parts")

    def _compose(self, kind: str, value: Any) -> None:
        parts = {**self.context.workspace.plan.net.parts, kind: value}
        self._choose("parts", {key: part for key, part in parts.items() if part is not None} or None)

    # -- shown ------------------------------------------------------------------------------------------------

    def _take_parts(self, _: Any = None) -> None:
        for kind, box in self.parts.items():
            sentences = self.context.workspace.parts.get(kind, {})
            box.set_options((_OWN, *((f"{told} ({name})", name) for name, told in sentences.items())))
        self._show()

    def _show(self, _: Any = None) -> None:
        workspace = self.context.workspace
        plan, given = workspace.plan, []
        for name, box in self.fields.items():
            value = getattr(plan.net, name) if plan.given("net", name) else None
            box.set_value(value)
            given += [f"{name} {value}"] if value is not None else []
        for kind, box in self.parts.items():
            part = plan.net.parts.get(kind)
            box.set_value(part)
            given += [f"{part} {kind}s"] if part is not None else []
        given += [f"{name.partition('_')[0]} given" for name in self.planned.fields if plan.given("training", name)]
        given += self.segmenting.given
        net = next((net for net in workspace.nets if net["name"] == plan.net.name), {})
        possible = bool(net.get("pretrained") or plan.net.pretrained)
        self.fields["pretrained"].setVisible(possible)
        self._start_label.setVisible(possible)
        self.reset.setEnabled(bool(given))
        self.say(", ".join(given) or "all decided for me")

    def _show_check(self, _: Any = None) -> None:
        check = self.context.workspace.net_check
        problem = check.get("problem", "")
        if problem:
            self.check.setText(f"{problem} {check['hint']}")
        elif check:
            norm = "the paper's normalisation" if check["norm"] == "paper" else f"{check['norm']} normalisation"
            norm = "no normalisation" if check["norm"] == "none" else norm
            count = weights(check["parameters"]["trainable"])
            self.check.setText(f"This net will have {count}: width {check['width']:g}, {norm}.")
        else:
            self.check.setText("")
        self.check.setVisible(bool(check))
        set_role(self.check, "error" if problem else "muted")
