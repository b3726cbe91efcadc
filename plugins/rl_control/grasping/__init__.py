"""Grasping with a geometry-aware representation (Yan et al. 2017).

| file | holds |
|---|---|
| `method.py` | the geometry-aware model, and its baseline |
| `projection.py` | what a camera, or a gripper, sees of an occupancy grid |
| `networks.py` | encoders, decoder, predictor |
| `data.py`, `shards.py` | the data set `grasps`, and its format in files |
| `bodies.py`, `meshes.py` | objects as signed distances, made here or read from OBJ and STL |
| `scenes.py`, `generator.py` | pictures of them, grasps of them |
| `gripper.py`, `physics.py`, `engines.py` | whether a grasp holds: the quasi-static rule, MuJoCo |
| `planning.py` | better grasps found by the model's score |
| `metrics.py`, `commands.py`, `figures.py` | what is scored, said and drawn |
"""

from distk.papers import Paper

paper = Paper(__name__, cite="Yan et al. 2017", tags=("grasp", "control"))
paper.method(
    "grasping",
    "method:Grasping",
    "predicts whether a grasp holds from one RGBD view, by way of an occupancy grid that nobody showed it",
    aliases=("geograsp",),
)
paper.method(
    "graspcnn",
    "method:GraspCNN",
    "the baseline of grasping: outcome from the view and the pose alone, without a shape",
)
paper.dataset(
    "grasps",
    "data:Grasps",
    "views of crockery on a table and grasps of it with their outcomes: made here, or yours in shards",
    cite="after Yan et al. 2017",
    tags=("grasp",),
)
paper.metric(
    "grasp-accuracy",
    "metrics:GraspAccuracy",
    "share of grasps whose outcome is foretold, by category and elevation (Tables 1 and 2)",
    tags=("grasp",),
)
paper.metric(
    "grasp-planning",
    "metrics:GraspPlanning",
    "share of searches that find a grasp that holds, guided by the model's score (Table 3)",
    tags=("grasp",),
)
paper.metric(
    "grasp-shape",
    "metrics:GraspShape",
    "the occupancy grid that one view gives, against the truth",
    cite="",
    tags=("grasp",),
)
paper.command("make-data", "commands:make_data", "Make objects, pictures and grasps as a folder of shards.")
paper.command("plan", "commands:plan", "Search from grasps that fail for such as hold, by the model's score.")
paper.command("reconstruct", "commands:reconstruct", "Draw the grid that a view gives, and what it projects to.")
paper.command("check-labels", "commands:check_labels", "Hold the quasi-static rule against MuJoCo.")
paper.study(
    "grasping",
    "studies/grasping.toml",
    "Tables 1 to 3: accuracy by category and elevation, success of planning, with and without a shape",
    judge="study:judge",
)
