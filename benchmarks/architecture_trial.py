"""One architecture, tried: has it BatchNorm, does it run, can bnaudit do its work on it?"""

from __future__ import annotations

import importlib
import math
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from architecture_outcome import Failure, Outcome, Stage
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from bnaudit import measure, recalibrate
from bnaudit.errors import one_line
from bnaudit.findings.policy import Policy
from bnaudit.results import Audit, Recalibrated
from bnaudit.targets.models import build_model
from bnaudit.targets.outlines import outlined

LIBRARIES = ("timm", "torchvision")

SIDES = (32, 64, 96)
"""Square images of so many pixels a side are tried in this order, then the model's own size."""

SIDES_TO_BUILD_FOR = (64, 96, 128)
"""Where a model is made for one size of images, it is also built for these."""

BATCH_SIZES = (4, 4)
"""Two batches of four samples each."""

ATTRIBUTED_LAYERS, ATTRIBUTED_MILLIONS = 64, 12
"""Models with at most so many BatchNorm layers and so many million parameters are measured with own
and inherited shift, which takes about as long again."""

RESIDUAL = 1e-5
"""The largest ESM of a recalibrated layer on the calibration data that is called rounding."""

_RANDOM_IMAGES = Policy(ignore=("BN301",))
"""Random images were preprocessed in no way: no mistake is looked for."""


def names_of(library: str) -> list[str]:
    """The names of all architectures of one of `LIBRARIES`."""
    return list(imported(library).list_models())


def imported(library: str) -> Any:
    """The module of `library` that lists its models."""
    return importlib.import_module("timm" if library == "timm" else "torchvision.models")


TOO_LARGE = "more parameters than allowed"


class _UnfitError(Exception):
    """What the script itself says against a model, as a sentence."""


def try_architecture(
    spec: str,
    tell: Callable[[Outcome, Stage], None] = lambda outcome, stage: None,
    *,
    parameters: float = math.inf,
) -> Outcome:
    """Try `library:NAME`, if it has at most so many `parameters`.

    `tell` is called with what is known before each stage. Raises nothing but what ends a process.
    """
    outcome = Outcome(spec.partition(":")[2])
    tell(outcome, "look")
    try:
        outline = _quietly(lambda: outlined(spec, {}))
    except Exception as error:
        return outcome.with_failure(failure_of("look", error))
    outcome = replace(
        outcome,
        family=type(outline).__module__,
        parameters=sum(p.numel() for p in outline.parameters()),
        bn_layers=sum(isinstance(m, _BatchNorm) for m in outline.modules()),
    )
    if not outcome.bn_layers:
        return outcome
    if outcome.parameters > parameters:
        return outcome.with_failure(Failure("build", TOO_LARGE, limited=True))
    tell(outcome, "build")
    try:
        model = _built(spec, None)
    except Exception as error:
        return outcome.with_failure(failure_of("build", error))
    tell(outcome, "plain")
    try:
        running = _first_that_runs(spec, model)
    except Exception as error:
        return outcome.with_failure(failure_of("plain", error))
    outcome = replace(
        outcome,
        reached=len(running.reached),
        side=running.side,
        built_for=running.built_for,
        attributed=outcome.bn_layers <= ATTRIBUTED_LAYERS
        and outcome.parameters <= ATTRIBUTED_MILLIONS * 1e6,
    )
    tell(outcome, "measure")
    try:
        _measure(running, attribute=outcome.attributed)
    except Exception as error:
        outcome = outcome.with_failure(failure_of("measure", error))
    tell(outcome, "exact")
    try:
        report = _exact(running)
        outcome = replace(
            outcome, residual=report.residual, notes=(*report.notes, *report.batch_dependence)
        )
        _check_exact(report, running)
    except Exception as error:
        outcome = outcome.with_failure(failure_of("exact", error))
    return outcome


@dataclass
class Running:
    """A model that runs on `batches`. `reached`: the BatchNorm layers that its forward came to."""

    model: nn.Module
    side: int
    built_for: int | None
    batches: list[Tensor]
    output: Any = None
    reached: list[str] = field(default_factory=list)


def _built(spec: str, side: int | None) -> nn.Module:
    """The model with seeded random weights, built for images of `side` pixels if one is given."""
    torch.manual_seed(0)
    args = {} if side is None else {"img_size": side}
    return _quietly(lambda: build_model(spec, args).eval())


def _first_that_runs(spec: str, model: nn.Module) -> Running:
    """`model` on the first size whose plain forward runs with finite outputs.

    Raises what the last attempt raised, where none runs.
    """
    last: Exception = _UnfitError("no input size to try")
    for running in _candidates(spec, model):
        try:
            _run_plainly(running)
        except Exception as error:
            last = error
            continue
        if _finite(running.output):
            return running
        last = _UnfitError("the outputs of the plain forward are not finite")
    raise last


