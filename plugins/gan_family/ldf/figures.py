"""Figures of the paper's questions: memory over frames, scores over training time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distk.errors import UsageError
from distk.look import COLUMN
from distk.study.tables import windowless

MEMORY = ("frames", "level", "saved_bytes", "peak_bytes", "parameters")
"""Columns of memory.csv."""
CURVES = ("variant", "seed", "step", "seconds", "with_pretraining", "score", "value", "judge")
"""Columns of curves.csv. seconds: of training since whole items are learnt. with_pretraining: since the start."""
COLOURS = ("#c04030", "#4878a8", "#50a060", "#a06030")


def memory_figure(rows: Sequence[tuple[int, str, int, int | None, int]]) -> Any:
    """A figure: bytes that a step keeps, over the number of frames, a line per level; both axes logarithmic."""
    drawing, ((axis,),) = windowless(1, 1, COLUMN, 2.5)
    for colour, level in zip(COLOURS, dict.fromkeys(row[1] for row in rows), strict=False):
        points = [(row[0], row[2] / 1e6) for row in rows if row[1] == level]
        axis.plot(*zip(*points, strict=True), marker="o", markersize=4, color=colour, label=level)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks([row[0] for row in rows], [str(row[0]) for row in rows])
    axis.xaxis.minorticks_off()
    axis.set_xlabel("frames")
    axis.set_ylabel("MB kept for the way back")
    axis.legend(fontsize=6)
    return drawing


def curves_figure(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A figure: every score over seconds, a line per variant and seed; above without the pretraining, below with it.

    rows: of curves.csv. Raises UsageError for scores by two judges, which must not stand in one figure.
    """
    judges = {str(row["judge"]) for row in rows if row["judge"]}
    if len(judges) > 1:
        raise UsageError(
            f"scores by different judges ({', '.join(sorted(judges))}) cannot stand in one figure: score all with one, "
            "made by `distk ldf judge`."
        )
    scores = list(dict.fromkeys(str(row["score"]) for row in rows))
    drawing, axes = windowless(2, len(scores), max(COLUMN / len(scores), 1.6), 2.0)
    lines = list(dict.fromkeys((str(row["variant"]), str(row["seed"])) for row in rows))
    names = list(dict.fromkeys(variant for variant, _ in lines))
    for i, key in enumerate(("seconds", "with_pretraining")):
        for j, score in enumerate(scores):
            axis = axes[i, j]
            for variant, seed in lines:
                mine = [r for r in rows if [str(r[k]) for k in ("variant", "seed", "score")] == [variant, seed, score]]
                points = [(float(r[key]), float(r["value"])) for r in mine]
                first = seed == next(s for v, s in lines if v == variant)
                colour = COLOURS[names.index(variant) % len(COLOURS)]
                if points:
                    axis.plot(*zip(*points, strict=True), color=colour, label=variant if first else None, marker=".")
            axis.set_title(score)
            axis.set_xlabel("seconds of training" + (",\npretraining counted" if i else ""))
            axis.tick_params(labelsize=6)
    axes[0, 0].legend(fontsize=6)
    return drawing
