"""Every array function of codes and factors, with settings that take little time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distk.plugins.metrics import functional as fn

CALLS: dict[str, Callable[[Any, Any], dict[str, Any]]] = {
    "mig": fn.mig,
    "modularity": fn.modularity,
    "jemmig": fn.jemmig,
    "dcimig": fn.dcimig,
    "mig_sup": fn.mig_sup,
    "dependent_gaps": fn.dependent_gaps,
    "irs": fn.irs,
    "info_mec": fn.info_mec,
    "tad": fn.tad,
    "best_dimension_auc": fn.best_dimension_auc,
    "dci": lambda c, f: fn.dci(c, f, predictor="lasso"),
    "dci_es": fn.dci_es,
    "sap": fn.sap,
    "explicitness": fn.explicitness,
    "downstream": lambda c, f: fn.downstream(c, f, sizes=(20,)),
    "mcc": fn.mcc,
    "r2": fn.r2,
    "fairness": lambda c, f: fn.fairness(c, f, predictor="lr"),
    "combinations": lambda c, f: fn.combinations(c, f),
    "reasoning": lambda c, f: fn.reasoning(c, factors=f, steps=10, tests=50),
    "factor_vae": lambda c, f: fn.factor_vae(c, factors=f, protocol="cascadevae", prune="std"),
    "beta_vae": lambda c, f: fn.beta_vae(c, factors=f, train_points=200, eval_points=100),
    "higgins_change": lambda c, f: fn.higgins_change(c, factors=f),
    "change_one_factor": lambda c, f: fn.change_one_factor(c, factors=f),
    "z_max": lambda c, f: fn.z_max(c, factors=f, train_votes=200, eval_votes=100),
    "recall": lambda c, f: fn.recall_at_k(c, f[:, 0] if hasattr(f, "ndim") and f.ndim == 2 else f),
    "unsupervised": lambda c, f: fn.unsupervised(c),
    "linear_correlation": lambda c, f: fn.linear_correlation(c),
    "active_units": lambda c, f: fn.active_units(c),
    "sepin": lambda c, f: fn.sepin(c, np.full((len(c), 3), 0.1), samples=20),
}
