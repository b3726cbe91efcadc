"""Adversarial methods. A table of contents: nothing here imports torch."""

from distk.hookspecs import RegisterPaper, hookimpl

PAPERS = ("icm", "infogan", "ldf", "sdgan")


@hookimpl
def distk_register_papers(register: RegisterPaper) -> None:
    for paper in PAPERS:
        register(f"{__name__}.{paper}")
