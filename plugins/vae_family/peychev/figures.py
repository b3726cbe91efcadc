"""Figures, tables and the paper's claims of a beta study, from its `results.csv` alone."""

from __future__ import annotations

import io
import itertools
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distk.files import write_atomic
from distk.plugins.vae_family.peychev.method import VARIANTS
from distk.plugins.vae_family.peychev.study import read_rows, read_study
from distk.study.tables import rows_as_csv

TITLES = {
    "fc": "fully connected",
    "conv": "convolutional",
    "fc-dn": "fully connected, denoising",
    "conv-dn": "convolutional, denoising",
}


def summary(path: Path) -> dict[str, Any]:
    """Rebuild the figures of a study's folder: {"kind", "rows" (aggregates), "claims", "excluded", "files"}."""
    kind = read_study(path)["setting"]["kind"]
    rows = read_rows(path)
    table = aggregates(rows, kind)
    files = [path / name for name in (("fig1.csv", "fig1.png") if kind == "shapes" else ("fig2.csv", "fig2.png"))]
    if table:
        write_atomic(files[0], rows_as_csv(table))
        write_atomic(files[1], _shapes_figure(table) if kind == "shapes" else _mnist_figure(table))
    claims = shapes_claims(table) if kind == "shapes" else mnist_claims(table)
    excluded = sum(row["status"] != "ok" for row in rows)
    return {"kind": kind, "models": len(rows), "excluded": excluded, "rows": table, "claims": claims, "files": files}


def aggregates(rows: Sequence[dict[str, str]], kind: str) -> list[dict[str, Any]]:
    """Mean and sample standard deviation (ddof 1, empty for one model) over models; diverged ones are left out."""
    keys = ("variant", "beta") if kind == "shapes" else ("variant", "fraction", "beta", "codes")
    scores = {"": "disentanglement"} if kind == "shapes" else {"sample": "accuracy_sample", "mean": "accuracy_mean"}
    found: dict[tuple[Any, ...], list[dict[str, str]]] = defaultdict(list)
    lost: dict[tuple[Any, ...], int] = defaultdict(int)
    for row in rows:
        for codes, score in scores.items():
            place = (row["variant"], float(row["beta"]))
            key = place if kind == "shapes" else (place[0], float(row["fraction"]), place[1], codes)
            if row["status"] == "ok" and row[score]:
                found[key].append({**row, "score": row[score]})
            elif row["status"] != "ok":
                lost[key] += 1
    order = sorted(found, key=lambda key: (VARIANTS.index(key[0]), *key[1:]))
    made = []
    for key in order:
        values = {name: [float(row[name]) for row in found[key]] for name in ("score", "recon", "kl")}
        row = dict(zip(keys, key, strict=True))
        row |= {"mean": statistics.fmean(values["score"]), "sd": _deviation(values["score"])}
        row |= {"models": len(found[key]), "excluded": lost[key], "recon": statistics.fmean(values["recon"])}
        made.append({**row, "recon_sd": _deviation(values["recon"]), "kl": statistics.fmean(values["kl"])})
    return [{k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()} for row in made]


def _deviation(values: Sequence[float]) -> float | str:
    return statistics.stdev(values) if len(values) > 1 else ""


# The paper's claims, which it shows in figures and never in numbers


