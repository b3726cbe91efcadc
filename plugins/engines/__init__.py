"""Where the runs of a study go beside this machine: Slurm, through submitit, and Ray. Nothing here imports either."""

from __future__ import annotations

from distk.hookspecs import Register, hookimpl


@hookimpl
def distk_register_engines(register: Register) -> None:
    register(
        "slurm", f"{__name__}.slurm:Slurm", "jobs of a Slurm cluster, through submitit: pip install 'distk[slurm]'"
    )
    register(
        "ray", f"{__name__}.ray:Ray", "tasks of a Ray cluster, or of one on this machine: pip install 'distk[ray]'"
    )
