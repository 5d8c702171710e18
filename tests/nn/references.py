"""The layers written out plainly, in float64: loops over groups, two passes, no kernel.

PyTorch's autograd differentiates them; nothing of bnaudit is used.
"""

import torch
from torch import Tensor

EPS = 1e-5


def cuts(batch: int, examples: int | None) -> list[slice]:
    """Groups of `examples`; the last takes what is left over."""
    if examples is None:
        return [slice(0, batch)]
    count = max(1, batch // examples)
    starts = [i * examples for i in range(count)]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], batch], strict=True)]


def grouped(x: Tensor, gamma: Tensor, beta: Tensor, groups: int, examples: int | None) -> Tensor:
    """Batch/Group Norm in training; with groups = channels Ghost Batch Norm."""
    x, gamma, beta = x.double(), gamma.double(), beta.double()
    size = x.shape[1] // groups
    rows = []
    for cut in cuts(len(x), examples):
        columns = []
        for group in range(groups):
            values = x[cut, group * size : (group + 1) * size]
            m = values.mean()
            v = ((values - m) ** 2).mean()
            columns.append((values - m) / torch.sqrt(v + EPS))
        rows.append(torch.cat(columns, 1))
    return by_channel(gamma, x) * torch.cat(rows) + by_channel(beta, x)


def example_weighing(
    x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, alpha: float
) -> Tensor:
    """As Summers 2020 writes it, from the mixed second moments."""
    x, gamma, beta, mean, var = (t.double() for t in (x, gamma, beta, mean, var))
    outputs = []
    for example in x:
        values = example.reshape(len(mean), -1)
        m = alpha * values.mean(1) + (1 - alpha) * mean
        second = alpha * (values**2).mean(1) + (1 - alpha) * (var + mean**2)
        v = second - m**2
        y = (values - m[:, None]) / torch.sqrt(v + EPS)[:, None]
        outputs.append((gamma[:, None] * y + beta[:, None]).reshape(example.shape))
    return torch.stack(outputs)


def by_channel(values: Tensor, x: Tensor) -> Tensor:
    """(C,) in a shape that broadcasts over (N, C, …)."""
    return values.reshape(1, -1, *(1,) * (x.dim() - 2))


def random_like(layer: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The layer with a γ, a β and statistics that are not the initial ones."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in layer.state_dict().items():
            if tensor.is_floating_point():
                low = 0.5 if name.endswith(("weight", "running_var")) else -1.0
                tensor.copy_(torch.rand(tensor.shape, generator=draw) * 1.5 + low)
    return layer


def inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    """Normal values, with a mean and a scale of its own in every channel and every example."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=draw, dtype=torch.float64)
    scale = torch.rand((shape[0], shape[1], *(1,) * (len(shape) - 2)), generator=draw) + 0.5
    offset = torch.randn(scale.shape, generator=draw)
    return (x * scale + offset).to(dtype)


def assert_same_as_reference(layer, reference, x: Tensor, tolerance: float) -> None:
    """Outputs and gradients by input, γ and β against those of `reference(x, γ, β)`."""
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    own = x.clone().requires_grad_()
    y = layer(own)
    assert y.dtype == x.dtype
    (y.double() * weights).sum().backward()
    other, gamma, beta = (
        t.detach().double().clone().requires_grad_() for t in (x, layer.weight, layer.bias)
    )
    expected = reference(other, gamma, beta)
    (expected * weights).sum().backward()
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)
    for found, wanted in ((own, other), (layer.weight, gamma), (layer.bias, beta)):
        scale = float(wanted.grad.abs().max().clamp(min=1.0))
        difference = float((found.grad.double() - wanted.grad).abs().max())
        assert difference <= tolerance * scale
