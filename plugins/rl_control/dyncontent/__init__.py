"""Dynamics and content apart, for prediction and control without actions (Banijamali et al. 2017)."""

from distk.papers import Paper

paper = Paper(__name__, cite="Banijamali et al. 2017", tags=("transition", "control"))
paper.method(
    "dyncontent",
    "method:DynContent",
    "locally linear dynamics learnt from frames with actions serve frames of another look that have none",
    tags=("pairs",),
    aliases=("rce-dc",),
)
paper.method(
    "rce",
    "method:RCE",
    "robust locally linear controllable embedding: dyncontent without content and without a second set",
    cite="Banijamali et al. 2018",
)
paper.dataset(
    "planar",
    "data:Planar",
    "an agent among six obstacles, seen from above; two sets that show it in two shapes, the second without actions",
    tags=("transition",),
)
paper.dataset(
    "observations",
    "data:Observations",
    "your npz: frames before and after actions, and frames of another look without any",
    cite="",
    tags=("transition",),
)
paper.metric(
    "planar-table",
    "metrics:PlanarTable",
    "reconstruction, prediction, cost of plans and their success, on frames of both sets",
    tags=("transition",),
)
paper.metric(
    "latent-map",
    "metrics:LatentMap",
    "do both sets lie on one map of the state space, and does content stay out of it",
    cite="",
    tags=("transition",),
)
paper.command("plan", "commands:plan", "Steer from a start to a goal that are given as pictures, by iLQR.")
paper.command("predict", "commands:predict", "Roll the transition forward and draw what it foretells.")
paper.command("map", "commands:latent_map", "Draw the map of the state space that the code holds.")
paper.study("planar", "studies/planar.toml", "Table 1 of the planar system, rce and the ablations")
