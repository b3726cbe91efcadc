"""Scores of representations as pure functions of arrays: codes and factors in, a dictionary of numbers out.

No dataset, no model, no global random state: a saved table of codes and factors is enough to reproduce every
number. Arrays may be numpy or torch, on any device; statistics are float64. Scalars come back as floats,
arrays as numpy float64, per-factor arrays with NaN for constant factors; `reasons` says why something is NaN
or was left out.
"""

from .agreement import best_dimension_auc, reconstruction, unsupervised_accuracy
from .capacity import dci_es
from .change import change_one_factor, higgins_change
from .detection import tad
from .gaps import dcimig, dependent_gaps, jemmig, mig_sup
from .identification import mcc, r2
from .importance import dci
from .information import mig, mig_aggregate, modularity
from .matrices import reasoning
from .neighbours import info_mec, ksg, recall_at_k
from .partition import rand_index, slots
from .predictors import downstream, explicitness, sap
from .sensitive import fairness
from .separation import sepin
from .structure import ACTIVE, active_units, irs, linear_correlation, udr, unsupervised
from .unseen import combinations
from .varying import z_max
from .voting import beta_vae, factor_vae

__all__ = [
    "ACTIVE",
    "active_units",
    "best_dimension_auc",
    "beta_vae",
    "change_one_factor",
    "combinations",
    "dci",
    "dci_es",
    "dcimig",
    "dependent_gaps",
    "downstream",
    "explicitness",
    "factor_vae",
    "fairness",
    "higgins_change",
    "info_mec",
    "irs",
    "jemmig",
    "ksg",
    "linear_correlation",
    "mcc",
    "mig",
    "mig_aggregate",
    "mig_sup",
    "modularity",
    "r2",
    "rand_index",
    "reasoning",
    "recall_at_k",
    "reconstruction",
    "sap",
    "sepin",
    "slots",
    "tad",
    "udr",
    "unsupervised",
    "unsupervised_accuracy",
    "z_max",
]
