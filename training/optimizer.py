"""Muon: momentum whose matrices are made orthogonal before they are applied (Jordan et al., 2024).

PyTorch's own computes in bfloat16, which is 20 times slower on a CPU without such instructions.
"""

import torch
import torch.distributed as distributed

MOMENTUM = 0.95
# The quintic of Newton and Schulz that Muon's authors publish.
A, B, C = 3.4445, -4.7750, 2.0315


class Muon:
    """Updates matrices from their gradients; `step` takes the learning rate.

    With several workers each makes its share of the updates orthogonal, and all apply them all.
    """

    def __init__(self, matrices: list[torch.nn.Parameter], rank: int = 0, workers: int = 1):
        self.matrices, self.rank, self.workers = matrices, rank, workers
        self.momenta = [torch.zeros_like(matrix) for matrix in matrices]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        updates = [torch.zeros_like(matrix) for matrix in self.matrices]
        for index, (matrix, momentum) in enumerate(zip(self.matrices, self.momenta, strict=True)):
            momentum.lerp_(matrix.grad, 1 - MOMENTUM)
            if index % self.workers == self.rank:
                updates[index] = orthogonalized(matrix.grad.lerp(momentum, MOMENTUM))
        if self.workers > 1:
            updates = summed(updates)
        for matrix, update in zip(self.matrices, updates, strict=True):
            rows, columns = matrix.shape
            matrix.add_(update, alpha=-rate * max(1.0, rows / columns) ** 0.5)


def summed(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The sums of tensors over all workers."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def orthogonalized(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The matrix with all its singular values near one."""
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = (x.mT if tall else x).contiguous()
    for _ in range(steps):
        square = x @ x.mT
        x = torch.addmm(x, torch.addmm(square, square, square, beta=B, alpha=C), x, beta=A)
    return x.mT if tall else x
