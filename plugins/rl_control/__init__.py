"""Methods that act: interaction and control. A table of contents: nothing here imports torch."""

import typer

from distk.hookspecs import Register, hookimpl

_AT = "distk.plugins.rl_control."


@hookimpl
def distk_register_methods(register: Register) -> None:
    register(
        "icf",
        _AT + "icf:ICF",
        "finds what an agent can change independently: factors phi and their policies, by selectivity",
        paper="Thomas et al. 2018",
        tags=("environment", "unsupervised", "reinforcement"),
        aliases=("selectivity",),
    )
    register(
        "icf-discrete",
        _AT + "icf_discrete:ICFDiscrete",
        "K policies, each tied to one latent coordinate that it alone should change",
        paper="Thomas et al. 2017; Bengio et al. 2017",
        tags=("environment", "unsupervised", "reinforcement"),
        aliases=("selectivity-discrete",),
    )


@hookimpl
def distk_register_datasets(register: Register) -> None:
    register(
        "maze",
        _AT + "environments:Maze",
        "environment: an agent in a small grid with blocks and switches (maze:switches: 4x4, three switches)",
        paper="after Sukhbaatar et al. 2015",
        tags=("environment", "factors"),
    )
    register(
        "mnistgrid",
        _AT + "mnistgrid:MnistGrid",
        "environment: an odd and an even digit, each moved by four actions",
        paper="Thomas et al. 2018, B.1",
        tags=("environment", "factors"),
    )
    register(
        "gym",
        _AT + "gym_adapter:Gym",
        "any Gymnasium environment with discrete actions, as --data gym:ID (needs distk[gym])",
        tags=("environment",),
    )


@hookimpl
def distk_register_metrics(register: Register) -> None:
    register(
        "icf",
        _AT + "icf_metric:ICFMetric",
        "effective modes of control, readout of positions, geometry of the changes, selectivity",
        paper="Thomas et al. 2018",
        tags=("environment",),
    )


@hookimpl
def distk_register_commands(app: typer.Typer) -> None:
    from distk.plugins.rl_control import commands

    commands.add(app)