def _candidates(spec: str, model: nn.Module) -> Iterator[Running]:
    """Small sizes first; where the model is made for one size, then built for a small one."""
    settings = getattr(model, "default_cfg", {})  # timm's; pretrained_cfg is the same
    own, fixed = settings.get("input_size"), settings.get("fixed_input_size", False)
    channels, own_side = (own[0], own[-1]) if own else (3, 224)
    for side in SIDES:
        yield Running(model, side, None, images(channels, side))
    if fixed:
        for side in SIDES_TO_BUILD_FOR:
            try:
                other = _built(spec, side)
            except Exception:
                break  # the builder does not take it: only its own size is left
            yield Running(other, side, side, images(channels, side))
    yield Running(model, own_side, None, images(channels, own_side))


def images(channels: int, side: int) -> list[Tensor]:
    """The batches: seeded normal noise, (N, channels, side, side) each."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, channels, side, side, generator=generator) for n in BATCH_SIZES]


def _run_plainly(running: Running) -> None:
    """One forward of the first batch; which BatchNorm layers it reaches."""
    reached: dict[str, None] = {}  # in order

    def reach(name: str) -> Callable[..., None]:
        return lambda module, args: reached.update({name: None})

    handles = [
        module.register_forward_pre_hook(reach(name))
        for name, module in running.model.named_modules()
        if isinstance(module, _BatchNorm)
    ]
    try:
        running.output = _outputs(running)
    finally:
        for handle in handles:
            handle.remove()
    running.reached = list(reached)


def _outputs(running: Running) -> list[Tensor]:
    with torch.no_grad():
        output = _quietly(lambda: running.model(running.batches[0]))
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def _finite(output: list[Tensor]) -> bool:
    return all(bool(torch.isfinite(leaf).all()) for leaf in output)


def _measure(running: Running, *, attribute: bool) -> None:
    """Raises `_UnfitError` for what is wrong with the Audit, or with the model after it."""
    audit = _quietly(
        lambda: measure(
            running.model,
            running.batches,
            attribute=BATCH_SIZES[0] if attribute else "none",
            policy=_RANDOM_IMAGES,
        )
    )
    _check_none(running, lambda name: not _has_figures(audit, name), "not audited")
    if attribute:
        _check_none(running, lambda name: audit.layer(name).own_shift is None, "without own shift")
    again = _outputs(running)
    if not all(torch.equal(a, b) for a, b in zip(running.output, again, strict=True)):
        raise _UnfitError("the model gives other outputs after measure")


def _check_none(running: Running, wrong: Callable[[str], bool], what: str) -> None:
    """Raises `_UnfitError` where a layer that the forward reaches is `wrong`."""
    names = [name for name in running.reached if wrong(name)]
    if names:
        raise _UnfitError(f"layers that a forward reaches are {what}, such as {names[0]}")


def _has_figures(audit: Audit, name: str) -> bool:
    layer = audit.layer(name)
    shift = layer.total_shift
    return layer.status == "audited" and shift is not None and math.isfinite(shift.plain)


def _exact(running: Running) -> Recalibrated:
    result = _quietly(
        lambda: recalibrate(
            running.model, running.batches, method="exact", task="other", policy=_RANDOM_IMAGES
        )
    )
    return result.report


def _check_exact(report: Recalibrated, running: Running) -> None:
    """Raises `_UnfitError` where not all was done, or not in lockstep."""
    if report.method != "exact":
        raise _UnfitError(f"{report.method} ran instead")
    changed = {name for layer in report.changed for name in (layer.name, *layer.aliases)}
    _check_none(running, lambda name: name not in changed, "unchanged")
    if report.residual is None or not report.residual <= RESIDUAL:
        raise _UnfitError(f"a residual above {RESIDUAL:g}")


def failure_of(stage: Stage, error: Exception) -> Failure:
    """What `error` says, in one line that is the same for models that differ in sizes only."""
    if isinstance(error, _UnfitError):
        return Failure(stage, str(error))
    if "can't allocate memory" in str(error) or isinstance(error, MemoryError):
        return Failure(stage, "needs more memory than allowed", limited=True)
    said = re.sub(r"\d+(\.\d+)?", "N", one_line(error))
    said = re.sub(r"(N, )+N", "N", said)
    return Failure(stage, said if len(said) <= 160 else f"{said[:159]}…")


def _quietly(work: Callable[[], Any]) -> Any:
    """Without warnings: of a thousand models some are deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return work()
