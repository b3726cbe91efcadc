"""Scores by nearest neighbours: KSG mutual information, recall@k, and InfoMEC. All in float64, chunked."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from distk.console import counted

from . import checks
from .blocks import GPU, MOST, most, numbers, room, spans
from .checks import Array, Labels, Result
from .indicators import class_columns, classes, indicators
from .solvers import Standardised, contingency, entropy, logistic_regression, mutual_information


def ksg(x: Array, y: Array, k: int = 3, variant: int = 1, seed: int = 0) -> float:
    """Mutual information in nats of paired rows x [n, dx] and y [n, dy] (Kraskov et al. 2004, eq. 8 and 9).

    Variant 1: eps_i = max-norm distance to the k-th neighbour in the joint space, n_x = other points strictly
    within eps_i; I = psi(k) + psi(n) - mean[psi(n_x + 1) + psi(n_y + 1)]. Variant 2: separate eps per space
    (the rectangle of the k neighbours), n_x = points within or on it; I = psi(k) - 1/k + psi(n) -
    mean[psi(n_x) + psi(n_y)]. Coordinates are standardised; where two joint rows are equal, noise of 1e-10
    (from `seed`) parts them. Biased low at strong dependence and high dimension; slightly negative values are
    estimates of 0. Needs 1 <= k < n.
    """
    a, b = checks.matrix(x, "x"), checks.matrix(y, "y")
    b = b.to(a.device)
    if len(a) != len(b):
        raise ValueError(f"x has {counted(len(a), 'row')} but y has {len(b)}")
    if variant not in (1, 2):
        raise ValueError(f"variant must be 1 or 2, got {variant}")
    n = len(a)
    if not 1 <= k < n:
        raise ValueError(f"k must be in 1..{n - 1} (below the number of rows), got {k}")
    a, b = checks.standardise(a)[0], checks.standardise(b)[0]
    joint = torch.cat([a, b], 1)
    if len(joint.unique(dim=0)) < n:
        noise = torch.randn(joint.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        joint = joint + 1e-10 * noise.to(joint.device)
        a, b = joint[:, : a.shape[1]], joint[:, a.shape[1] :]
    psi = torch.special.digamma
    total = 0.0
    for rows in torch.arange(n, device=a.device).split(max(1, most(a) // n)):
        dx, dy = _max_norm(a, rows), _max_norm(b, rows)
        dz = torch.maximum(dx, dy)
        if variant == 1:
            eps = dz.topk(k, dim=1, largest=False).values[:, -1:]
            counts = [(d < eps).sum(1).double() + 1 for d in (dx, dy)]
        else:
            near = dz.topk(k, dim=1, largest=False).indices
            counts = [(d <= d.gather(1, near).amax(1, keepdim=True)).sum(1).double() for d in (dx, dy)]
        total += float(sum(psi(c).sum() for c in counts))
    head = psi(torch.tensor(float(k), dtype=torch.float64)) + psi(torch.tensor(float(n), dtype=torch.float64))
    return float(head) - total / n - (1 / k if variant == 2 else 0.0)


def _max_norm(points: Tensor, rows: Tensor) -> Tensor:
    """Max-norm distances [rows, n] of some rows to all; a point's distance to itself is inf."""
    distance = points.new_zeros(len(rows), len(points))
    for column in points.T:  # coordinate by coordinate keeps the temporary at [rows, n]
        torch.maximum(distance, (column[rows, None] - column).abs(), out=distance)
    distance[torch.arange(len(rows), device=rows.device), rows] = torch.inf
    return distance


