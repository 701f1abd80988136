"""The same work on images in PyTorch, at the best settings that were found for each: see images.md."""

from __future__ import annotations

import torch
import work
from image_work import CLASSES, EACH, WAYS, ImageWorkload
from peers import Torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import batch_norm, conv2d, cross_entropy, max_pool2d, relu


class TorchImages(Torch):
    """What they share: the network, and drawing a meta-batch from the images on the device."""

    layout = torch.contiguous_format

    def __init__(self, workload: ImageWorkload):
        self.omniglot = workload.images == "omniglot"
        self.pixels = torch.from_numpy(workload.pixels()).movedim(-1, 2).contiguous()
        self.labels = [torch.arange(WAYS).repeat_interleave(n) for n in (workload.shots, workload.queries)]
        super().__init__(workload)

    def start(self) -> list[Tensor]:
        arrays = [torch.tensor(array) for array in self.workload.parameters()]
        kernels = [a.permute(3, 2, 0, 1).contiguous(memory_format=self.layout) if a.ndim == 4 else a for a in arrays]
        return kernels

    def apply(self, parameters: list[Tensor], x: Tensor) -> Tensor:
        """[n, channels, height, width] -> [n, ways]."""
        for index in range(4):
            kernel, scale, shift = parameters[3 * index : 3 * index + 3]
            if self.omniglot:
                # TensorFlow's padding: with an even size and stride 2, nothing before and one after.
                odd = x.shape[-1] % 2
                x = conv2d(torch.nn.functional.pad(x, (odd, 1, odd, 1)), kernel, stride=2)
            else:
                x = conv2d(x, kernel, padding=1)
            x = batch_norm(x, None, None, scale, shift, training=True, eps=1e-3)
            x = relu(x) if self.omniglot else max_pool2d(relu(x), 2)
        # The places stand before the filters in our features.
        x = x.mean((2, 3)) if self.omniglot else x.permute(0, 2, 3, 1).reshape(x.shape[0], -1)
        return x @ parameters[-2] + parameters[-1]

    def sample(self) -> list[Tensor]:
        """Support and query images [tasks, n, channels, height, width]."""
        tasks, each = self.workload.tasks, self.workload.shots + self.workload.queries
        classes = torch.rand(tasks, CLASSES).topk(WAYS).indices
        rows = torch.rand(tasks, WAYS, EACH).topk(each).indices
        drawn = self.pixels[classes[..., None], rows].float() / 255
        halves = drawn.split([self.workload.shots, self.workload.queries], 2)
        return [half.flatten(1, 2) for half in halves]

    def loss(self, parameters: list[Tensor], x: Tensor, half: int) -> Tensor:
        """The loss on the support (0) or the query (1) images of one task."""
        return cross_entropy(self.apply(parameters, x.contiguous(memory_format=self.layout)), self.labels[half])

    def estimate(self) -> tuple[work.Batch, work.Parameters]:
        self.optimizer.zero_grad()
        support, query = self.accumulate()
        gradient = [parameter.grad for parameter in self.parameters]
        found = [(g.permute(2, 3, 1, 0) if g.ndim == 4 else g).numpy() for g in gradient if g is not None]
        labels = [label.int().expand(self.workload.tasks, -1).numpy() for label in self.labels]
        images = [half.movedim(2, -1).numpy() for half in (support, query)]
        return [images[0], labels[0], images[1], labels[1]], found


class Loop(TorchImages):
    """A Python loop over tasks with `torch.autograd.grad(create_graph=True)`; each task's graph is freed before the next."""

    def accumulate(self) -> list[Tensor]:
        batch = self.sample()
        for support, query in zip(*batch, strict=True):
            adapted = self.parameters
            for _ in range(self.workload.inner_steps):
                gradient = torch.autograd.grad(self.loss(adapted, support, 0), adapted, create_graph=True)
                adapted = [p - self.workload.inner_rate * g for p, g in zip(adapted, gradient, strict=True)]
            (self.loss(adapted, query, 1) / self.workload.tasks).backward()
        return batch


class LoopChannelsLast(Loop):
    """The same with channels last in memory."""

    layout = torch.channels_last


class Func(TorchImages):
    """`torch.func`: the gradient of the mean over a `vmap` over tasks, each with its inner `grad`."""

    def accumulate(self) -> list[Tensor]:
        def one(parameters: list[Tensor], support: Tensor, query: Tensor) -> Tensor:
            adapted = parameters
            for _ in range(self.workload.inner_steps):
                gradient = grad(self.loss)(adapted, support, 0)
                adapted = [p - self.workload.inner_rate * g for p, g in zip(adapted, gradient, strict=True)]
            return self.loss(adapted, query, 1)

        def outer(parameters: list[Tensor], batch: list[Tensor]) -> Tensor:
            return vmap(one, in_dims=(None, 0, 0))(parameters, *batch).mean()

        batch = self.sample()
        found = grad(outer)([parameter.detach() for parameter in self.parameters], batch)
        for parameter, g in zip(self.parameters, found, strict=True):
            parameter.grad = g
        return batch


PEERS: dict[str, type[TorchImages]] = {
    "pytorch loop": Loop,
    "pytorch loop, channels last": LoopChannelsLast,
    "pytorch torch.func": Func,
}
