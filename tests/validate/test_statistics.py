"""Means, deviations and paired tests, against numpy, scipy and a textbook example."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from napari_unetseg.validate import holm, paired_tests, summarise
from napari_unetseg.validate.statistics import MEAN


def row(net, case, dice, *, fold=0, group=None, name="cell", hausdorff95=1.0):
    facts = {"net": net, "fold": fold, "group": group or case, "case": case, "class": name}
    return {**facts, "dice": dice, "jaccard": dice / (2 - dice), "hausdorff95": hausdorff95}


def scores(net, shift, seed=0, number=12):
    values = np.random.default_rng(seed).uniform(0.4, 0.8, number)
    noise = np.random.default_rng(ord(net)).normal(0, 0.02, number)
    return [row(net, f"c{i}", float(v), fold=i % 3) for i, v in enumerate(values + shift + noise)]


def test_means_and_deviations_are_numpys():
    rows = scores("a", 0) + scores("b", 0.1)
    table = summarise(rows, ("a", "b"))
    assert [entry["net"] for entry in table] == ["a", "b"]
    mine = np.array([r["dice"] for r in rows if r["net"] == "a"])
    by_fold = [mine[fold::3].mean() for fold in range(3)]
    assert table[0]["dice_mean"] == pytest.approx(mine.mean())
    assert table[0]["dice_sd"] == pytest.approx(mine.std(ddof=1))
    assert table[0]["dice_sd_folds"] == pytest.approx(np.std(by_fold, ddof=1))
    assert (table[0]["cases"], table[0]["folds"], table[0]["dice_n"]) == (12, 3, 12)


def test_distances_are_averaged_where_they_are_defined():
    rows = [row("a", "one", 0.5, hausdorff95=2.0), row("a", "two", 0.0, hausdorff95=None)]
    (entry,) = summarise(rows, ("a",))
    assert (entry["hausdorff95_mean"], entry["hausdorff95_n"], entry["hausdorff95_sd"]) == (2.0, 1, None)
    assert entry["dice_mean"] == 0.25


def test_several_classes_have_a_mean_of_their_own():
    rows = [row("a", case, dice, name=name) for case, pair in {"x": (0.2, 0.6), "y": (0.4, 0.8)}.items()
            for name, dice in zip(("liver", "tumour"), pair, strict=True)]  # fmt: skip
    table = {entry["class"]: entry for entry in summarise(rows, ("a",))}
    assert list(table) == ["liver", "tumour", MEAN]
    assert table[MEAN]["dice_mean"] == pytest.approx(0.5)
    assert table[MEAN]["dice_sd"] == pytest.approx(np.std([0.4, 0.6], ddof=1))


def test_a_net_without_any_score_keeps_its_row():
    table = summarise([row("a", "x", 0.5)], ("a", "b"))
    assert (table[1]["net"], table[1]["cases"], table[1]["dice_mean"]) == ("b", 0, None)
    assert summarise([], ("a",))[0]["dice_mean"] is None


def test_paired_tests_are_scipys_corrected_by_holm():
    nets = {"a": 0.0, "b": 0.1, "c": 0.01}
    rows = [r for net, shift in nets.items() for r in scores(net, shift)]
    dice = {net: np.array([r["dice"] for r in rows if r["net"] == net]) for net in nets}
    tests = paired_tests(rows, tuple(nets))
    assert [(test["net"], test["other"]) for test in tests] == [("a", "b"), ("a", "c"), ("b", "c")]
    for test in tests:
        one, two = dice[test["net"]], dice[test["other"]]
        assert test["p"] == pytest.approx(stats.wilcoxon(one, two).pvalue)
        assert test["difference"] == pytest.approx((one - two).mean())
        assert test["pairs"] == 12
    assert [test["p_holm"] for test in tests] == pytest.approx(holm([test["p"] for test in tests]))
    assert tests[0]["p_holm"] < 0.01


def test_holm_by_hand():
    # 0.01 * 4, 0.02 * 3, then never less than the one before: 0.03 * 2 and 0.04 * 1
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_cases_of_one_group_count_once():
    rows = []
    for patient in range(4):
        for plane in range(10):
            rows.append(row("a", f"{patient}-{plane}", 0.5 + 0.01 * plane, group=f"p{patient}"))
            rows.append(row("b", f"{patient}-{plane}", 0.6 + 0.01 * plane, group=f"p{patient}"))
    (test,) = paired_tests(rows, ("a", "b"))
    assert (test["pairs"], test["p"]) == (4, 0.125)


def test_only_what_both_have_is_compared():
    rows = [row("a", f"c{i}", 0.5 + i / 100) for i in range(8)] + [row("b", f"c{i}", 0.4) for i in range(6)]
    (test,) = paired_tests(rows, ("a", "b"))
    assert test["pairs"] == 6
    assert paired_tests(rows, ("a", "c"))[0]["p"] is None


def test_no_difference_at_all_is_no_evidence():
    rows = [row(net, f"c{i}", 0.5) for i in range(8) for net in ("a", "b")]
    (test,) = paired_tests(rows, ("a", "b"))
    assert (test["p"], test["difference"]) == (1.0, 0.0)
