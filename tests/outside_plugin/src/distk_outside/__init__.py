"""Methods that learn otherwise than distk's own do, two scores, a logger and a command. Nothing here imports torch."""

import csv
import json
from pathlib import Path

import typer

from distk import hookimpl

DISTK_CONTRACT = 1


@hookimpl
def distk_register_methods(register) -> None:
    register("outside-qlae", "distk_outside.qlae:QLAE", "a code of learned values per dimension", paper="Hsu 2023")
    register("outside-adagvae", "distk_outside.pairs:AdaGVAE", "pairs that differ in an unknown few factors")
    register("outside-slowvae", "distk_outside.pairs:SlowVAE", "pairs that are near in time", paper="Klindt 2021")
    register("outside-ivae", "distk_outside.ivae:IVAE", "the label tells the prior and the posterior")
    register("outside-diffae", "distk_outside.diffae:DiffAE", "a diffusion decoder told by a code")
    register("outside-ica", "distk_outside.ica:ICA", "independent components, in closed form")


@hookimpl
def distk_register_metrics(register) -> None:
    register("outside-mcc", "distk_outside.scores:MCC", "mean correlation of matched codes and factors")
    register("outside-jacobian", "distk_outside.scores:Jacobian", "how many pixels a code moves")


@hookimpl
def distk_register_commands(app: typer.Typer) -> None:
    from distk_outside import commands

    inner = typer.Typer(help="What this plugin can say.")
    inner.command("report")(commands.report)
    app.add_typer(inner, name="outside")


# A logger: every row as a line of rows.csv. A run that was killed takes some steps again, so rows from there on go.


def _table(run) -> Path:
    return run.path / "rows.csv"


@hookimpl
def distk_run_started(run, step) -> None:
    if "outside" not in run.config["train"]["log"]:
        return
    kept = []
    if _table(run).exists():
        kept = [row for row in csv.reader(_table(run).open()) if int(row[0]) <= step]
    with _table(run).open("w", newline="") as file:
        csv.writer(file).writerows(kept)


@hookimpl
def distk_run_logged(run, step, values) -> None:
    if "outside" in run.config["train"]["log"]:
        held = {key: value for key, value in values.items() if key not in ("rate", "seconds")}
        with _table(run).open("a", newline="") as file:
            csv.writer(file).writerow([step, json.dumps(held, sort_keys=True)])
