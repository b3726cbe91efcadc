"""Scores of any representation. A table of contents: nothing here imports torch."""

from distk.hookspecs import Register, RegisterCommand, hookimpl

_AT = "distk.plugins.metrics."


@hookimpl
def distk_register_metrics(register: Register) -> None:
    at = _AT + "scores:"
    register("mig", at + "Mig", "mutual information gap", paper="Chen et al. 2018")
    register("dci", at + "Dci", "disentanglement, completeness, informativeness", paper="Eastwood & Williams 2018")
    register("sap", at + "Sap", "separated attribute predictability", paper="Kumar et al. 2018")
    register("modularity", at + "Modularity", "does each code tell of one factor only", paper="Ridgeway & Mozer 2018")
    register("explicitness", at + "Explicitness", "AUC of linear read-out", paper="Ridgeway & Mozer 2018")
    register("irs", at + "Irs", "robustness of codes to changes of other factors", paper="Suter et al. 2019")
    register("infomec", at + "InfoMec", "modularity, compactness, explicitness by information", paper="Hsu et al. 2023")
    register(
        "unsupervised", at + "Unsupervised", "dependence among codes, without labels", paper="Locatello et al. 2019"
    )
    register(
        "linear-correlation",
        at + "LinearCorrelation",
        "mapc, cvr, tdv, ud90",
        paper="Penalizing correlation",
        aliases=("mapc",),
    )
    register("active-units", at + "ActiveUnits", "codes that vary at all", paper="Burda et al. 2016")
    register("downstream", at + "Downstream", "accuracy with N labels", paper="Locatello et al. 2019")
    at = _AT + "protocols:"
    register("factorvae", at + "FactorVae", "fix a factor: which code varies least", paper="Kim & Mnih 2018")
    register("betavae", at + "BetaVae", "which factor do pairs share", paper="Higgins et al. 2017")
    register("higgins-change", at + "HigginsChange", "which factor changed", paper="Higgins et al. 2016")
    register(
        "change-one-factor",
        at + "ChangeOneFactor",
        "higgins-change with the pairs and the probe of papers/08",
        paper="Peychev et al. 2017",
    )
    at = _AT + "items:"
    register("clsacc", at + "ClsAcc", "unsupervised accuracy of the discrete code", paper="Jeong & Song 2019")
    register("reconstruction", at + "Reconstruction", "errors of decoder means, per pixel and per image")
    register("recall", at + "Recall", "same label among the k nearest", paper="Ridgeway & Mozer", aliases=("recall@k",))
    register(
        "best-dimension-auc",
        at + "BestDimensionAuc",
        "best single-code AUC per attribute",
        paper="Ridgeway & Mozer 2018",
        aliases=("best-dim-auc",),
    )
    register("elbo", _AT + "bounds:Elbo", "the bound on log p(x) and its parts, in nats, of any method that has one")
    register(
        "ksg",
        at + "Ksg",
        "information between consecutive codes, within and across blocks",
        paper="Whitney & Fergus",
    )


@hookimpl
def distk_register_commands(register: RegisterCommand) -> None:
    register(
        "udr",
        _AT + "commands:udr",
        "Rank models that differ in their seed by how well their codes agree; no labels needed.",
    )
