"""Relaxations of the choice of n of N patches, scores (B, N) float32 -> h (B, N), the way a user would write them in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1.1754943508222875e-38  # the smallest normal float32, under which the paper's algorithm clamps 1 - p
NEWTON_STEPS = 8


def paper_steps(scores: Tensor, n: int, tau: float) -> Tensor:
    """The paper's relaxation (Xie and Ermon, IJCAI 2019) as its code runs it: n softmaxes, one constant made per step."""
    onehot, khot = torch.zeros_like(scores), torch.zeros_like(scores)
    for _ in range(n):
        mask = torch.maximum(1.0 - onehot, torch.tensor([TINY], device=scores.device))
        scores = scores + torch.log(mask)
        onehot = torch.softmax(scores / tau, dim=1)
        khot = khot + onehot
    return khot


def log_steps(scores: Tensor, n: int, tau: float) -> Tensor:
    """The same without what is in its way: no constant per step."""
    h = p = torch.softmax(scores / tau, dim=1)
    for _ in range(n - 1):
        scores = scores + torch.log((1.0 - p).clamp_min(TINY))
        p = torch.softmax(scores / tau, dim=1)
        h = h + p
    return h if n else torch.zeros_like(scores)


def next_step(p: Tensor, tau: float) -> Tensor:
    """p_{i+1} = normalize(p_i (1 - p_i)^(1/tau)): one reduction and no softmax."""
    weight = p * torch.exp(torch.log1p(-p.clamp_max(1.0 - 6e-8)) / tau)
    return weight / weight.sum(dim=1, keepdim=True)


def advance(p: Tensor, h: Tensor, tau: float, steps: int) -> tuple[Tensor, Tensor]:
    """`steps` steps of the flow: adds each p to h."""
    for _ in range(steps):
        h = h + p
        p = next_step(p, tau)
    return p, h


def closed_form(scores: Tensor, n: int, tau: float, exact: int) -> Tensor:
    """`exact` steps, then h += tau log(1 + T p / tau) with T such that h sums to n; differentiable by autograd."""
    p = torch.softmax(scores / tau, dim=1)
    p, h = advance(p, torch.zeros_like(p), tau, min(exact, n))
    if n <= exact:
        return h
    with torch.no_grad():
        total = _tail_total(p, n - exact, tau)
        slope = (p / (1.0 + total * p / tau)).sum(dim=1, keepdim=True)
    # One Newton step inside the graph gives the root its gradient.
    total = total - ((tau * torch.log1p(total * p / tau)).sum(dim=1, keepdim=True) - (n - exact)) / slope
    return h + tau * torch.log1p(total * p / tau)


def _tail_total(p: Tensor, remaining: int, tau: float) -> Tensor:
    """T (B, 1) with sum_j tau log(1 + T p_j / tau) = remaining: Newton from T = remaining, which climbs to the root."""
    total = torch.full_like(p[:, :1], float(remaining))
    for _ in range(NEWTON_STEPS):
        x = total * p / tau
        excess = (tau * torch.log1p(x)).sum(dim=1, keepdim=True) - remaining
        total = total - excess / (p / (1.0 + x)).sum(dim=1, keepdim=True)
    return total


def closed_form_adjoint(c: Tensor, scores: Tensor, n: int, tau: float, exact: int) -> Tensor:
    """ds = J(h)^T c of `closed_form`, written out."""
    steps = [torch.softmax(scores / tau, dim=1)]
    for _ in range(min(exact, n)):
        steps.append(next_step(steps[-1], tau))
    p = steps.pop()
    if n > exact:
        x = _tail_total(p, n - exact, tau) * p / tau
        q = x / (1.0 + x)
        a = tau * q * (c - (q * c).sum(dim=1, keepdim=True) / q.sum(dim=1, keepdim=True))
    else:
        a = torch.zeros_like(c)
    for previous in reversed(steps):
        slope = 1.0 - previous / (tau * (1.0 - previous).clamp_min(6e-8))
        a = c * previous + (a - p * a.sum(dim=1, keepdim=True)) * slope
        p = previous
    return (a - p * a.sum(dim=1, keepdim=True)) / tau


class ClosedForm(torch.autograd.Function):
    """h = closed_form(s) with `closed_form_adjoint` as its backward pass."""

    @staticmethod
    def forward(ctx, scores: Tensor, n: int, tau: float, exact: int) -> Tensor:
        ctx.save_for_backward(scores)
        ctx.arguments = n, tau, exact
        return closed_form(scores, n, tau, exact)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, c: Tensor) -> tuple[Tensor, None, None, None]:
        return closed_form_adjoint(c, *ctx.saved_tensors, *ctx.arguments), None, None, None


