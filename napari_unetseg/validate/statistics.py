"""Means, deviations and paired tests of the scores of several nets on the same cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

__all__ = ["MEAN", "holm", "paired_tests", "summarise", "summarised"]

_ALWAYS, _WHERE_ASKED = ("dice", "jaccard", "hausdorff95"), ("v_rand", "v_info")
MEAN = "mean of classes"

Row = Mapping[str, Any]


def summarised(rows: Sequence[Row]) -> tuple[str, ...]:
    """Metrics that `summarise` gives of these rows: Dice, Jaccard, HD95, and V_rand and V_info where they have them."""
    return *_ALWAYS, *(name for name in _WHERE_ASKED if rows and name in rows[0])


def summarise(rows: Sequence[Row], nets: Sequence[str]) -> list[dict[str, Any]]:
    """Mean and deviations of each net and class, over the cases where a metric is defined.

    Parameters
    ----------
    rows : sequence of mapping
        One a case, net and class: ``net, fold, group, case, class`` and the metrics, None where undefined.
    nets : sequence of str
        In the order they are to be listed; one without rows has no numbers.

    Returns
    -------
    list of dict
        One a net and class, with ``net, class, cases, folds`` and, for each metric, ``_n`` cases, ``_mean`` and ``_sd``
        over these cases, and ``_sd_folds``: the deviation of the folds' means. Deviations are of a sample (n - 1), None
        with fewer than two. With several classes, a row more for their mean in each case.
    """
    classes = list(dict.fromkeys(row["class"] for row in rows))
    table, metrics = [], summarised(rows)
    for net in nets:
        mine = [row for row in rows if row["net"] == net]
        groups = [(name, [row for row in mine if row["class"] == name]) for name in classes]
        if len(classes) > 1:
            groups.append((MEAN, _over_classes(mine, metrics)))
        table += [_summary(net, name, found, metrics) for name, found in groups or [("", [])]]
    return table


def paired_tests(rows: Sequence[Row], nets: Sequence[str]) -> list[dict[str, Any]]:
    """Wilcoxon's signed-rank test of every pair of nets, on Dice, with Holm's correction over all pairs.

    The Dice of a case is the mean over its classes. Cases of one group (a patient, a video) are not independent of each
    other: they are averaged first, so that a group counts once. Only what both nets have segmented is compared.

    Returns
    -------
    list of dict
        One a pair: ``net, other, pairs`` (how many), ``difference`` (mean of net minus other), ``p`` and ``p_holm``
        (two-sided; None when there is nothing to compare).
    """
    from scipy import stats  # half a second, which `score` need not wait for

    units = {net: _units([row for row in rows if row["net"] == net]) for net in nets}
    tests: list[dict[str, Any]] = []
    for net, other in combinations(nets, 2):
        both = [unit for unit in units[net] if unit in units[other]]
        one, two = (np.array([units[name][unit] for unit in both]) for name in (net, other))
        p = difference = None
        if both:
            difference = float(np.mean(one - two))
            p = 1.0 if np.array_equal(one, two) else float(stats.wilcoxon(one, two).pvalue)
        tests.append({"net": net, "other": other, "pairs": len(both), "difference": difference, "p": p})
    corrected = iter(holm([test["p"] for test in tests if test["p"] is not None]))
    for test in tests:
        test["p_holm"] = None if test["p"] is None else next(corrected)
    return tests


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm 1979), in the order given."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1.0)
    corrected = np.empty_like(p)
    corrected[order] = stepped
    return corrected.tolist()


def _summary(net: str, name: str, rows: Sequence[Row], metrics: Sequence[str]) -> dict[str, Any]:
    folds = sorted({row["fold"] for row in rows})
    summary: dict[str, Any] = {"net": net, "class": name, "cases": len(rows), "folds": len(folds)}
    for metric in metrics:
        values = _defined(rows, metric)
        by_fold = [_defined((row for row in rows if row["fold"] == fold), metric) for fold in folds]
        means = [float(np.mean(found)) for found in by_fold if found]
        summary[f"{metric}_n"] = len(values)
        summary[f"{metric}_mean"] = float(np.mean(values)) if values else None
        summary[f"{metric}_sd"] = _deviation(values)
        summary[f"{metric}_sd_folds"] = _deviation(means)
    return summary


def _over_classes(rows: Sequence[Row], metrics: Sequence[str]) -> list[Row]:
    """One row a case: metrics averaged over the classes, where all of them are defined."""
    cases: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        cases.setdefault((row["fold"], row["group"], row["case"]), []).append(row)
    merged: list[Row] = []
    for (fold, group, case), found in cases.items():
        mean: dict[str, Any] = {"fold": fold, "group": group, "case": case}
        for metric in metrics:
            values = _defined(found, metric)
            mean[metric] = float(np.mean(values)) if len(values) == len(found) else None
        merged.append(mean)
    return merged


def _units(rows: Sequence[Row]) -> dict[tuple[Any, Any], float]:
    """Mean Dice of each independent unit: a group, of which a fold may hold one block."""
    units: dict[tuple[Any, Any], list[float]] = {}
    for row in _over_classes(rows, ("dice",)):
        units.setdefault((row["fold"], row["group"]), []).append(row["dice"])
    return {unit: float(np.mean(values)) for unit, values in units.items()}


def _defined(rows: Iterable[Row], metric: str) -> list[float]:
    return [row[metric] for row in rows if row[metric] is not None]


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
