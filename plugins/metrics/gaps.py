"""Gaps of mutual information beside MIG; total AUROC difference; what posteriors alone tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from distk import CodeTable, NoConfig, UsageError, option
from distk.console import counted
from distk.meaning import count, higher, lower, neither
from distk.plugins.metrics import functional
from distk.plugins.metrics.agreement import labels, rows_of
from distk.plugins.metrics.information import BinsConfig
from distk.plugins.metrics.table import (
    BINS,
    Config,
    Scored,
    chosen,
    classes,
    codes,
    deviations,
    draw,
    factors,
    quantities,
    without,
)
from distk.plugins.metrics.voting import VotingConfig, where


class _Gap(Scored[BinsConfig]):
    """A score from contingency tables of binned codes."""

    function: ClassVar[Callable[..., dict[str, Any]]]

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        values, truth = draw(table, self.config, seed)
        bins = self.config.bins or BINS
        result = type(self).function(values, truth, bins, discrete=classes(table))
        how = f"plug-in information of {counted(bins, 'bin')} of equal width, nats"
        return {**result, "rows_used": [len(values)], "estimator": how}


class Jemmig(_Gap):
    """Joint entropy minus mutual information gap (Do & Tran 2020): also counts what a code knows beside its factor."""

    headline = "jemmig"
    measures = "one factor, one code (compactness)"
    numbers = {
        "jemmig": higher(0, 1, source="Do & Tran 2020, eq. 15", form="normalised as in Carbonneau et al. 2022"),
        "jemmig_nats": lower(0, unit="nats", source="Do & Tran 2020, eq. 15", form="authors"),
    }
    bars = ("jemmig_per_factor",)
    function = staticmethod(functional.jemmig)


class Dcimig(_Gap):
    """DCIMIG, also 3CharM (Sepliarskaia et al. 2019): gaps over factors, the best code of each factor."""

    headline = "dcimig"
    measures = "one factor, one code (compactness)"
    numbers = {"dcimig": higher(0, 1, chance=0.0, source="Sepliarskaia et al. 2019, section 4", form="authors")}
    bars = ("dcimig_per_factor",)
    function = staticmethod(functional.dcimig)


class MigSup(_Gap):
    """MIG-sup (Li et al. 2020): does each code tell of one factor only."""

    headline = "mig_sup"
    measures = "one code, one factor (modularity)"
    numbers = {"mig_sup": higher(0, 1, source="Li et al. 2020, eq. 4", form="authors")}
    bars = ("mig_sup_per_code",)
    function = staticmethod(functional.mig_sup)


class DependentGaps(_Gap):
    """DMIG, XMIG, DLIG (Watcharasupat & Lerch 2021): gaps for factors that tell of each other."""

    headline = "dmig"
    measures = "one factor, one code (compactness)"
    numbers = {
        "dmig": higher(None, 1, source="Watcharasupat & Lerch 2021", form="codes matched one to one"),
        "xmig": higher(None, 1, source="Watcharasupat 2021", form="codes matched one to one"),
        "dlig": higher(None, 1, source="Watcharasupat 2021", form="codes matched one to one"),
        "dependence": neither(0, 1, what="largest information between two factors, of the smaller entropy"),
    }
    bars = ("dmig_per_factor",)
    function = staticmethod(functional.dependent_gaps)


@dataclass(frozen=True)
class TadConfig(Config):
    """Settings of the total AUROC difference."""

    threshold: float = option(0.75, "AUC above which an attribute counts as captured", paper="0.75", min=0.5, max=1)
    redundant: float = option(
        0.2, "leave out an attribute that takes away more than this share of another's entropy", paper="0.2", min=0
    )


class Tad(Scored[TadConfig]):
    """Total AUROC difference (Yeats et al. 2022, NashAE): is each yes-or-no attribute one latent."""

    headline = "tad"
    measures = "one factor, one code (compactness)"
    numbers = {
        "tad": higher(0, unit="attributes", chance=0.0, source="Yeats et al. 2022, section 4.3", form="authors"),
        "captured": count("attributes", "attributes whose best latent exceeds the threshold"),
        "considered": count("attributes", "attributes of two values that no other one tells"),
    }
    bars = ("difference_per_attribute",)

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        values, names, left = quantities(codes(table, self.config, seed), table)
        truth = factors(table)
        result = functional.tad(values, truth, self.config.threshold, self.config.redundant)
        how = "AUC of one latent, either direction"
        return without(left, {**result, "code_names": names, "rows_used": [len(values)], "estimator": how})


@dataclass(frozen=True)
class SeparationConfig:
    """Settings of SEPIN."""

    samples: int = option(2000, "draws from the posteriors", min=10, max=1_000_000)
    mixture: int = option(5000, "posteriors that make up the mixture", min=10, max=1_000_000)


class Separation(Scored[SeparationConfig]):
    """SEPIN and WSEPIN (Do & Tran 2020): what a latent says that no other says, from posteriors, no labels needed."""

    headline = "wsepin"
    measures = "dependence among codes, no labels"
    labelled = False
    numbers = {
        "wsepin": higher(None, unit="nats", source="Do & Tran 2020, section 4", what="weighted by informativeness"),
        "sepin": higher(None, unit="nats", source="Do & Tran 2020, section 4", what="mean over latents"),
        "standard_error": neither(0, unit="nats", what="of wsepin, over the draws"),
    }
    bars = ("separability", "informativeness")

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        if table.std is None:
            raise UsageError(
                "separability needs posteriors with a standard deviation, which this representation lacks."
            )
        live = ~table.std.isnan().any(0)
        if not bool(live.any()):
            raise UsageError("no latent of this representation has a Gaussian posterior.")
        picked = chosen(table, self.config.mixture, seed)
        some = (rows_of(values, picked) for values in (table.codes, table.std))
        mean, std = (values if bool(live.all()) else values[:, live] for values in some)
        result = dict(functional.sepin(mean, std, self.config.samples, seed))
        names = [name for name, keep in zip(table.names, live.tolist(), strict=True) if keep]
        how = f"{counted(self.config.samples, 'draw')} against the mixture of {len(picked)} posteriors, nats"
        return {**result, "code_names": names, "rows_used": [len(picked)], "estimator": how}


class ZMax(Scored[VotingConfig]):
    """Z-max variance (Kim et al. 2019): change one factor alone, see which code varies most."""

    headline = "eval"
    measures = "one code, one factor (modularity)"
    together = "factors"
    numbers = {
        "train": higher(
            0, 1, chance="1/K", source="Kim et al. 2019 (Bayes-Factor-VAE)", what="on the votes that train"
        ),
        "eval": higher(0, 1, chance="1/K", source="Kim et al. 2019 (Bayes-Factor-VAE)"),
        "codes_used": count("codes", "codes that may vote"),
    }
    repeats = 5
    matrices = {"votes": "heat"}

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        values, names, left = quantities(table.codes, table)
        std = deviations(table, self.config)
        if std is not None:
            std, _, _ = quantities(std, table)
        there = where(table, self.config)
        result = functional.z_max(values, seed=seed, std=std, **there)
        factor_names = list(there["factor_names"])
        return without(left, {**result, "code_names": names, "factor_names": factor_names})


class Ari(Scored[Config]):
    """Adjusted Rand index of the discrete codes, taken together, and the label."""

    headline = "ari"
    measures = "classes found without labels"
    together = "label"
    numbers = {"ari": higher(None, 1, chance=0.0, source="Hubert & Arabie 1985")}

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        columns = [d for d, kind in enumerate(table.kinds) if kind == "categorical"]
        if not columns:
            raise UsageError("this representation has no discrete code to compare with labels.")
        truth, name = labels(table)
        index = torch.zeros(len(table), dtype=torch.int64, device=table.codes.device)
        for d in columns:  # column by column: the rows' groups so far, each parted by this code
            _, own = table.codes[:, d].round().unique(return_inverse=True)
            _, index = (index * (int(own.max()) + 1) + own).unique(return_inverse=True)
        result = functional.rand_index(index, truth)
        return {**result, "rows_used": [len(index)], "estimator": f"pairs of items, against {name}"}


class FgAri(Scored[NoConfig]):
    """Adjusted Rand index of slots and objects, pixel by pixel, without the background (Greff et al. 2019)."""

    headline = "fg_ari"
    measures = "objects found without labels"
    numbers = {
        "fg_ari": higher(None, 1, chance=0.0, source="Greff et al. 2019, section 4.1", what="pixels of objects alone"),
        "ari": higher(None, 1, chance=0.0, source="Hubert & Arabie 1985", what="all pixels"),
    }
    labelled = False

    def score(self, table: CodeTable, seed: int) -> Mapping[str, Any]:
        masks, objects = table.extra.get("slots"), table.extra.get("objects")
        if masks is None or objects is None:
            raise UsageError("slots are scored by files of codes with `slots` and `objects`, which are not here.")
        result = functional.slots(masks, objects)
        return {
            **result,
            "rows_used": [len(objects)],
            "estimator": "pixels of each picture; object 0 is the background",
        }