def recall_at_k(
    emb: Array,
    labels: Array,
    ks: Sequence[int] = (1, 2, 4, 8),
    metric: str = "l2",
    discrete: Sequence[int] = (),
) -> Result:
    """Recall@k (Ridgeway & Mozer 2017): share of items with a same-label item among their k nearest others; higher is
    better.

    emb [n, d] is query and gallery at once, self excluded by index; labels [n] class indices. metric 'l2' or
    'cosine' (a zero vector has similarity 0 to all). discrete: columns that are class indices; two classes are as far
    apart as any other two (indicators). Ties go to the lower index. Items whose class has no
    other member are misses. Keys: `recall@k` for each k, items_without_match (their number). Needs 1 <= k <
    n.
    """
    checks.one_of(metric, ("l2", "cosine"), "metric")
    (x,), _ = indicators(checks.matrix(emb, "emb"), discrete)
    label = checks.labels_1d(labels, "labels").to(x.device)
    n = len(x)
    if len(label) != n:
        raise ValueError(f"emb has {counted(n, 'row')} but labels has {len(label)}")
    if any(not 1 <= k < n for k in ks):
        raise ValueError(f"every k must be in 1..{n - 1} (below the number of rows), got {list(ks)}")
    if metric == "cosine":
        x = torch.nn.functional.normalize(x, dim=1)
    # The rank of the nearest same-label item answers every k at once, with exact ties and without sorting.
    if metric == "l2" and x.device.type == "cpu":
        rank, unsure = _ranks_by_tree(x, label, max(ks))
    else:
        rank = torch.empty(n, dtype=torch.int64, device=x.device)
        unsure = torch.arange(n, device=x.device)
    for rows in unsure.split(max(1, (MOST if x.device.type == "cpu" else max(GPU, x.numel())) // n)):
        rank[rows] = _ranks_among_all(x, label, rows, metric)
    result: Result = {f"recall@{k}": float((rank < k).double().mean()) for k in ks}
    alone = int((torch.bincount(label) == 1).sum())
    result["items_without_match"] = float(alone)
    return checks.finish(result, {"items_without_match": f"{counted(alone, 'item')} count as misses"} if alone else {})


def _ranks_among_all(x: Tensor, label: Tensor, rows: Tensor, metric: str) -> Tensor:
    """How many other rows of x [n, D] are nearer to each of some rows than the nearest of its own label, int64; n where
    there is none."""
    if metric == "cosine":
        distance = -(x[rows] @ x.T)
    else:  # differences, not inner products: equal rows must have exactly equal distances
        distance = torch.cdist(x[rows], x, compute_mode="donot_use_mm_for_euclid_dist")
    distance[torch.arange(len(rows), device=x.device), rows] = torch.inf
    same = label[rows, None] == label
    best, at = distance.masked_fill(~same, torch.inf).min(1, keepdim=True)
    nearer = (distance < best).sum(1) + ((distance == best) & (torch.arange(len(x), device=x.device) < at)).sum(1)
    return torch.where(best[:, 0].isinf(), len(x), nearer)


def _ranks_by_tree(x: Tensor, label: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """The same for all rows by scikit-learn's search, where it is below `largest`; and the rows of which that says
    nothing certain, since others are as far as the last of their `largest` nearest."""
    from sklearn.neighbors import NearestNeighbors

    n, width = len(x), min(len(x), largest + 2)  # itself, and one beyond
    finder = NearestNeighbors(n_neighbors=width).fit(x.numpy())
    rank, sure = torch.full((n,), n), torch.zeros(n, dtype=torch.bool)
    # What a search that multiplies rows instead of subtracting them may be wrong by, in squares
    slack = 1e3 * torch.finfo(x.dtype).eps * x.shape[1] * max(abs(float(end)) for end in x.aminmax()) ** 2
    for at in spans(n, 2 * width * x.shape[1], room(x)):
        rows = torch.arange(at.start, at.stop)
        far, near = finder.kneighbors(x[at].numpy())
        ordered = torch.from_numpy(near).sort(1).values  # of equal distances the lower index comes first
        distance = torch.cdist(x[at, None], x[ordered], compute_mode="donot_use_mm_for_euclid_dist")[:, 0]
        distance, place = distance.masked_fill(ordered == rows[:, None], torch.inf).sort(dim=1, stable=True)
        same = (label[ordered.gather(1, place)] == label[at, None]) & ~distance.isinf()
        rank[at] = torch.where(same.any(1), same.double().argmax(1), n)
        last = torch.from_numpy(far[:, -1]).square() - slack
        sure[at] = (distance[:, largest - 1].square() < last) if width < n else True
    return rank, (~sure).nonzero()[:, 0]


def info_mec(
    codes: Array,
    factors: Array,
    neighbours: int = 10,
    seed: int = 0,
    factor_bins: int | None = None,
    discrete_latents: bool | Sequence[int] = False,
) -> Result:
    """InfoMEC: modularity, compactness, explicitness by information (Hsu et al. 2023, eq. 5-9); higher is
    better.

    codes [n, D], factors [n, K] discrete. discrete_latents: True where every code is a class index (a quantised
    latent), or the columns that are. NMI_dk = I(c_d; F_k) / H(F_k): for a continuous code by the continuous-discrete
    nearest-neighbour estimator (Ross 2014), for a discrete one by counting. Pruned (NaN rows): a continuous code whose
    range is below 1/20 of the largest, a discrete code that is constant. infom = (mean_d max_k NMI / sum_k NMI -
    1/K) / (1 - 1/K) over active codes; infoc the same over codes per factor. infoe = mean_k 1 - CE(linear probe) /
    log S_k over ALL codes, as the authors' program has it; infoe_pruned: over the active ones alone. The probe is an
    unpenalised, class-balanced multinomial regression on standardised codes, and on the indicators of discrete ones;
    both cross-entropies are those of the rows that it was fitted to. Keys: infom, infoc, infoe, infoe_pruned, nmi
    [D, K], infoe_per_factor [K], codes_used. infom needs 2 factors and infoc 2 active codes, else NaN.
    """
    c, f = checks.paired(codes, factors, gaps=True, own=True)
    if neighbours < 1:
        raise ValueError(f"neighbours must be at least 1, got {neighbours}")
    labels = checks.discrete(f, factor_bins)
    indices = class_columns(c, discrete_latents)
    active = _active(c, indices)
    nan = float("nan")
    reasons = labels.explain("infom")
    nmi = torch.full((c.shape[1], len(labels.kept)), torch.nan, dtype=torch.float64, device=c.device)
    if not bool(active.any()):
        scores = ("infom", "infoc", "infoe", "infoe_pruned")
        reasons |= dict.fromkeys(scores, "every code is constant")
        empty = {**dict.fromkeys(scores, nan), "nmi": labels.widen(nmi), "codes_used": 0.0}
        return checks.finish(empty | {"infoe_per_factor": labels.widen(nmi[0])}, reasons)
    smooth, counted = active & ~indices, active & indices
    if bool(smooth.any()):
        nmi[smooth] = _normalised_information(_columns(c, smooth), labels, neighbours, seed)
    if bool(counted.any()):
        nmi[counted] = _counted_information(c[:, counted], labels)
    live = nmi[active]
    infom = _concentration(live, 1)
    infoc = _concentration(live, 0)
    if len(labels.kept) < 2:
        reasons["infom"] = "undefined for a single factor"
    if len(live) < 2:
        reasons["infoc"] = "undefined for a single active code"
    everything = _probe_gains(c, torch.ones_like(active), indices, labels)
    pruned = everything if bool(active.all()) else _probe_gains(c, active, indices, labels)
    result = {
        "infom": infom,
        "infoc": infoc,
        "infoe": float(everything.mean()),
        "infoe_pruned": float(pruned.mean()),
        "nmi": labels.widen(nmi),
        "infoe_per_factor": labels.widen(everything),
        "codes_used": float(active.sum()),
    }
    return checks.finish(result, reasons)


def _active(codes: Tensor, indices: Tensor) -> Tensor:
    """Mask [D] of the codes that take part: continuous ones by their range, discrete ones that vary at all."""
    span = codes.amax(0).double() - codes.amin(0).double()
    widest = span[~indices].max() if bool((~indices).any()) else span.new_zeros(())
    return (span > 0) & (indices | (span >= widest / 20))


def _counted_information(x: Tensor, labels: Labels) -> Tensor:
    """I(c_d; F_k) / H(F_k) of class indices x [n, D] by counting, [D, K']."""
    takes = [(labels.take(k), k, s) for k, s in enumerate(labels.sizes)]
    rows = []
    for values, column in (checks.levels(own) for own in x.T):
        size = len(values)
        tables = [contingency(column[rows], labels.columns[k][rows], (size, s)) for rows, k, s in takes]
        rows.append(torch.stack([mutual_information(t) / entropy(t.sum(0)) for t in tables]))
    return torch.stack(rows)


def _columns(codes: Tensor, wanted: Tensor) -> Tensor:
    """Some of the codes [n, D]; where it is all of them, no copy."""
    return codes if bool(wanted.all()) else codes[:, wanted]


def _probe_gains(codes: Tensor, wanted: Tensor, indices: Tensor, labels: Labels) -> Tensor:
    """What a linear probe of the `wanted` codes [n, D] gains of each factor, [K']; discrete codes (`indices`) enter by
    indicators."""
    smooth, counted = wanted & ~indices, wanted & indices
    if not labels.partial and not bool(counted.any()):
        whole = Standardised.of(_columns(codes, smooth))
        gains = [_probe_gain(whole, labels.of(k), size) for k, size in enumerate(labels.sizes)]
        return torch.tensor(gains, dtype=torch.float64)
    read = [checks.standardise(_columns(codes, smooth).double())[0]] if bool(smooth.any()) else []
    read += [(column[:, None] == classes(column)).double() for column in codes[:, counted].T]
    x = read[0] if len(read) == 1 else torch.cat(read, 1)
    takes = [(labels.take(k), k, size) for k, size in enumerate(labels.sizes)]
    gains = [_probe_gain(x[rows], labels.of(k, rows), size) for rows, k, size in takes]
    return torch.tensor(gains, dtype=torch.float64)


def _concentration(nmi: Tensor, axis: int) -> float:
    """(mean of max / sum along `axis` - 1/size) / (1 - 1/size); lines without information count as even
    (1/size).
    """
    size = nmi.shape[axis]
    if size < 2:
        return float("nan")
    total = nmi.sum(axis)
    ratio = torch.where(total > 0, nmi.amax(axis) / total.where(total > 0, torch.ones_like(total)), 1 / size)
    return float((ratio.mean() - 1 / size) / (1 - 1 / size))


def _normalised_information(x: Tensor, labels: Labels, neighbours: int, seed: int) -> Tensor:
    """I(c_d; F_k) / H(F_k), [D, K'], clipped at 0."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for d in range(x.shape[1]):
        column = numbers(x[:, d])
        if len(column.unique()) < len(column):  # equal values: part them, as scikit-learn does
            noise = torch.randn(len(column), generator=generator, dtype=torch.float64).to(x.device)
            column = column + 1e-10 * column.abs().mean() * noise
        row = []
        for k, size in enumerate(labels.sizes):
            known = labels.take(k)
            y = labels.of(k, known)
            mutual = knn_information(column[known], y, size, neighbours)
            row.append(mutual.clamp_min(0) / entropy(torch.bincount(y, minlength=size).double()))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def knn_information(x: Tensor, y: Tensor, classes: int, neighbours: int) -> Tensor:
    """Mutual information in nats of one continuous code x [n] and class indices y [n] (Ross 2014, eq. 1).

    I = psi(n) + mean[psi(k_i) - psi(n_y) - psi(m_i)]: k_i = min(neighbours, n_y - 1); m_i = points, itself
    included, strictly closer than the k_i-th neighbour of the same class. Classes of one row are left out.
    """
    counts = torch.bincount(y, minlength=classes)
    if bool((counts == 1).any()):
        keep = counts[y] > 1
        x, y = x[keep], y[keep]
    if len(x) == 0:
        return x.new_zeros(())
    order = x.argsort()
    ordered, label = x[order], y[order]
    del order
    by_class = label.argsort(stable=True)
    value, label = ordered[by_class], label[by_class]
    del by_class
    taking_part = torch.where(counts > 1, counts, 0)
    starts = taking_part.cumsum(0) - taking_part
    psi, total = torch.special.digamma, x.new_zeros(())
    for at in spans(len(value), 8, room(value)):  # a dozen arrays of these rows live at a time
        own, count, start = value[at], counts[label[at]], starts[label[at]]
        k = (count - 1).clamp_max(neighbours)
        radius = _reach(value, at.start, k, start, start + count, neighbours)
        # Strictly inside, despite rounding
        radius = radius - 4 * torch.finfo(radius.dtype).eps * (radius + own.abs())
        inside = torch.searchsorted(ordered, own + radius, right=True) - torch.searchsorted(ordered, own - radius)
        total += (psi(k.double()) - psi(count.double()) - psi(inside.clamp_min(1).double())).sum()
    head = psi(torch.tensor(float(len(x)), dtype=torch.float64, device=x.device))
    return head + total / len(x)


def _reach(value: Tensor, first: int, k: Tensor, start: Tensor, stop: Tensor, neighbours: int) -> Tensor:
    """Distance [m] of the points `value[first : first + m]` to their k-th nearest between `start` and `stop` (all [m]),
    where values rise: in one dimension those are a window with `left` of them below the point."""
    place = torch.arange(first, first + len(k), device=value.device)
    own = value[place]
    radius = torch.full_like(own, torch.inf)
    for left in range(neighbours + 1):
        low, high = place - left, place + k - left
        valid = (left <= k) & (low >= start) & (high < stop)
        reach = torch.maximum(own - value[low.clamp_min(0)], value[high.clamp(0, len(value) - 1)] - own)
        radius = torch.where(valid, torch.minimum(radius, reach), radius)
    return radius


def _probe_gain(x: Tensor | Standardised, y: Tensor, classes: int) -> float:
    """1 - cross-entropy of an unpenalised, class-balanced linear probe / log classes; below 0 where balance costs more
    than the codes tell. The constant that a balanced fit finds is even: its cross-entropy is log classes."""
    counts = torch.bincount(y, minlength=classes).double()
    weight = (len(y) / (classes * counts))[y]
    model = logistic_regression(x, y, classes, c=float("inf"), sample_weight=weight)
    nll = torch.cat([-some.log_softmax(1).gather(1, y[rows, None])[:, 0] for rows, some in model.parts(x)])
    return 1 - float(nll.mean()) / math.log(classes)
