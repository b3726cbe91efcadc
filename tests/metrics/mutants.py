# ruff: noqa: E501
"""Wrong formulas, put into the metrics one at a time: which test notices each?

    python tests/metrics/mutants.py            # all of them, some minutes
    python tests/metrics/mutants.py 3 17       # these alone

Each is a text of a file and what stands there instead, with the tests that should fail. A mutant that no test kills ends
the script with 1. The package is copied into a temporary folder; the sources here are not touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FUNCTIONAL = "plugins/metrics/functional/"


class Mutant(NamedTuple):
    """file: below the repository; old -> new: a text that stands there once; tests: a file and a `-k` expression."""

    file: str
    old: str
    new: str
    tests: str
    only: str


def _of(file: str, tests: str, *rows: tuple[str, str, str]) -> list[Mutant]:
    return [Mutant(FUNCTIONAL + file, old, new, f"tests/metrics/{tests}", only) for old, new, only in rows]


MUTANTS = [
    *_of(
        "voting.py",
        "test_biting.py",
        ("variance[:codes].sqrt() >= threshold", "variance[:codes] >= threshold", "pruning"),
        ("values > threshold", "values >= 0 * threshold", "pruning"),
        ('Protocol(64, 10_000, 5_000, 10_000, "std", 0.05)', 'Protocol(64, 10_000, 5_000, 10_000, "std", 0.5)', "pruning"),
        ("ratio.argmin(1)", "ratio.argmax(1)", "noise_does_not_win"),
        ("local * share", "local", "spread_of_a_code"),
        ("(votes.argmax(1)[code] == factor)", "(votes.argmax(1)[code] >= factor)", "fresh_votes"),
        ("held_out = train\n    if n_eval:", "held_out = train\n    if not n_eval:", "fresh_votes"),
        ("(codes(a) - codes(b)).abs().mean(1)", "(codes(a) - codes(b)).mean(1).abs()", "absolute"),
        ('"eval": float(hit[n_train:].mean())', '"eval": float(hit[:n_train].mean())', "fresh_points"),
        ("(n.square() - counts.square().sum(-1))", "(n.square() + counts.square().sum(-1))", "gini"),
        ('dict.fromkeys(keys, float("nan"))', "dict.fromkeys(keys, 1.0)", "one_factor"),
        ("generator=self.generator, dtype", "generator=torch.Generator().manual_seed(0), dtype", "noise_of_its_own"),
    ),
    *_of(
        "information.py",
        "test_biting.py",
        ("return top[0] - top[1] if", "return top[0] + top[1] if", "mig_of"),
        ("gaps = _gap(information) / entropies", "gaps = _gap(information)", "mig_of"),
        ("_gap(relative.T)[informed].mean()", "_gap(relative.T).mean()", "mig_sup"),
        ("square = information.square()", "square = information", "modularity_of"),
        ("square.sum(1) - best", "square.sum(1)", "modularity_of"),
        ("torch.ones_like(best)) * others", "torch.ones_like(best)) * (others + 1)", "modularity_of"),
        ("overall = float(scores.mean())", "overall = float(scores[informed].mean())", "dead_codes_count"),
    ),
    *_of(
        "importance.py",
        "test_biting.py",
        ("rows, columns, total = r.sum(1), r.sum(0)", "rows, columns, total = r.sum(1) * 0 + 1, r.sum(0)", "weighted"),
        ("scipy_entropy(r.T + floor, base=k)", "scipy_entropy(r.T + floor, base=d)", "base_of"),
        ("scipy_entropy(r + floor, base=d)", "scipy_entropy(r + floor, base=k)", "base_of"),
        ("columns / total if smooth", "columns * 0 + 1 / k if smooth", "weighted"),
        ("int(np.argmin(errors))", "int(np.argmax(errors))", "depth_is_chosen"),
        ("errors = [float(np.square(m.predict(inputs[cut:]) - target[cut:]).mean())",
         "errors = [float(np.square(m.predict(inputs_test) - y_test[:, own[0]].numpy()).mean())", "depth_is_chosen"),
        ("torch.full_like(variance, torch.nan))).sqrt()", "torch.full_like(variance, torch.nan)))", "nrmse_has_no_scale"),
    ),
    *_of(
        "boosting.py",
        "test_biting.py",
        ("gain.mul_(m / (k * (m - k)))", "gain.mul_(1 / k)", "boosting"),
        ("(last + following) / 2", "last", "midway"),
        ("bottom = float((own * (1 - own)).sum())", "bottom = float(own.sum())", "boosting"),
    ),
    *_of(
        "predictors.py",
        "test_biting.py",
        ("return ordered[0] - ordered[1] if", "return ordered[0] - ordered[-1] if", "sap_takes"),
        ("square = (product / (n - 1)).square()", "square = (product / (n - 1)).abs()", "sap_takes"),
        ("best = int(accuracy.argmax())", "best = int(accuracy.argmin())", "strength_is_chosen"),
        ("mean, low = accuracy.mean(1), accuracy.amin(1)", "mean, low = accuracy.mean(1), accuracy.amax(1)", "worst_factor"),
    ),
    *_of(
        "neighbours.py",
        "test_biting.py",
        ("return 1 - float(nll.mean())", "return 1 - float((weight * nll).mean())", "classes_count_alike"),
        ("(rank < k).double()", "(rank <= k).double()", "recall_counts"),
        ("torch.arange(len(rows), device=x.device), rows] = torch.inf", "torch.arange(len(rows), device=x.device), rows] = 0", "recall_counts"),
        ("weight = (len(y) / (classes * counts))[y]", "weight = torch.ones_like(y, dtype=torch.float64)", "classes_count_alike"),
        ("(span >= widest / 20)", "(span >= widest / 2)", "narrow_codes"),
        ("(ratio.mean() - 1 / size) / (1 - 1 / size)", "ratio.mean()", "uniform"),
        ("infom = _concentration(live, 1)", "infom = _concentration(live, 0)", "uniform"),
    ),
    *_of(
        "structure.py",
        "test_biting.py",
        ("(largest * best[live]).sum() / largest.sum()", "best[live].mean()", "irs_of"),
        ("position = quantile * (len(group) - 1)", "position = quantile * len(group) - 1", "irs_of"),
        ("correlation.triu(1).sum()) * 2", "correlation.sum())", "mapc_of"),
        ("variance.sort(descending=True)", "variance.sort(descending=False)", "largest_variances"),
        ("index[:, d + 1 :], index[:, d]) for d in range(count - 1)", "index[:, d:], index[:, d]) for d in range(count - 1)", "pairs_of_different"),
    ),
    *_of(
        "agreement.py",
        "test_biting.py",
        ("linear_sum_assignment(-table)", "linear_sum_assignment(table)", "hungarian"),
        ("table.max(1).sum()", "table.max(0).sum()", "hungarian"),
        ("torch.maximum(area, 1 - area)", "area", "either_direction"),
    ),
    *_of(
        "neighbours.py",
        "test_functional_infomec.py",
        ("everything = _probe_gains(c, torch.ones_like(active), indices, labels)", "everything = _probe_gains(c, active, indices, labels)", "narrow_code"),
        ("tables = [contingency(column", "tables = [torch.ones_like(t) for t in []] or [contingency(column.flip(0)", "discrete_latents"),
        ("read += [(column[:, None] == classes(column))", "read += [(column[:, None] >= classes(column)[:1])", "renaming"),
    ),
    *_of(
        "shapley.py",
        "test_functional_shapley.py",
        ("* math.factorial(d - size - 1)", "* math.factorial(d - size)", "all_orders"),
        ("values[code] += before - now", "values[code] += now - before", "same"),
        ("mixed[:, :, index] = self.x[:, None, index]", "mixed[:, :, index] = self.x[:1, None, index]", "linear_reader"),
    ),
    *_of(
        "probes.py",
        "test_functional_shapley.py",
        ("h = torch.baddbmm(weights[i + 1], h, weights[i])", "h = h @ weights[i]", "side_by_side"),
    ),
    *_of(
        "capacity.py",
        "test_functional_capacity.py",
        ("above = loss - loss[-1]", "above = loss", "known_area"),
        ("return 1 - 2 * area / (length * guess)", "return 1 - area / (length * guess)", "known_area"),
        ("spread = (a - mean).square().mean(0).sum().sqrt()", "spread = (a - mean).square().mean(0).sum()", "constant_guess"),
        ('"size": len(kept) / c.shape[1]', '"size": c.shape[1] / len(kept)', "hard_ones"),
    ),
    *_of(
        "sensitive.py",
        "test_functional_tasks.py",
        ("(share - counts.sum(0) / counts.sum()).abs().sum(1) / 2", "(share - counts.sum(0) / counts.sum()).abs().sum(1)", "variation"),
        ("return float((distance * rows[rows > 0]).sum() / rows.sum())", "return float(distance.mean())", "variation"),
        ("base - own * sampler.strides[k]", "base", "interventions"),
    ),
    *_of(
        "matrices.py",
        "test_functional_tasks.py",
        ("steady = uniform(count, SIDE, 1)", "steady = uniform(count, 1, 1).expand(-1, SIDE, -1, -1)", "rows_differ"),
        ("again = constant | different", "again = constant", "keep_their_rule"),
        ("fits = ((found == solution[:, None]) | ~active[:, None]).all(2", "fits = (found == solution[:, None]).all(2", "keep_their_rule"),
        ("+ self._pairs(c[:, :, None] + b[:, None]).sum(2)", "", "all_pairs"),
        ("+ self._pairs(c + d)", "", "all_pairs"),
    ),
    *_of(
        "unseen.py",
        "test_functional_tasks.py",
        ("strange = ~torch.isin", "strange = torch.isin", "given_test_rows"),
        ("torch.cat([f, checks.matrix(known, \"known\").to(f.device)])", "f", "what_training_saw"),
        ("open_rows = (~mask).nonzero()", "open_rows = (mask | True).nonzero()", "entangled"),
        ("% longest < run", "% shortest < run", "kept_back"),
    ),
    *_of(
        "indicators.py",
        "test_discrete_codes.py",
        ("return values[first.argsort()]", "return values", "test_indicators"),
        ("(column == values).to(part.dtype)", "(column >= values).to(part.dtype)", "test_indicators"),
        ("return total.index_add_(0,", "return total.index_copy_(0,", "importances_of_indicators"),
        ("torch.linalg.pinv(gram, rtol=1e-10, hermitian=True) @ (", "(", "mean_of_each_class"),
    ),
    *_of(
        "importance.py",
        "test_discrete_codes.py",
        ("importance = summed(torch.from_numpy(importance), owner).numpy()", "importance = summed(torch.from_numpy(importance), owner).numpy() / np.bincount(owner)[:, None]", "importances_of_indicators"),
    ),
    *_of(
        "predictors.py",
        "test_discrete_codes.py",
        ("c[rows], wanted, discrete).mean(1, keepdim=True)", "c[rows], wanted, discrete)[:, :1]", "no_class_index"),
        ("result[d] = (explained / target_variance)", "result[d] = (explained / target_variance).sqrt()", "between_classes"),
    ),
    *_of(
        "shapley.py",
        "test_discrete_codes.py",
        ("index = [m for code in known for m in self.columns[code]]", "index = list(known)", "several_columns"),
    ),
    *_of(
        "voting.py",
        "test_discrete_codes.py",
        ("for d in class_columns(table, discrete).nonzero()[:, 0].tolist()}", "for d in []}", "changes_no_reader and higgins"),
    ),
    *_of(
        "information.py",
        "test_discrete_codes.py",
        ("index[:, d - at.start] = own", "pass", "changes_no_reader and mig"),
    ),
    *_of(
        "blocks.py",
        "test_functional_blocks.py",
        ("for start in range(0, rows, step))", "for start in range(0, max(1, rows - step), step))", "parts_change"),
        ("torch.int8 if count <= 1 << 7", "torch.uint8 if count <= 1 << 7", "narrowest"),
        ("torch.int16 if count <= 1 << 15", "torch.int16 if count <= 1 << 16", "narrowest"),
    ),
    *_of(
        "checks.py",
        "test_functional_blocks.py",
        ("torch.where(values[place] == part, place, -1)", "place", "not_seen"),
    ),
    *_of(
        "neighbours.py",
        "test_functional_neighbours.py",
        ("(distance[:, largest - 1].square() < last) if width < n else True", "True", "lower_index"),
    ),
    *_of(
        "identification.py",
        "test_functional_identification.py",
        ("return v[keep].T / s[keep]", "return v[keep].T", "canonical"),
        ("center = (blocks.mean(y.x) - y.mean) * y.scale", "center = torch.zeros_like(y.mean)", "r2"),
    ),
    *_of(
        "hinge.py",
        "test_functional_solvers.py",
        ("own = torch.searchsorted(self.places, (self.targets * n + at)", "own = torch.searchsorted(self.places, (self.targets + at)", "svm"),
        ("torch.where(before, start, own), torch.where(before, own, end)", "start, own", "svm"),
    ),
]  # fmt: skip


def tried(folder: Path, mutant: Mutant) -> str:
    """What became of a mutant: "killed by TEST", "SURVIVED" or why it could not be tried."""
    path = folder / mutant.file
    sound = path.read_text(encoding="utf-8")
    if sound.count(mutant.old) != 1:
        return f"STALE: its text stands {sound.count(mutant.old)} times in {mutant.file}"
    path.write_text(sound.replace(mutant.old, mutant.new), encoding="utf-8")
    line = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutant.tests, "-k", mutant.only]
    try:
        own = {**os.environ, "PYTHONPATH": str(folder / "src")}  # goes before the installed package
        done = subprocess.run(line, cwd=folder, env=own, capture_output=True, text=True, check=False)
    finally:
        path.write_text(sound, encoding="utf-8")
    failed = [word for text in done.stdout.splitlines() if text.startswith("FAILED") for word in text.split()[1:2]]
    if done.returncode == 1 and failed:
        return f"killed by {failed[0].rpartition('::')[2]}"
    return "SURVIVED" if done.returncode == 0 else f"STALE: no test ran ({done.stdout[-200:].strip()})"


def main() -> None:
    """Try the mutants that are named by number, or all."""
    chosen = [int(word) for word in sys.argv[1:]] or range(len(MUTANTS))
    bad = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("core", "plugins", "tests"):
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "src").mkdir()
        (folder / "src" / "distk").symlink_to("../core")
        shutil.copy(ROOT / "pyproject.toml", folder)
        for number in chosen:
            outcome = tried(folder, MUTANTS[number])
            bad += not outcome.startswith("killed")
            print(f"{number:3} {outcome:60} {MUTANTS[number].old.splitlines()[0][:60]}", flush=True)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
