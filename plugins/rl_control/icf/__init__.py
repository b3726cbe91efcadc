"""Independently controllable factors (Thomas et al. 2018)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Thomas et al. 2018", tags=("environment", "unsupervised", "reinforcement"))
paper.method(
    "icf",
    "method:ICF",
    "finds what an agent can change independently: factors phi and their policies, by selectivity",
    aliases=("selectivity",),
)
paper.method(
    "icf-discrete",
    "discrete:ICFDiscrete",
    "K policies, each tied to one latent coordinate that it alone should change",
    cite="Thomas et al. 2017; Bengio et al. 2017",
    aliases=("selectivity-discrete",),
)
paper.metric(
    "icf",
    "metrics:ICFMetric",
    "effective modes of control, readout of positions, geometry of the changes, selectivity",
    tags=("environment",),
)
paper.command(
    "factors",
    "commands:factors",
    "Draw factors of a state: what each one's policy prefers, and the changes that they cause.",
    was="factors",
)
paper.command(
    "rollout",
    "commands:rollout",
    "Follow one factor's policy: a GIF of the environment, a heat map of the policies.",
    was="rollout",
)
paper.command(
    "plan", "commands:plan", "Find actions from one state to another as a sum of the factors' changes.", was="plan"
)
paper.command("predict", "commands:predict", "Decode the predicted effect of a policy beside what really happens.")
paper.study("icf-maps", "studies/maps.toml", "modes of change and the map of the world, with and without what we added")
