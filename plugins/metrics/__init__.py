"""Scores of any representation: a file of wrappers for each file of `functional`, which holds the array functions.

A table of contents: nothing here imports torch.
"""

from distk.hookspecs import Register, RegisterCommand, hookimpl

METRICS = (
    ("mig", "information:Mig", "mutual information gap", "Chen et al. 2018"),
    ("dci", "importance:Dci", "disentanglement, completeness, informativeness", "Eastwood & Williams 2018"),
    (
        "dci-es",
        "importance:DciEs",
        "how large a reader must be that finds the factors, and how large the code is",
        "Eastwood et al. 2023",
    ),
    ("sap", "predictors:Sap", "separated attribute predictability", "Kumar et al. 2018"),
    ("modularity", "information:Modularity", "does each code tell of one factor only", "Ridgeway & Mozer 2018"),
    ("explicitness", "predictors:Explicitness", "AUC of linear read-out", "Ridgeway & Mozer 2018"),
    ("irs", "structure:Irs", "robustness of codes to changes of other factors", "Suter et al. 2019"),
    ("infomec", "neighbours:InfoMec", "modularity, compactness, explicitness by information", "Hsu et al. 2023"),
    ("unsupervised", "structure:Unsupervised", "dependence among codes, without labels", "Locatello et al. 2019"),
    ("linear-correlation", "structure:LinearCorrelation", "mapc, cvr, tdv, ud90", "Kageback & Mogren 2016", ("mapc",)),
    ("active-units", "structure:ActiveUnits", "codes that vary at all", "Burda et al. 2016"),
    ("downstream", "predictors:Downstream", "accuracy with N labels", "Locatello et al. 2019"),
    ("fairness", "tasks:Fairness", "do predictions change with a sensitive factor", "Locatello et al. 2019"),
    (
        "reasoning",
        "tasks:Reasoning",
        "abstract reasoning: which panel completes a matrix of items",
        "van Steenkiste et al. 2019",
    ),
    (
        "combinations",
        "tasks:Combinations",
        "are factors read from combinations that were never seen",
        "Montero et al. 2021",
    ),
    ("factorvae", "voting:FactorVae", "fix a factor: which code varies least", "Kim & Mnih 2018"),
    ("betavae", "voting:BetaVae", "which factor do pairs share", "Higgins et al. 2017"),
    ("higgins-change", "change:HigginsChange", "which factor changed", "Higgins et al. 2016"),
    (
        "change-one-factor",
        "change:ChangeOneFactor",
        "higgins-change with the pairs and the probe of Peychev et al.",
        "Peychev et al. 2017",
    ),
    ("clsacc", "agreement:ClsAcc", "unsupervised accuracy of the discrete code", "Jeong & Song 2019"),
    ("reconstruction", "agreement:Reconstruction", "errors of decoder means, per pixel and per image", ""),
    ("recall", "neighbours:Recall", "same label among the k nearest", "Ridgeway & Mozer 2017", ("recall@k",)),
    (
        "best-dimension-auc",
        "agreement:BestDimensionAuc",
        "best single-code AUC per attribute",
        "Ridgeway & Mozer 2017",
        ("best-dim-auc",),
    ),
    ("mcc", "identification:Mcc", "correlation of factors and the codes matched to them", "Hyvarinen & Morioka 2016"),
    ("r2", "identification:R2", "factors by regression, linear or a network", "von Kugelgen et al. 2021"),
    ("jemmig", "gaps:Jemmig", "joint entropy minus the information gap", "Do & Tran 2020"),
    ("dcimig", "gaps:Dcimig", "gaps over factors of each factor's best code", "Sepliarskaia et al. 2019", ("3charm",)),
    ("mig-sup", "gaps:MigSup", "does each code tell of one factor only, by the gap", "Li et al. 2020"),
    (
        "dependent-gaps",
        "gaps:DependentGaps",
        "DMIG, XMIG, DLIG, for factors that tell of each other",
        "Watcharasupat & Lerch 2021",
        ("dmig",),
    ),
    ("tad", "gaps:Tad", "total AUROC difference of yes-or-no attributes", "Yeats et al. 2022"),
    ("separability", "gaps:Separation", "what a latent says that no other says", "Do & Tran 2020", ("sepin", "wsepin")),
    ("z-max", "gaps:ZMax", "change one factor: which code varies most", "Kim et al. 2019"),
    ("ari", "gaps:Ari", "adjusted Rand index of discrete codes and labels", "Hubert & Arabie 1985"),
    ("fg-ari", "gaps:FgAri", "do slots take pixels as the objects do, background left out", "Greff et al. 2019"),
    ("elbo", "bounds:Elbo", "the bound on log p(x) and its parts, in nats, of any method that has one", ""),
    ("prediction", "prediction:Prediction", "error of predicted frames against frames that stay as they are", ""),
    (
        "ksg",
        "neighbours:Ksg",
        "information between consecutive codes, within and across blocks",
        "Whitney & Fergus 2017",
    ),
)
"""Name, path, summary, citation, and other names of each."""


@hookimpl
def distk_register_metrics(register: Register) -> None:
    for name, path, summary, paper, *aliases in METRICS:
        register(name, f"{__name__}.{path}", summary, paper=paper, aliases=tuple(*aliases))


@hookimpl
def distk_register_commands(register: RegisterCommand) -> None:
    summary = "Rank models that differ in their seed by how well their codes agree; no labels needed."
    register("udr", f"{__name__}.commands:udr", summary)
