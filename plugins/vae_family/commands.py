"""`distk study ...`: the family's experiments."""

import typer

from distk.plugins.vae_family import comparison_commands
from distk.plugins.vae_family.covreg.commands import covreg
from distk.plugins.vae_family.fstat.commands import study_fstat
from distk.plugins.vae_family.jade.study import study as jade
from distk.plugins.vae_family.peychev.commands import beta

study = typer.Typer(no_args_is_help=True, help="The papers' experiments, from one command each.")
study.callback()(lambda: None)
beta.callback()(lambda: None)
for name, function in (
    ("discrete", comparison_commands.discrete),
    ("factorvae", comparison_commands.factorvae),
    ("dip", comparison_commands.dip),
    ("jade", jade),
    ("fstat", study_fstat),
    ("covreg", covreg),
):
    study.command(name)(function)
study.add_typer(beta, name="beta")
