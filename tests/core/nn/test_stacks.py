"""Stacks of layers: shapes, where norms, biases and activations stand, and what a stack computes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distk.nn import down, mlp, up


@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
def test_every_layer_halves_or_doubles(kernel: int) -> None:
    x = torch.randn(2, 3, 24, 16)
    assert nn.Sequential(*down([3, 4, 5], kernel))(x).shape == (2, 5, 6, 4)
    assert nn.Sequential(*up([3, 4, 5], kernel))(x).shape == (2, 5, 96, 64)


def kinds(layers: list[nn.Module]) -> list[str]:
    return [type(layer).__name__ for layer in layers]


def test_norms_and_biases_stand_where_they_should() -> None:
    conv, norm, act = "Conv2d", "BatchNorm2d", "ReLU"
    assert kinds(down([3, 4, 5])) == [conv, act, conv, act]
    inner = down([3, 4, 5], norm=nn.BatchNorm2d)
    assert kinds(inner) == [conv, act, conv, norm, act]
    assert [layer.bias is not None for layer in inner if isinstance(layer, nn.Conv2d)] == [True, False]
    every = down([3, 4, 5], norm=nn.BatchNorm2d, norm_first=True, activation=nn.ELU)
    assert kinds(every) == [conv, norm, "ELU", conv, norm, "ELU"]
    assert all(layer.bias is None for layer in down([3, 4], bias=False) if isinstance(layer, nn.Conv2d))
    back = "ConvTranspose2d"
    assert kinds(up([5, 4, 3])) == [back, act, back]
    picture = up([5, 4, 3], norm=nn.BatchNorm2d)
    assert kinds(picture) == [back, norm, act, back]
    assert [layer.bias is not None for layer in picture if isinstance(layer, nn.ConvTranspose2d)] == [False, True]
    assert kinds(up([5, 4, 3], norm=nn.BatchNorm2d, output=False)) == [back, norm, act, back, norm, act]


def test_kernels_layer_by_layer() -> None:
    layers = [layer for layer in down([1, 2, 3, 4], (4, 2, 5)) if isinstance(layer, nn.Conv2d)]
    assert [(layer.kernel_size[0], layer.padding[0]) for layer in layers] == [(4, 1), (2, 0), (5, 2)]
    with pytest.raises(ValueError, match="zip"):
        down([1, 2, 3], (4,))


def test_a_stack_is_its_layers_in_order(generator) -> None:
    x = torch.randn(2, 3, 8, 8, generator=generator)
    first, _, second, _ = layers = down([3, 4, 5])
    by_hand = F.conv2d(x, first.weight, first.bias, 2, 1).relu()
    by_hand = F.conv2d(by_hand, second.weight, second.bias, 2, 1).relu()
    torch.testing.assert_close(nn.Sequential(*layers)(x), by_hand)
    first, _, second = layers = up([3, 4, 5])
    by_hand = F.conv_transpose2d(x, first.weight, first.bias, 2, 1).relu()
    by_hand = F.conv_transpose2d(by_hand, second.weight, second.bias, 2, 1)
    torch.testing.assert_close(nn.Sequential(*layers)(x), by_hand)


def test_mlp_is_linear_at_the_end(generator) -> None:
    net = mlp([3, 4, 2], nn.LeakyReLU, negative_slope=0.3)
    x = torch.randn(5, 3, generator=generator)
    hidden = F.leaky_relu(x @ net[0].weight.T + net[0].bias, 0.3)
    torch.testing.assert_close(net(x), hidden @ net[2].weight.T + net[2].bias)
