"""Conformance: what every method, data set, metric and penalty must satisfy, built-in or third-party.

    from distk.testing import check_method
    check_method("mymethod")          # raises AssertionError naming the check that failed

`distk check NAME` prints the same as a table.
"""

from distk.testing.data import Check, check_dataset, dataset_checks
from distk.testing.methods import check_method, method_checks
from distk.testing.metrics import check_metric, metric_checks, model_table, probe_table, synthetic_table
from distk.testing.penalties import check_penalty, penalty_checks
from distk.testing.reads import HostRead, NoHostReads

__all__ = [
    "Check",
    "HostRead",
    "NoHostReads",
    "check_dataset",
    "check_method",
    "check_metric",
    "check_penalty",
    "dataset_checks",
    "method_checks",
    "metric_checks",
    "model_table",
    "penalty_checks",
    "probe_table",
    "synthetic_table",
]
