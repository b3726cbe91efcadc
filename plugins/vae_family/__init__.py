"""Variational autoencoders. A table of contents: nothing here imports torch."""

import typer

from distk.hookspecs import Register, hookimpl

_AT = "distk.plugins.vae_family."


@hookimpl
def distk_register_methods(register: Register) -> None:
    register(
        "cascadevae",
        _AT + "cascadevae:CascadeVAE",
        "relieves KL weights one dimension at a time and solves for a discrete code exactly by min-cost flow",
        paper="Jeong & Song 2019",
        tags=("vae", "discrete", "unsupervised"),
        aliases=("cascade", "cascade-vae"),
    )
    register(
        "cascadevae-c",
        _AT + "cascadevae:CascadeVAEContinuous",
        "cascadevae without the discrete code",
        paper="Jeong & Song 2019",
        tags=("vae", "unsupervised"),
    )
    register(
        "peychev-fc",
        _AT + "peychev:PeychevFC",
        "fully connected beta-VAE of the study `distk study beta`; --denoise",
        paper="Peychev et al. 2017",
        tags=("vae", "unsupervised"),
    )
    register(
        "peychev-conv",
        _AT + "peychev:PeychevConv",
        "convolutional beta-VAE of the study `distk study beta`; --denoise",
        paper="Peychev et al. 2017",
        tags=("vae", "unsupervised"),
    )
    register(
        "vae",
        _AT + "betavae:VAE",
        "Gaussian variational autoencoder: reconstruction + KL",
        paper="Kingma & Welling 2014",
        tags=("vae", "unsupervised"),
    )
    register(
        "betavae",
        _AT + "betavae:BetaVAE",
        "charges the KL beta times",
        paper="Higgins et al. 2017",
        tags=("vae", "unsupervised"),
        aliases=("beta-vae",),
    )
    register(
        "annealedvae",
        _AT + "betavae:AnnealedVAE",
        "holds the KL at a capacity that grows over training",
        paper="Burgess et al. 2018",
        tags=("vae", "unsupervised"),
        aliases=("betavae-capacity", "betab"),
    )
    register(
        "factorgen",
        _AT + "factorgen:FactorGen",
        "a decoder fed with the true factors through noisy channels: which factor is worth its nats first?",
        paper="Burgess et al. 2018",
        tags=("generator", "supervised"),
    )
    register(
        "betatcvae",
        _AT + "betatcvae:BetaTCVAE",
        "charges beta for the total correlation alone, estimated from the batch",
        paper="Chen et al. 2018",
        tags=("vae", "unsupervised"),
        aliases=("tcvae", "beta-tcvae"),
    )
    register(
        "covreg-linear",
        _AT + "covreg_models:CovregLinear",
        "linear autoencoder of covreg's experiment on data of few dimensions",
        paper="Kageback & Mogren 2016",
        tags=("autoencoder", "unsupervised"),
    )
    register(
        "covreg-xor",
        _AT + "covreg_models:CovregXor",
        "a 2-4-4-1 network that learns XOR, with covreg on both hidden layers",
        paper="Kageback & Mogren 2016",
        tags=("supervised",),
    )
    register(
        "covreg-conv",
        _AT + "covreg_models:CovregConv",
        "convolutional autoencoder of covreg's experiment on CIFAR-10",
        paper="Kageback & Mogren 2016",
        tags=("autoencoder", "unsupervised"),
    )
    register(
        "factorvae",
        _AT + "factorvae:FactorVAE",
        "penalises the total correlation of the code, estimated by a critic that sees permuted codes",
        paper="Kim & Mnih 2018",
        tags=("vae", "unsupervised"),
        aliases=("factor-vae", "fvae"),
    )
    register(
        "dipvae",
        _AT + "dipvae:DIPVAE",
        "drives the covariance of the inferred prior to the identity and leaves the rate alone",
        paper="Kumar et al. 2018",
        tags=("vae", "unsupervised"),
        aliases=("dip-vae", "dipvae-i"),
    )
    register(
        "dipvae-ii",
        _AT + "dipvae:DIPVAEII",
        "dipvae on the covariance of sampled codes instead of that of the means",
        paper="Kumar et al. 2018",
        tags=("vae", "unsupervised"),
        aliases=("dip-vae-ii",),
    )
    jade = "arXiv 1711.09163, 2017"
    register(
        "jade",
        _AT + "jade:Jade",
        "two data sets of the same classes: VAEs split content from style, one classifier reads the content of both",
        paper=jade,
        tags=("vae", "labels", "pairs"),
    )
    register(
        "jade-single",
        _AT + "jade:JadeSingle",
        "jade's baseline: a classifier of the primary data set alone",
        paper=jade,
        tags=("classifier", "labels"),
    )
    register(
        "jade-paired",
        _AT + "jade:JadePaired",
        "jade's baseline: two encoders under one classifier, without autoencoders",
        paper=jade,
        tags=("classifier", "labels", "pairs"),
    )
    register(
        "jointvae",
        _AT + "jointvae:JointVAE",
        "continuous and discrete codes from one encoder by Gumbel-softmax, each rate pulled to a growing capacity",
        paper="Dupont 2018",
        tags=("vae", "discrete", "unsupervised"),
        aliases=("joint-vae",),
    )
    register(
        "aae",
        _AT + "aae_s:AAE",
        "autoencoder whose codes a critic pulls to the normal prior",
        paper="Makhzani et al. 2015",
        tags=("autoencoder", "adversarial", "unsupervised"),
    )
    register(
        "aae-s",
        _AT + "aae_s:AAES",
        "adversarial autoencoder whose decoder is told the class: how well do the other factors separate then?",
        paper="Makhzani et al. 2015",
        tags=("autoencoder", "adversarial", "discrete", "supervised"),
        aliases=("aaes", "aae_s"),
    )

    at = _AT + "fstat:"
    cite = "Ridgeway & Mozer 2017"
    register(
        "fstat",
        at + "FStat",
        "an embedding from class labels that separates every pair of classes on a few dimensions, by an F statistic",
        paper=cite,
        tags=("embedding", "supervised"),
        aliases=("f-statistic",),
    )
    register("triplet", at + "Triplet", "fstat's rival: triplet loss", paper=cite, tags=("embedding", "supervised"))
    register(
        "histloss",
        at + "Histogram",
        "fstat's rival: histogram loss on the unit sphere",
        paper=cite,
        tags=("embedding", "supervised"),
        aliases=("histogram",),
    )
    register(
        "bindev",
        at + "BinomialDeviance",
        "fstat's rival: binomial deviance on the unit sphere",
        paper=cite,
        tags=("embedding", "supervised"),
        aliases=("binomial-deviance",),
    )
    register(
        "mvae",
        _AT + "mvae:MVAE",
        "multi-entity VAE: the code is a set of objects, found in one shot where the KL is largest",
        paper="Nash et al. 2017",
        tags=("vae", "objects", "unsupervised"),
        aliases=("multi-entity-vae",),
    )
    register(
        "mvae-baseline",
        _AT + "mvae:MVAEBaseline",
        "mvae's encoder and decoder around one code of 60 dimensions",
        paper="Nash et al. 2017",
        tags=("vae", "unsupervised"),
    )


