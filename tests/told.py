"""How many seeds the random tests have passed, by a file of `--told`: `python tests/told.py FILE [--out FILE.json]`.

A test is counted with its parameters. What another go has mended counts as passed.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

LINE = re.compile(r"(passed|undrawn|skipped|failed) (?:setup|call|teardown) [\d.]+s (.+?)(?: \d*)?$")
SEED = re.compile(r"(?<=[\[-])seed(\d+)(?=[\]-])")
BEST = ("failed", "skipped", "undrawn", "passed")
"""What counts of a test that came several times; the last."""


def outcomes(text: str) -> dict[str, dict[int, str]]:
    """Test without its seed -> seed -> what became of it."""
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for line in text.splitlines():
        match = LINE.match(line)
        seed = SEED.search(match[2]) if match else None
        if match is None or seed is None:
            continue
        name = match[2][: seed.start()] + match[2][seed.end() :]
        before = found[name].get(int(seed[1]), match[1])
        found[name][int(seed[1])] = max(before, match[1], key=BEST.index)
    return found


def counts(found: dict[str, dict[int, str]]) -> dict[str, int]:
    """Numbers of tests: that passed under every seed; that draw nothing from it, and passed; that were skipped under
    every one; that passed under some, the others being skipped (`--brisk`); that failed under any. runs: that passed.
    """
    told: Counter[str] = Counter(
        dict.fromkeys(("tests", "every seed", "no draw", "skipped", "some seeds", "failed"), 0)
    )
    for seeds in found.values():
        became = set(seeds.values())
        told["tests"] += 1
        told["runs"] += sum(value == "passed" for value in seeds.values())
        if "failed" in became:
            told["failed"] += 1
        elif became == {"passed"}:
            told["every seed"] += 1
        elif became == {"skipped"}:
            told["skipped"] += 1
        elif "undrawn" in became and "skipped" not in became:
            told["no draw"] += 1
        else:
            told["some seeds"] += 1
    return dict(told)


def main() -> None:
    """Print the counts, and write them with --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    told = json.dumps(counts(outcomes(asked.file.read_text(encoding="utf-8"))), indent=2)
    if asked.out is not None:
        asked.out.write_text(told + "\n", encoding="utf-8")
    print(told)


if __name__ == "__main__":
    main()