class SigmoidThreshold(torch.autograd.Function):
    """h = sigmoid((s - t) / tau) with the threshold t per row at which h sums to n."""

    @staticmethod
    def forward(ctx, scores: Tensor, n: int, tau: float) -> Tensor:
        # Bisection to within reach of Newton's quadratic convergence.
        low, high = scores.amin(dim=1, keepdim=True) - 12 * tau, scores.amax(dim=1, keepdim=True) + 12 * tau
        for _ in range(12):
            threshold = (low + high) / 2
            above = torch.sigmoid((scores - threshold) / tau).sum(dim=1, keepdim=True) > n
            low, high = torch.where(above, threshold, low), torch.where(above, high, threshold)
        threshold = (low + high) / 2
        for _ in range(3):
            h = torch.sigmoid((scores - threshold) / tau)
            slope = (h * (1.0 - h)).sum(dim=1, keepdim=True) / tau
            threshold = threshold + (h.sum(dim=1, keepdim=True) - n) / slope.clamp_min(TINY)
        h = torch.sigmoid((scores - threshold) / tau)
        ctx.save_for_backward(h)
        ctx.tau = tau
        return h

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, c: Tensor) -> tuple[Tensor, None, None]:
        (h,) = ctx.saved_tensors
        weight = h * (1.0 - h) / ctx.tau
        mean = (weight * c).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True).clamp_min(TINY)
        return weight * (c - mean), None, None


class LapSum(torch.autograd.Function):
    """h = F((s - b) / tau), F the Laplace distribution function, b per row such that h sums to n (LapSum, ICML 2025).

    With x = s / tau sorted ascending and b / tau between x_j and x_{j+1}, z = e^{b / tau}, the sum is
    A_j / (2 z) + (N - j) - z B_j / 2, A_j = sum_{i<=j} e^{x_i}, B_j = sum_{i>j} e^{-x_i}: a quadratic equation in z.
    """

    @staticmethod
    def forward(ctx, scores: Tensor, n: int, tau: float) -> Tensor:
        patches = scores.shape[1]
        x = scores / tau
        ordered = x.sort(dim=1).values
        lower = torch.exp(ordered).cumsum(dim=1)
        upper = torch.exp(-ordered).flip(1).cumsum(dim=1).flip(1)
        upper = torch.cat([upper[:, 1:], torch.zeros_like(upper[:, :1])], dim=1)
        rest = patches - torch.arange(1, patches + 1, device=scores.device, dtype=x.dtype)
        # The sum at b = x_j falls with j; the root lies right of the last j at which it is still above n.
        at_patches = lower * torch.exp(-ordered) / 2 + rest - upper * torch.exp(ordered) / 2
        j = ((at_patches > n).sum(dim=1, keepdim=True) - 1).clamp_min(0)
        a, b, slack = lower.gather(1, j), upper.gather(1, j), rest[j] - n
        # Left of all patches every term is 1 - e^{b - x}/2.
        left = at_patches[:, :1] <= n
        all_upper = upper[:, :1] + torch.exp(-ordered[:, :1])
        root = torch.sqrt(slack * slack + a * b)
        # Of the two forms of the positive root, the one that does not cancel.
        between = torch.where(slack < 0, a / (root - slack), (slack + root) / b)
        z = torch.where(left, 2.0 * (patches - n) / all_upper, between)
        distance = x - torch.log(z)
        tail = torch.exp(-distance.abs()) / 2
        h = torch.where(distance < 0, tail, 1.0 - tail)
        ctx.save_for_backward(tail)
        ctx.tau = tau
        return h

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, c: Tensor) -> tuple[Tensor, None, None]:
        (density,) = ctx.saved_tensors
        mean = (density * c).sum(dim=1, keepdim=True) / density.sum(dim=1, keepdim=True).clamp_min(TINY)
        return density * (c - mean) / ctx.tau, None, None


def straight_through(relaxed: Tensor, ranked_by: Tensor, n: int) -> Tensor:
    """1 on the n largest of `ranked_by`, 0 elsewhere, with the gradient of `relaxed`."""
    chosen = ranked_by.topk(n, dim=1).indices
    hard = torch.zeros_like(relaxed).scatter_(1, chosen, 1.0)
    return hard - relaxed.detach() + relaxed
