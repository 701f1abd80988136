"""The same work in PyTorch, at the best settings that were found for each: see sinusoid.md."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import higher
import torch
import work
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import linear, mse_loss, relu
from work import AMPLITUDE, INNER_RATE, INPUTS, OUTER_RATE, PHASE, QUERIES, SHOTS, Implementation, Workload

# Parameters -> the mean meta-gradient on a meta-batch that it draws, and the meta-batch.
Gradient = Callable[[list[Tensor]], tuple[list[Tensor], list[Tensor]]]


def sample(tasks: int) -> list[Tensor]:
    """A meta-batch, all tasks at once: support inputs and targets, query inputs and targets, each [tasks, points, 1]."""
    amplitude = torch.empty(tasks, 1, 1).uniform_(*AMPLITUDE)
    phase = torch.empty(tasks, 1, 1).uniform_(*PHASE)
    x = torch.empty(tasks, SHOTS + QUERIES, 1).uniform_(*INPUTS)
    y = amplitude * torch.sin(x - phase)
    return [x[:, :SHOTS], y[:, :SHOTS], x[:, SHOTS:], y[:, SHOTS:]]


def apply(parameters: list[Tensor], x: Tensor) -> Tensor:
    """The network; its parameters are PyTorch's: weight [out, in] and bias [out] of each layer in turn."""
    for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        x = relu(linear(x, weight, bias))
    return linear(x, parameters[-2], parameters[-1])


class Torch(Implementation):
    """What the PyTorch implementations share: where they start, the outer loop, and Adam in its fused form."""

    def __init__(self, workload: Any):
        torch.manual_seed(0)
        self.workload = workload
        self.parameters = self.make(self.start())
        self.optimizer = torch.optim.Adam(self.parameters, lr=OUTER_RATE, fused=True)
        # What is compiled, is compiled by its first call.
        start = time.perf_counter()
        self.accumulate()
        self.compile_s = time.perf_counter() - start

    def start(self) -> list[Tensor]:
        """The first parameters, in PyTorch's layout."""
        return [torch.tensor(array.T.copy()) for array in self.workload.parameters()]

    def make(self, start: list[Tensor]) -> list[Tensor]:
        """The parameters to train."""
        return [tensor.requires_grad_() for tensor in start]

    def accumulate(self) -> list[Tensor]:
        """Draw a meta-batch, set the `grad` of every parameter to the mean meta-gradient on it, and return it."""
        raise NotImplementedError

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.optimizer.zero_grad()
            self.accumulate()
            self.optimizer.step()

    def estimate(self) -> tuple[work.Batch, work.Parameters]:
        self.optimizer.zero_grad()
        batch = self.accumulate()
        gradient = [tensor.grad.numpy().T for tensor in self.parameters if tensor.grad is not None]
        return [tensor.numpy() for tensor in batch], gradient

    def facts(self) -> dict[str, Any]:
        return {"versions": {"torch": torch.__version__}, "compile_s": self.compile_s}


class Loop(Torch):
    """A Python loop over tasks with `torch.autograd.grad(create_graph=True)`; each task's graph is freed before the next."""

    def accumulate(self) -> list[Tensor]:
        batch = sample(self.workload.tasks)
        for support_x, support_y, query_x, query_y in zip(*batch, strict=True):
            adapted = self.parameters
            for _ in range(self.workload.inner_steps):
                loss = mse_loss(apply(adapted, support_x), support_y)
                gradient = torch.autograd.grad(loss, adapted, create_graph=True)
                adapted = [p - INNER_RATE * g for p, g in zip(adapted, gradient, strict=True)]
            (mse_loss(apply(adapted, query_x), query_y) / self.workload.tasks).backward()
        return batch


class Higher(Torch):
    """`higher`: a functional copy of a module and a differentiable optimiser, one task after the other."""

    def make(self, start: list[Tensor]) -> list[Tensor]:
        layers: list[torch.nn.Module] = []
        for rows, columns in self.workload.sizes:
            layers += [torch.nn.Linear(rows, columns), torch.nn.ReLU()]
        self.module = torch.nn.Sequential(*layers[:-1])
        own = list(self.module.parameters())
        with torch.no_grad():
            for parameter, value in zip(own, start, strict=True):
                parameter.copy_(value)
        self.inner = torch.optim.SGD(own, lr=INNER_RATE)
        return own

    def accumulate(self) -> list[Tensor]:
        batch = sample(self.workload.tasks)
        for support_x, support_y, query_x, query_y in zip(*batch, strict=True):
            context = higher.innerloop_ctx(self.module, self.inner, copy_initial_weights=False)
            with context as (module, optimizer):
                for _ in range(self.workload.inner_steps):
                    optimizer.step(mse_loss(module(support_x), support_y))
                (mse_loss(module(query_x), query_y) / self.workload.tasks).backward()
        return batch

    def facts(self) -> dict[str, Any]:
        facts = super().facts()
        return {**facts, "versions": {**facts["versions"], "higher": version("higher")}}


class Func(Torch):
    """`torch.func`: the gradient of the mean over a `vmap` over tasks, each with its inner `grad`."""

    def __init__(self, workload: Workload):
        def inner(parameters: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
            return mse_loss(apply(parameters, x), y)

        def one(parameters: list[Tensor], task: list[Tensor]) -> Tensor:
            support_x, support_y, query_x, query_y = task
            adapted = parameters
            for _ in range(workload.inner_steps):
                gradient = grad(inner)(adapted, support_x, support_y)
                adapted = [p - INNER_RATE * g for p, g in zip(adapted, gradient, strict=True)]
            return inner(adapted, query_x, query_y)

        def outer(parameters: list[Tensor], batch: list[Tensor]) -> Tensor:
            return vmap(one, in_dims=(None, 0))(parameters, batch).mean()

        def gradient(parameters: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            batch = sample(workload.tasks)
            return grad(outer)(parameters, batch), batch

        self.gradient = self.wrap(gradient)
        super().__init__(workload)

    def wrap(self, gradient: Gradient) -> Gradient:
        """What to make of the function before it is called."""
        return gradient

    def accumulate(self) -> list[Tensor]:
        gradient, batch = self.gradient([parameter.detach() for parameter in self.parameters])
        for parameter, g in zip(self.parameters, gradient, strict=True):
            parameter.grad = g
        return batch


class FuncCompiled(Func):
    """The same under `torch.compile`, sampling included; Adam is the fused kernel outside."""

    def wrap(self, gradient: Gradient) -> Gradient:
        return torch.compile(gradient, fullgraph=True, dynamic=False)


PEERS: dict[str, type[Torch]] = {
    "pytorch loop": Loop,
    "pytorch torch.func": Func,
    "pytorch torch.func compiled": FuncCompiled,
    "higher": Higher,
}
