"""What the runs in results/ say of each paper's claims, as the table in docs/studies.md.

    python benchmarks/verdicts.py [--write]

Reads every results/study-NAME-SCALE-WHERE.csv, which is the results.csv of a study; further words may stand between.
The claims are those of the recipe as it stands, judged on these rows as `distk study report` judges them. Without
--write the text is printed.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distk.registry import registry
from distk.study import report
from distk.study.claims import FAILS, FEW, HOLDS, UNTESTED, Claim, Verdict
from distk.study.plan import plan
from distk.study.store import read_rows

HERE = Path(__file__).resolve().parents[1]
PAGE, FROM, TO = HERE / "docs" / "studies.md", "<!-- verdicts: benchmarks/verdicts.py -->", "<!-- end of verdicts -->"
SCALES = ("small", "medium", "gpu", "paper")
KINDS = (HOLDS, FAILS, FEW, UNTESTED)


@dataclass
class Told:
    """A file of results. where: what its name says beside study and scale. runs: rows; seeds: of a variant, at most."""

    file: Path
    study: str
    scale: str
    where: str
    runs: int
    seeds: int
    verdicts: list[tuple[Claim, Verdict]]

    def count(self, kind: str) -> int:
        """Claims with this verdict."""
        return sum(verdict.verdict == kind for _, verdict in self.verdicts)


def files() -> Iterator[tuple[Path, str, str, str]]:
    """(file, study, scale, where) of every file of results whose name says these."""
    names = sorted((e.name for e in registry().entries("study")), key=len, reverse=True)
    for path in sorted((HERE / "results").glob("study-*.csv")):
        words = path.stem.removeprefix("study-")
        name = next(n for n in names if words.startswith(f"{n}-"))
        rest = words.removeprefix(f"{name}-").split("-")
        scale = next(word for word in rest if word in SCALES)
        yield path, name, scale, "-".join(word for word in rest if word != scale)


def told() -> list[Told]:
    """Every file with the verdicts on its study's claims."""
    found = []
    for path, name, scale, where in files():
        recipe, rows = plan(name, scale=scale).recipe, read_rows(path)
        entry = registry().find("study", name)
        verdicts = [(claim, report.verdict(claim, recipe, rows, entry)) for claim in recipe.claims]
        seeds = max(Counter(row["variant"] for row in rows).values())
        found.append(Told(path, name, scale, where, len(rows), seeds, verdicts))
    return found


def difference(verdict: Verdict) -> str:
    """The difference with its interval, or what the judge says."""
    if verdict.difference is None:
        return verdict.reason
    ends = (verdict.low, verdict.high)
    interval = "" if None in ends else f" [{ends[0]:.3g}, {ends[1]:.3g}]"
    return f"{verdict.difference:+.3g}{interval}, n = {verdict.n}"


def page(found: list[Told]) -> str:
    """The Markdown between the two marks."""
    lines = [f"| study, file in `results/` | runs, seeds | {' | '.join(KINDS)} |", "|---|---|---|---|---|---|"]
    for one in found:
        counts = " | ".join(str(one.count(kind)) for kind in KINDS)
        lines.append(f"| `{one.study}`, `{one.file.name}` | {one.runs}, {one.seeds} | {counts} |")
    total = " | ".join(str(sum(one.count(kind) for one in found)) for kind in KINDS)
    lines += [f"| all | {sum(one.runs for one in found)} | {total} |", ""]
    for kind, head in ((FAILS, "Claims that do not hold on these runs"), (HOLDS, "Claims that hold")):
        lines += [f"{head} (difference in the claim's favour, of a bound the mean less it; interval; runs):", ""]
        for one in found:
            for claim, verdict in one.verdicts:
                if verdict.verdict == kind:
                    apart = f" ({one.where.rpartition('-')[0]})" if "-" in one.where else ""
                    lines.append(f"- `{one.study}`{apart}: {claim.text}: {difference(verdict)}")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put it into docs/studies.md")
    given = parser.parse_args()
    text = page(told())
    if not given.write:
        print(text)
        return
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(FROM)
    after = rest.partition(TO)[2]
    PAGE.write_text(f"{before}{FROM}\n\n{text}\n{TO}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
