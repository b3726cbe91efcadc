"""covreg: penalising the correlation of activations (Kageback & Mogren 2016)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Kageback & Mogren 2016")
paper.method(
    "covreg-linear",
    "method:CovregLinear",
    "linear autoencoder of covreg's experiment on data of few dimensions",
    tags=("autoencoder", "unsupervised"),
)
paper.method(
    "covreg-xor",
    "method:CovregXor",
    "a 2-4-4-1 network that learns XOR, with covreg on both hidden layers",
    tags=("supervised",),
)
paper.method(
    "covreg-conv",
    "method:CovregConv",
    "convolutional autoencoder of covreg's experiment on CIFAR-10",
    tags=("autoencoder", "unsupervised"),
)
paper.metric(
    "covstats",
    "metrics:CovStats",
    "how correlated the units of a code are, and on how many of them its variance lies",
    tags=("unsupervised",),
)
paper.penalty(
    "covreg",
    "penalty:CovariancePenalty",
    "sum of |covariances| of a layer's units, variances included: decorrelates them and switches some off",
    aliases=("lsigma", "l_sigma"),
)
paper.penalty("l1act", "penalty:ActivationPenalty", "mean |activation| of a layer, covreg's comparison", cite="")
paper.study(
    "covreg-dimred",
    "studies/covreg-dimred.toml",
    "linear autoencoders find the dimension of their data (Figures 1 and 2)",
    runner="study:dimred_study",
    judge="judge:judge",
)
paper.study(
    "covreg-xor",
    "studies/covreg-xor.toml",
    "the smallest network that solves XOR (Figure 3)",
    runner="study:xor_study",
)
paper.study(
    "covreg-conv",
    "studies/covreg-conv.toml",
    "covariance and error of convolutional autoencoders (Table 1, Figure 4)",
    runner="study:conv_study",
    judge="judge:judge",
)