def shapes_claims(table: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What Fig. 1 is said to show, with what was measured; claims that the betas do not allow are left out."""
    claims = []
    for name in VARIANTS:
        curve = [row for row in table if row["variant"] == name]
        if len(curve) > 2:
            rho = _spearman([row["beta"] for row in curve], [row["mean"] for row in curve])
            claims.append(_claim(f"{name}: disentanglement rises with beta (Spearman > 0.6)", rho, rho > 0.6))
    spread = [row["sd"] for row in table if row["sd"] != ""]
    if spread:
        mean = statistics.fmean(spread)
        claims.append(_claim("runs of equal beta differ (mean sd > 0.01)", mean, mean > 0.01))
    dense = [row for row in table if row["variant"] == "fc-dn"]
    low, high = (_slope([row for row in dense if a <= row["beta"] <= b]) for a, b in ((0, 2), (3, 5)))
    if low is not None and high is not None:
        told = "fc-dn: flat for large beta (slope on [3, 5] below half of that on [0, 2])"
        claims.append(_claim(told, high, high < low / 2))
    return claims


def mnist_claims(table: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What Fig. 2 is said to show, with what was measured."""
    claims = []
    for name, codes in sorted({(row["variant"], row["codes"]) for row in table}):
        own = [row for row in table if (row["variant"], row["codes"]) == (name, codes)]
        whole = max(row["fraction"] for row in own)
        curve = {row["beta"]: row["mean"] for row in own if row["fraction"] == whole}
        small = min((beta for beta in curve if beta > 0), default=0.0)
        title = f"{name}, {codes} codes"
        if 0.0 in curve and small:
            gain = curve[small] - curve[0.0]
            claims.append(_claim(f"{title}: accuracy rises from beta 0 to {small:g}", gain, gain > 0))
        if small and max(curve) > small:
            loss = curve[max(curve)] - curve[small]
            claims.append(_claim(f"{title}: accuracy falls from beta {small:g} to {max(curve):g}", loss, loss < 0))
        if len({row["fraction"] for row in own}) > 1:
            claims.append(_more_data(title, own))
    return claims


def _more_data(title: str, own: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Whether more data never cost more than one standard deviation of accuracy; value: the largest loss."""
    worst = 0.0
    sound = True
    for beta in sorted({row["beta"] for row in own}):
        curve = sorted((row for row in own if row["beta"] == beta), key=lambda row: row["fraction"])
        for less, more in itertools.pairwise(curve):
            loss = less["mean"] - more["mean"]
            worst = max(worst, loss)
            sound &= loss <= max(less["sd"] or 0.0, more["sd"] or 0.0)
    return _claim(f"{title}: more data, no lower accuracy (within 1 sd)", worst, sound)


def _claim(text: str, value: float, holds: bool) -> dict[str, Any]:
    return {"claim": text, "measured": value, "holds": bool(holds)}


def _spearman(x: Sequence[float], y: Sequence[float]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(x, y).statistic) if len(set(y)) > 1 else 0.0


def _slope(rows: Sequence[dict[str, Any]]) -> float | None:
    """Least-squares slope of mean against beta; None with fewer than two betas."""
    if len(rows) < 2:
        return None
    return float(statistics.linear_regression([r["beta"] for r in rows], [r["mean"] for r in rows]).slope)


# Figures


def _shapes_figure(table: Sequence[dict[str, Any]]) -> bytes:
    """Four panels, one per variant: mean +- sd of the accuracy against beta."""
    pyplot = _pyplot()
    names = [name for name in VARIANTS if any(row["variant"] == name for row in table)]
    size = (3.2 * min(2, len(names)), 2.5 * -(-len(names) // 2))
    figure, axes = pyplot.subplots(
        -(-len(names) // 2), min(2, len(names)), figsize=size, sharex=True, sharey=True, squeeze=False
    )
    for panel in axes.flat[len(names) :]:
        panel.set_visible(False)
    for name, panel in zip(names, axes.flat, strict=False):
        _curve(panel, [row for row in table if row["variant"] == name], "mean", "sd", "tab:blue", "", "-")
        panel.axhline(0.25, color="grey", linewidth=0.8, linestyle=":")
        panel.set_title(TITLES[name], fontsize=9)
        panel.set_ylim(0.2, 1.02)
    figure.supxlabel("beta", fontsize=9)
    figure.supylabel("change-one-factor accuracy", fontsize=9)
    return _png(figure)


def _mnist_figure(table: Sequence[dict[str, Any]]) -> bytes:
    """A column per variant: SVM accuracy above, reconstruction error below, against beta, a curve per fraction."""
    pyplot = _pyplot()
    names = [name for name in VARIANTS if any(row["variant"] == name for row in table)]
    figure, axes = pyplot.subplots(
        2, len(names), figsize=(3.4 * len(names), 4.6), sharex=True, sharey="row", squeeze=False
    )
    fractions = sorted({row["fraction"] for row in table})
    kinds = sorted({row["codes"] for row in table}, reverse=True)
    colours = pyplot.get_cmap("viridis")
    for column, name in enumerate(names):
        for i, part in enumerate(fractions):
            colour = colours(0.85 * i / max(1, len(fractions) - 1))
            own = [row for row in table if row["variant"] == name and row["fraction"] == part]
            for codes in kinds:
                curve = [row for row in own if row["codes"] == codes]
                label = f"{100 * part:g} %" + (f", {codes}" if len(kinds) > 1 else "")
                _curve(axes[0][column], curve, "mean", "sd", colour, label, "-" if codes == kinds[0] else "--")
            curve = [row for row in own if row["codes"] == kinds[0]]
            _curve(axes[1][column], curve, "recon", "recon_sd", colour, "", "-")
        axes[0][column].set_title(TITLES[name], fontsize=9)
        axes[1][column].set_xlabel("beta", fontsize=9)
    axes[0][0].set_ylabel("SVM accuracy", fontsize=9)
    axes[1][0].set_ylabel("reconstruction, nats", fontsize=9)
    axes[0][-1].legend(fontsize=7)
    return _png(figure)


def _curve(panel: Any, rows: Sequence[dict[str, Any]], mean: str, sd: str, colour: Any, label: str, line: str) -> None:
    bars = None if any(row[sd] == "" for row in rows) else [row[sd] for row in rows]
    x, y = [row["beta"] for row in rows], [row[mean] for row in rows]
    panel.errorbar(
        x, y, bars, color=colour, label=label, linestyle=line, marker="o", markersize=3, capsize=2, linewidth=1
    )
    panel.tick_params(labelsize=8)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.tight_layout()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    _pyplot().close(figure)
    return buffer.getvalue()
