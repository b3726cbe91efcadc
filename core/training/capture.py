"""A training step as CUDA graphs: one launch for its hundreds of kernels.

What torch's notes on CUDA graphs ask for, and where it is met: eager steps on a side stream before the capture, so that
libraries and optimizers allocate their state outside it (`Captured.__call__`); random numbers only from generators
that the graph knows, the run's own being registered, the device's default one always (`_capture`); optimizers with step
count and learning rate on the device (`distk.method.adam` and its siblings); no reads to the host and static shapes in
the step (`distk.testing` holds every method to it on the CPU); autocast entered and left inside the capture, so that no
cached cast outlives it (`Trainer._update`). Gradients are set to None before each backward pass, so that those of a
graph live in the graphs' memory and are written again by every replay.

All graphs of a run share one pool of memory: their replays follow each other on one stream, and nothing that a step
leaves in that memory is read by the next one, so that a run needs what its largest graph needs, not the sum over
phases, objectives and buckets. Runs side by side replay at the same time, and have a pool each.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch

from distk.errors import DistkError

WARMUP = 3
"""Eager steps before a step is captured: optimizers and libraries allocate their state in them."""


class Captured:
    """Calls `step(key)` eagerly a few times for each key, then captures it once and replays the graph.

    Every call is one real step: a replay computes what an eager step would, from the same random numbers.
    """

    def __init__(self, step: Callable[[Any], None], generator: torch.Generator, device: torch.device) -> None:
        self.step, self.generator, self.device = step, generator, device
        self.graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._seen: dict[Hashable, int] = {}
        self._side: torch.cuda.Stream | None = None
        self._pool: Any = None

    def __call__(self, key: Hashable) -> None:
        # A capture happens on a stream of the current device, which need not be ours.
        with torch.cuda.device(self.device):
            if key not in self.graphs:
                if self._seen.get(key, 0) < WARMUP:
                    self._seen[key] = self._seen.get(key, 0) + 1
                    self._warm(key)
                    return
                self.graphs[key] = self._capture(key)
            self.graphs[key].replay()

    def _warm(self, key: Hashable) -> None:
        if self._side is None:
            self._side = torch.cuda.Stream(self.device)
        current = torch.cuda.current_stream(self.device)
        self._side.wait_stream(current)
        with torch.cuda.stream(self._side):
            self.step(key)
        current.wait_stream(self._side)

    def _capture(self, key: Hashable) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        try:
            # `graph` waits for the device on entry, so the side stream is idle and its memory is settled.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._side):
                self.step(key)
        except RuntimeError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise DistkError(
                f"the step could not be captured as a CUDA graph ({lines[0] if lines else 'no reason given'}): "
                "train with --capture off."
            ) from error
        return graph

    def forget(self) -> None:
        """Drop all graphs: the tensors that they read and write have been replaced."""
        self.graphs.clear()
        self._seen.clear()
        self._pool = None  # torch takes a pool back with the last graph that used it
