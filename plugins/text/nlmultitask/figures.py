"""A picture of codes: two principal components, a colour and a mark for each prototype."""

from __future__ import annotations

import torch
from torch import Tensor

from distk.look import COLUMN
from distk.plugins.text.nlmultitask.prototypes import PROTOTYPES
from distk.study.tables import as_figure, windowless

MARKS = "osv^<>DPXpd*h+"
"""One for each prototype, so that colours need not be told apart."""


def principal(codes: Tensor, components: int = 2) -> tuple[Tensor, Tensor]:
    """Codes float `[n, d]` -> their coordinates `[n, components]` along the directions of largest variance, and the
    share of the variance along each."""
    x = codes - codes.mean(0)
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    many = min(components, len(s))
    place = torch.zeros(len(x), components, dtype=x.dtype)
    place[:, :many] = u[:, :many] * s[:many]
    share = torch.zeros(components, dtype=x.dtype)
    share[:many] = s[:many].square() / s.square().sum().clamp_min(1e-300)
    return place, share


def scatter(codes: Tensor, kind: Tensor, form: str = ".png", title: str = "") -> bytes:
    """Codes `[n, d]` of sentences of the prototypes `kind` int64 `[n]`, in the form of a suffix."""
    place, share = principal(codes)
    figure, panels = windowless(1, 1, COLUMN, 4.6)
    axes = panels[0, 0]
    for i, prototype in enumerate(PROTOTYPES):
        own = place[kind == i]
        label = f"{i + 1}  {prototype or 'the empty sentence'}"
        label = label if len(label) < 50 else label[:47] + "..."
        colour = f"C{i % 10}"
        axes.scatter(own[:, 0], own[:, 1], s=6, marker=MARKS[i], color=colour, alpha=0.7, linewidths=0.8, label=label)
    axes.set_xlabel(f"first principal component ({share[0]:.0%} of the variance)")
    axes.set_ylabel(f"second ({share[1]:.0%})")
    figure.legend(loc="outside lower left", fontsize=6, frameon=False)
    return as_figure(figure, form, title=title)
