"""`Choice`: the plan of the next training, and what is known about the architectures to choose from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from napari_unetseg.plan import Plan
from napari_unetseg.workspace.desk import MINUTES, Desk
from napari_unetseg.workspace.state import Jobs

__all__ = ["Choice"]


class Choice(Desk):
    """What the user chooses before training."""

    def __init__(self, jobs: Jobs) -> None:
        super().__init__()
        self._jobs = jobs
        self._asked: dict[str, Any] = {}
        self._checked: dict[str, Any] = {}
        for changed in (self.case_changed, self.classes_changed, self.plan_changed):
            changed.connect(self._keep_facts)

    def change_plan(self, **sections: Mapping[str, Any]) -> Plan:
        """Replace some fields: ``change_plan(net={"name": "unet3d"}, training={"minutes": 5})``."""
        return self._plan_so(self.plan.change(**sections))

    def decide_for_me(self, section: str, *names: str) -> Plan:
        """Take fields back, to be decided from the images and the device when training starts."""
        values = self.plan.model_dump(exclude_unset=True, by_alias=True)
        for name in names:
            values.get(section, {}).pop(name, None)
        return self._plan_so(Plan(**values))

    def _plan_so(self, plan: Plan) -> Plan:
        self.plan = plan
        self.remember(plan=json.loads(plan.to_json(complete=False)))
        self.plan_changed.emit(plan)
        return plan

    def title_of(self, net: str) -> str:
        """What people call an architecture: ``"U-Net"`` for ``"unet"``; its name while no more is known.

        ``"unet:dice"``, a net with a loss, is ``"U-Net, overlap (Dice)"``.
        """
        if net == "instant":
            return "instant model"
        net, _, loss = net.partition(":")
        title = next((str(facts["title"]) for facts in self.nets if facts["name"] == net), net)
        said = self.losses.get(loss, {}).get("title", loss)
        return f"{title}, {said[0].lower()}{said[1:]}" if said else title

    def ask_nets(self) -> None:
        """Have the facts about the architectures computed, for images like the one in hand; see `nets_changed`.

        From then on they are kept up to date with image, classes and plan, and so is `net_check`.
        """
        self._asked = self._shapes()
        self._jobs.submit("nets", self._asked, self._on_nets)
        self._check_net()

    def ask_plan(self, then: Callable[[Mapping[str, Any]], None]) -> None:
        """Have all decisions for the next training, its time and its memory told before it begins.

        `then` gets the answer of the verb ``plan``; ``message`` and ``hint`` where there is none. An answer for a plan
        that was changed meanwhile is dropped.
        """
        project, plan = self._ready("train"), self.plan
        given = json.loads(plan.to_json(complete=False))
        args = {"project": str(project.path), "plan": given, "minutes": plan.training.minutes or MINUTES}

        def answered(event: Mapping[str, Any]) -> None:
            if plan is not self.plan or project is not self.project:
                return
            if event["event"] == "Done":
                then(event["result"])
            elif event["event"] == "Failed":
                then(event)

        self._jobs.submit("plan", args, answered)

    @property
    def asking(self) -> bool:
        """Whether the facts about the architectures were asked for and did not fail to come."""
        return bool(self._asked)

    def _shapes(self) -> dict[str, Any]:
        """What goes into a net and out of it, for images like the one in hand."""
        image, classes = self._image, len(self.classes)
        dims = self.plan.net.dims if image is None or self.plan.given("net", "dims") else image.ndim
        channels = 1 if image is None else image.data.shape[0]
        return {"dims": dims, "in_channels": channels, "outputs": classes if classes > 2 else 1}

    def _on_nets(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "Done":
            self.nets, self.parts = tuple(event["result"]["nets"]), event["result"]["parts"]
            self.losses = event["result"].get("losses", {})
            self.nets_changed.emit(self.nets)
            self._keep_facts()  # for an image that was taken in hand meanwhile
        elif event["event"] == "Failed":
            self._asked = {}
            self.complain(event)

    def _keep_facts(self, _: object = None) -> None:
        if not self.nets:  # nobody asked yet
            return
        if self._asked != self._shapes():
            self.ask_nets()
        else:
            self._check_net()

    def _check_net(self) -> None:
        net = json.loads(self.plan.net.model_dump_json(exclude_unset=True))
        asked = {"net": net, **self._shapes()}
        if asked != self._checked:
            self._checked = asked
            self._net_is({})
            self._jobs.submit("check_net", asked, lambda event: self._on_net_checked(asked, event))

    def _on_net_checked(self, asked: dict[str, Any], event: Mapping[str, Any]) -> None:
        if asked is not self._checked:  # another net was chosen meanwhile
            return
        if event["event"] == "Done":
            self._net_is(dict(event["result"]))
        elif event["event"] == "Failed":
            self._checked = {}

    def _net_is(self, check: dict[str, Any]) -> None:
        self.net_check = check
        self.net_checked.emit(check)
        self.actions_changed.emit()
