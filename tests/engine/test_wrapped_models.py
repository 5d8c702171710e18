"""Models inside wrappers are looked through; those that cannot be intercepted are refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from alone import measure_alone
from small_nets import around, dataset, filled, images
from torch import nn
from torch.optim.swa_utils import AveragedModel

from bnaudit.engine.wrappers import unwrap
from bnaudit.errors import ModelError


def net() -> Any:
    return around(nn.Sequential(filled(nn.BatchNorm2d(6)), nn.ReLU(), filled(nn.BatchNorm2d(6), 1)))


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


def compiled_and_used(model: nn.Module) -> nn.Module:
    model = torch.compile(model.eval(), backend="eager")
    with torch.no_grad():
        model(images(32))
    return model


def with_compiled_part(model: Any) -> nn.Module:
    model[1] = torch.compile(model[1], backend="eager")
    return model


def with_compiled_layer(model: Any) -> nn.Module:
    model[1][0] = torch.compile(model[1][0], backend="eager")
    return model


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "AveragedModel": AveragedModel,
    "torch.compile": lambda m: torch.compile(m, backend="eager"),
    "torch.compile, traced before": compiled_and_used,
    "module.compile()": compiled_in_place,
    "compiled submodule": with_compiled_part,
    "compiled layer": with_compiled_layer,
    "AveragedModel of DataParallel": lambda m: AveragedModel(nn.DataParallel(m)),
    "torch.compile of AveragedModel": lambda m: torch.compile(AveragedModel(m), backend="eager"),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_model_gives_the_audit_of_the_model_inside(wrapper: str) -> None:
    plain = measure_alone(net(), dataset())
    wrapped = measure_alone(WRAPPERS[wrapper](net()), dataset())
    assert [layer.name for layer in wrapped.layers] == ["1.0", "1.2"]
    assert wrapped.layers == plain.layers
    assert wrapped.network == plain.network


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_model_still_works_after_it_was_measured(wrapper: str) -> None:
    model = WRAPPERS[wrapper](copy.deepcopy(net())).eval()
    with torch.no_grad():
        before = model(images(8))
        measure_alone(model, dataset())
        assert torch.equal(model(images(8)), before)


def test_data_parallel_parts_of_a_model_are_measured() -> None:
    model = net()
    model[1] = nn.DataParallel(model[1])
    found = measure_alone(model, dataset())
    plain = measure_alone(net(), dataset())
    assert [layer.name for layer in found.layers] == ["1.module.0", "1.module.2"]
    assert [layer.total_shift for layer in found.layers] == [x.total_shift for x in plain.layers]


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_refused_by_name() -> None:
    model = net().eval()
    traced = torch.jit.trace(model, images(2))
    part = net()
    part[1] = getattr(traced, "1")
    for refused in (traced, torch.jit.script(model), part):
        with pytest.raises(ModelError, match="TorchScript"):
            measure_alone(refused, dataset())


def test_an_exported_program_is_refused_by_name() -> None:
    program = torch.export.export(net().eval(), (images(32),))
    with pytest.raises(ModelError, match="ExportedProgram"):
        measure_alone(program, dataset(32))  # type: ignore[arg-type]


def test_the_module_of_an_exported_program_is_refused_by_name() -> None:
    module = torch.export.export(net().eval(), (images(32),)).module()
    with pytest.raises(ModelError, match="exported"):
        measure_alone(module, dataset(32))


def test_a_traced_fx_graph_is_measured() -> None:
    plain = measure_alone(net(), dataset())
    traced = measure_alone(torch.fx.symbolic_trace(net()), dataset())
    assert traced.layers == plain.layers


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(ModelError, match=r"torch\.nn\.Module, got function"):
        unwrap(lambda x: x)  # type: ignore[arg-type]


def test_measure_takes_what_is_no_module_with_a_clear_error() -> None:
    with pytest.raises(ModelError, match=r"torch\.nn\.Module, got function"):
        measure_alone(lambda x: x, dataset())  # type: ignore[arg-type]
