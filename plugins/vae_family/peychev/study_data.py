"""Data of the beta studies and codes of their models: splits, class-stratified subsets, tables of codes, the SVM."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.svm import SVC
from torch import Tensor

from distk import CodeTable, Dataset, FactorDataset, Method, UsageError
from distk.console import counted

MNIST_FILES = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte"


@dataclass
class Data:
    """The data of a study: rows to train on, to stop by, and to test on."""

    dataset: Dataset
    train: Tensor
    validation: Tensor
    test: Tensor


def split(dataset: Dataset) -> Data:
    """Validation is the data set's own part of that name, else the first twelfth of its training rows, as MNIST's
    first 5,000. Raises UsageError for data without a training part."""
    train, test = dataset.rows("train"), dataset.rows("test")
    if train is None or test is None:
        raise UsageError(f"data set '{dataset.name}' has no training and test part.")
    validation = dataset.rows("validation") if "validation" in dataset.splits else None
    if validation is None:
        validation = train[: max(1, len(train) // 12)]
    train = train[~torch.isin(train, validation)]
    return Data(dataset, train, validation, test)


def subset(data: Data, fraction: float, seed: int) -> Tensor:
    """A fraction of the training rows with the same share of every class, drawn from `seed`.

    Raises UsageError naming a class that would have fewer than 2 examples.
    """
    if fraction == 1:
        return data.train
    labels = torch.cat([data.dataset.batch(part)["label"] for part in data.train.split(4096)])
    generator, chosen = torch.Generator().manual_seed(seed), []
    for k in labels.unique().tolist():
        own = data.train[labels == k]
        count = round(fraction * len(own))
        if count < 2:
            names = data.dataset.spec.classes
            raise UsageError(
                f"fraction {fraction:g} leaves {count} of {counted(len(own), 'example')} of class "
                f"'{names[k] if k < len(names) else k}'; it needs at least 2."
            )
        chosen.append(own[torch.randperm(len(own), generator=generator)[:count].to(own.device)])
    return torch.cat(chosen)


@torch.no_grad()
def code_table(model: Method, dataset: Dataset) -> CodeTable:
    """`encode_table` of a full grid of factors, silent: a study has its own progress bar.

    Raises UsageError for other data.
    """
    if not isinstance(dataset, FactorDataset) or not dataset.is_grid:
        raise UsageError(f"data set '{dataset.name}' is no full grid of factors.")
    rows = torch.arange(len(dataset), device=dataset.device)
    codes = torch.cat([model.latents.flatten(model.encode(dataset.batch(part)["x"])) for part in rows.split(1024)])
    table = CodeTable(codes, model.latents.columns, model.latents.column_kinds, grid=True, dataset=dataset, rows=rows)
    table.factor_names, table.factor_sizes = dataset.factor_names, dataset.factor_sizes
    table.factor_kinds = dataset.factor_kinds
    return table


@torch.no_grad()
def posterior(model: Method, rows: Tensor, data: Data) -> tuple[Tensor, Tensor, Tensor]:
    """Posterior means and deviations `[n, z]`, labels `[n]`, on the host."""
    means, stds, labels = [], [], []
    for part in rows.split(2048):
        batch = data.dataset.batch(part)
        mean, std = model.posterior(batch["x"])["z"]
        means.append(mean.cpu())
        stds.append(std.clamp(max=1e4).cpu())
        labels.append(batch["label"].cpu())
    return torch.cat(means), torch.cat(stds), torch.cat(labels)


def svm_accuracy(x: Tensor, labels: Tensor, x_test: Tensor, labels_test: Tensor) -> float:
    """Test accuracy of scikit-learn's RBF SVM with C = 1 and gamma = 1 / dimensions, its default of 2017."""
    model = SVC(C=1.0, kernel="rbf", gamma=1 / x.shape[1]).fit(x.numpy(), labels.numpy())
    return float((model.predict(x_test.numpy()) == labels_test.numpy()).mean())