@hookimpl
def distk_register_metrics(register: Register) -> None:
    register(
        "vae-bound",
        _AT + "bound_metric:VaeBound",
        "reconstruction in nats and its floor, KL per latent, bits per dimension, active latents",
        tags=("vae",),
    )
    register(
        "covstats",
        _AT + "covstats_metric:CovStats",
        "how correlated the units of a code are, and on how many of them its variance lies",
        paper="Kageback & Mogren 2016",
        tags=("unsupervised",),
    )
    register(
        "tc",
        _AT + "tc_metric:TotalCorrelation",
        "total correlation of sampled codes: Gaussian, of the mixture of posteriors, minibatch-weighted, by the critic",
        paper="Kim & Mnih 2018",
        aliases=("total-correlation",),
    )
    register(
        "prior-mmd",
        _AT + "prior_metric:PriorMMD",
        "how far the codes are from the standard normal prior: MMD, moments, and how well they tell the class",
        paper="Gretton et al. 2012",
    )
    register(
        "error",
        _AT + "jade_metrics:ClassificationError",
        "share of test images that a classifier gets wrong",
        paper="arXiv 1711.09163, 2017",
        tags=("labels",),
    )
    register(
        "validation-error",
        _AT + "jade_metrics:ValidationError",
        "error on the labels that --val-per-class kept back, to choose a model by",
        tags=("labels",),
    )
    register(
        "content-style-variance",
        _AT + "jade_metrics:ContentStyleVariance",
        "how much codes vary within a class: content should, against style, hardly",
        paper="arXiv 1711.09163, 2017",
        tags=("labels",),
    )
    register(
        "mvae-elbo",
        _AT + "mvae_metric:Bound",
        "the bound of mvae and mvae-baseline on test scenes, and the floor of its reconstruction term, nats",
        paper="Nash et al. 2017",
        tags=("objects", "model"),
    )
    register(
        "object-count",
        _AT + "mvae_metric:ObjectCount",
        "how often the number of cells with a KL above a threshold is the number of objects",
        paper="Nash et al. 2017",
        tags=("objects", "model"),
    )
    register(
        "slot-factors",
        _AT + "mvae_slots:SlotFactors",
        "what the code of an object tells of the sprite that it draws: R2, accuracy of the shape, dci",
        tags=("objects", "model"),
    )
    register(
        "entity-exchange",
        _AT + "mvae_slots:EntityExchange",
        "error of scenes with an exchanged object against the true ones, relative to plain reconstruction",
        tags=("objects", "model"),
    )


@hookimpl
def distk_register_penalties(register: Register) -> None:
    register(
        "covreg",
        _AT + "covreg:CovariancePenalty",
        "sum of |covariances| of a layer's units, variances included: decorrelates them and switches some off",
        paper="Kageback & Mogren 2016",
        aliases=("lsigma", "l_sigma"),
    )
    register("l1act", _AT + "covreg:ActivationPenalty", "mean |activation| of a layer, covreg's comparison")


@hookimpl
def distk_register_commands(app: typer.Typer) -> None:
    from distk.plugins.vae_family import commands

    commands.add(app)
