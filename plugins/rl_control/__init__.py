"""Methods that act: interaction and control. A table of contents: nothing here imports torch."""

from distk.hookspecs import Register, RegisterPaper, hookimpl

_AT = "distk.plugins.rl_control."


PAPERS = ("dyncontent", "grasping", "icf")


@hookimpl
def distk_register_papers(register: RegisterPaper) -> None:
    for paper in PAPERS:
        register(f"{__name__}.{paper}")


@hookimpl
def distk_register_datasets(register: Register) -> None:
    register(
        "maze",
        _AT + "data.environments:Maze",
        "environment: an agent in a small grid with blocks and switches (maze:switches: 4x4, three switches)",
        paper="after Sukhbaatar et al. 2015",
        tags=("environment", "factors"),
    )
    register(
        "mnistgrid",
        _AT + "data.mnistgrid:MnistGrid",
        "environment: an odd and an even digit, each moved by four actions",
        paper="Thomas et al. 2018, B.1",
        tags=("environment", "factors"),
    )
    register(
        "pointmass",
        _AT + "data.pointmass:PointMass",
        "environment: a point mass pushed about in a box; continuous actions, exact mechanics",
        tags=("environment",),
    )
    register(
        "gym",
        _AT + "data.gym_adapter:Gym",
        "any Gymnasium environment, as --data gym:ID (needs distk[gym])",
        tags=("environment",),
    )
    register(
        "transitions",
        _AT + "data.transitions:Transitions",
        "seen, done, seen next: drawn from an environment (transitions:maze) or from your npz (transitions:recorded)",
        tags=("transition",),
    )
