"""A bank of statistics, and putting a domain's into a model."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from domain_models import as_data, digits, digits_net, hazy
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from bnaudit.checkpoints.bank import read_bank
from bnaudit.errors import InputError
from bnaudit.nn import convert
from bnaudit.verbs.apply_domain import apply_domain
from bnaudit.verbs.domains import domains
from bnaudit.verbs.recalibrate import recalibrate


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the digits as they are and through haze."""
    images, _ = digits("test")
    path = tmp_path_factory.mktemp("bank") / "bank.safetensors"
    data = {"plain": as_data(images[:160]), "hazy": as_data(hazy(images[:160]))}
    half = {"plain": as_data(images[160:240]), "hazy": as_data(hazy(images[160:240]))}
    domains(digits_net(), data, verify=half, bank=path)
    return path


def statistics(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: v.clone() for n, v in model.state_dict().items() if ".running_" in f".{n}"}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_domain_from_the_bank_is_what_recalibrating_on_it_gives(bank: Path) -> None:
    model, recalibrated = digits_net(), digits_net()
    recalibrate(recalibrated, as_data(hazy(digits("test")[0][:160])), method="exact")
    applied = apply_domain(model, bank, "hazy")
    for name, value in statistics(recalibrated).items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert applied.applied


def test_only_the_statistics_change_and_everything_can_be_undone(bank: Path) -> None:
    model = digits_net().train()
    before = copy.deepcopy(model.state_dict())
    storage = model.bn.running_mean.data_ptr()
    applied = apply_domain(model, str(bank), "hazy")
    changed = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == set(statistics(model))
    assert model.training
    assert model.bn.running_mean.data_ptr() == storage
    applied.revert()
    applied.revert()
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_as_a_context_it_ends_with_the_block_also_on_an_error(bank: Path) -> None:
    model, read = digits_net(), read_bank(bank)
    before = statistics(model)
    with apply_domain(model, read, "plain"):
        plain = statistics(model)
        with apply_domain(model, read, "hazy"):
            assert not same(statistics(model), plain)
        assert same(statistics(model), plain)
    assert same(statistics(model), before)

    def fails() -> None:
        with apply_domain(model, read, "hazy"):
            raise RuntimeError("of the caller's")

    with pytest.raises(RuntimeError, match="of the caller's"):
        fails()
    assert same(statistics(model), before)


def test_what_was_applied_first_cannot_be_reverted_before_what_came_after_it(bank: Path) -> None:
    model, other = digits_net(), digits_net()
    before = statistics(model)
    first, second = apply_domain(model, bank, "plain"), apply_domain(model, bank, "hazy")
    elsewhere = apply_domain(other, bank, "hazy")
    now = statistics(model)
    with pytest.raises(InputError, match="hazy was applied to this model after plain: revert hazy"):
        first.revert()
    assert first.applied
    assert same(statistics(model), now)
    second.revert()
    first.revert()
    assert same(statistics(model), before)
    assert elsewhere.applied
    # Nobody can revert the second one once its handle is gone, so the first may be.
    first = apply_domain(model, bank, "plain")
    apply_domain(model, bank, "hazy")
    first.revert()
    assert same(statistics(model), before)


def test_a_bank_fits_a_model_that_weighs_its_examples(bank: Path) -> None:
    plain, weighing = digits_net(), digits_net()
    convert(weighing, "example-weighing", alpha=0.2)
    before = statistics(weighing)
    apply_domain(plain, bank, "hazy")
    with apply_domain(weighing, bank, "hazy"):
        assert same(statistics(weighing), statistics(plain))
    assert same(statistics(weighing), before)


class Wrapping(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.backbone(x)


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "a module of the user's": Wrapping,
    "both": lambda model: nn.DataParallel(Wrapping(model)),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_names_are_matched_through_wrappers(name: str, bank: Path) -> None:
    plain, inner = digits_net(), digits_net()
    apply_domain(plain, bank, "hazy")
    wrapped = WRAPPERS[name](inner)
    with apply_domain(wrapped, bank, "hazy"):
        assert same(statistics(inner), statistics(plain))
    assert same(statistics(inner), statistics(digits_net()))


def test_statistics_are_cast_to_what_the_model_keeps(bank: Path) -> None:
    model = digits_net().double()
    apply_domain(model, bank, "hazy")
    assert model.bn.running_var.dtype == torch.float64
    half = digits_net().half()
    apply_domain(half, bank, "hazy")
    assert half.bn.running_var.dtype == torch.float16


def wider() -> nn.Module:
    model = digits_net()
    model.blocks[3].bn2 = nn.BatchNorm2d(33)
    return model


def another_eps() -> nn.Module:
    model = digits_net()
    model.blocks[3].bn2.eps = 1e-3
    return model


def one_more_layer() -> nn.Module:
    model = digits_net()
    model.classifier = nn.Sequential(nn.BatchNorm1d(32), model.classifier)
    return model


def one_layer_less() -> nn.Module:
    model = digits_net()
    model.blocks[3].bn2 = nn.Identity()
    return model


MISFITS = (
    (wider, "blocks.3.bn2.running_mean has 32 channels in the bank, \\[33\\] in the model"),
    (another_eps, "layer blocks.3.bn2 has eps 0.001, the bank's statistics were made with 1e-05"),
    (one_more_layer, "does not fit the model: not in the bank: classifier.0"),
    (one_layer_less, "does not fit the model: not in the model: blocks.3.bn2"),
)


@pytest.mark.parametrize(("make", "says"), MISFITS, ids=[make.__name__ for make, _ in MISFITS])
def test_a_bank_of_another_model_changes_nothing(
    make: Callable[[], nn.Module], says: str, bank: Path
) -> None:
    model = make()
    before = statistics(model)
    with pytest.raises(InputError, match=says):
        apply_domain(model, bank, "hazy")
    assert same(statistics(model), before)


def test_statistics_that_half_precision_cannot_hold_change_nothing(bank: Path) -> None:
    read = read_bank(bank)
    mean, var = read.statistics["hazy"]["blocks.3.bn2"]
    read.statistics["hazy"]["blocks.3.bn2"] = (mean, var + 1e6)  # type: ignore[index]
    model = digits_net().half()
    before = statistics(model)
    with pytest.raises(InputError, match=r"blocks\.3\.bn2: .* not finite as float16"):
        apply_domain(model, read, "hazy")
    assert same(statistics(model), before)


def test_a_domain_that_is_not_in_the_bank_is_told_with_those_that_are(bank: Path) -> None:
    with pytest.raises(InputError, match="no domain 'fog': it has plain, hazy, pooled"):
        apply_domain(digits_net(), bank, "fog")


def test_the_bank_says_what_it_belongs_to(bank: Path) -> None:
    read = read_bank(bank)
    assert read.domains == ("plain", "hazy", "pooled")
    assert read.samples == {"plain": 160, "hazy": 160, "pooled": 320}
    assert read.model == "DigitsNet"
    assert set(read.eps) == {name.removesuffix(".running_mean") for name in names(digits_net())}
    assert set(read.eps.values()) == {1e-5}
    with safe_open(str(bank), framework="pt") as file:
        assert file.metadata()["format"] == "bnaudit-bank"
        assert "hazy/blocks.0.bn1.running_var" in file.keys()  # noqa: SIM118


def names(model: nn.Module) -> list[str]:
    return [name for name in model.state_dict() if name.endswith("running_mean")]


def damaged(**changes: object) -> Callable[[Path, Path], None]:
    """The bank with other metadata; `tensors`: what is done to its tensors."""

    def write(source: Path, target: Path) -> None:
        with safe_open(str(source), framework="pt") as file:
            metadata = dict(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = json.loads(metadata["about"])
        for key, value in changes.items():
            if key == "tensors":
                value(tensors)  # type: ignore[operator]
            elif key in metadata:
                metadata[key] = str(value)
            else:
                about[key] = value
        if "about" not in changes:
            metadata["about"] = json.dumps(about)
        save_file(tensors, target, metadata)

    return write


def _no_metadata(source: Path, target: Path) -> None:
    save_file({"a": torch.zeros(2)}, target)


def _nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["hazy/bn.running_mean"][0] = float("nan")


def _negative(tensors: dict[str, torch.Tensor]) -> None:
    tensors["hazy/bn.running_var"][0] = -1.0


def _shorter(tensors: dict[str, torch.Tensor]) -> None:
    tensors["hazy/bn.running_var"] = torch.ones(3)


def _lost(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["hazy/bn.running_var"], tensors["hazy/bn.running_mean"]


def _foreign(tensors: dict[str, torch.Tensor]) -> None:
    tensors["fog/bn.running_var"] = torch.ones(16)


HOSTILE = {
    "nothing there": (lambda source, target: None, "there is no such file"),
    "no safetensors": (lambda s, t: t.write_bytes(b"PK\3\4" + bytes(64)), "cannot be read as a"),
    "empty": (lambda s, t: t.write_bytes(b""), "cannot be read as a bank"),
    "cut": (lambda s, t: t.write_bytes(s.read_bytes()[:-9]), "cannot be read as a bank"),
    "a folder": (lambda s, t: t.mkdir(), "cannot be read as a bank"),
    "weights": (_no_metadata, "no bank of statistics"),
    "a later version": (damaged(version=2), "a bank of version '2'; this bnaudit reads 1"),
    "no JSON": (damaged(about="{"), "a damaged bank"),
    "no table": (damaged(about="[]"), "a damaged bank"),
    "wrong eps": (damaged(eps={"bn": "x"}), "a damaged bank"),
    "wrong samples": (damaged(samples=3), "a damaged bank"),
    "NaN": (damaged(tensors=_nan), "a damaged bank: hazy/bn is not finite"),
    "a negative variance": (damaged(tensors=_negative), "a damaged bank: hazy/bn is not finite"),
    "another length": (damaged(tensors=_shorter), "hazy/bn has no mean and variance of one"),
    "a layer lost": (damaged(tensors=_lost), "not every domain has statistics of the same layers"),
    "a domain unknown": (damaged(tensors=_foreign), "a tensor is called 'fog/bn.running_var'"),
}


def test_a_damaged_bank_is_told_in_one_line(bank: Path, tmp_path: Path) -> None:
    for number, (what, (write, says)) in enumerate(HOSTILE.items()):
        path = tmp_path / f"{number}.safetensors"
        write(bank, path)
        with pytest.raises(InputError) as raised:
            apply_domain(digits_net(), path, "hazy")
        assert says in str(raised.value), what
        assert str(path) in str(raised.value), what
        assert "\n" not in str(raised.value), what


def test_an_existing_bank_is_kept_unless_it_may_be_replaced(bank: Path, tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    path.write_bytes(b"precious")
    images = digits("test")[0]
    data = {"a": as_data(images[:80]), "b": as_data(hazy(images[80:160]))}
    with pytest.raises(InputError, match="exists already"):
        domains(digits_net(), data, bank=path)
    assert path.read_bytes() == b"precious"
    domains(digits_net(), data, bank=path, overwrite=True)
    assert read_bank(path).domains == ("a", "b", "pooled")
    assert list(tmp_path.iterdir()) == [path]
    for wrong, says in (("bank.pt", "a .safetensors file"), ("no/b.safetensors", "does not exist")):
        with pytest.raises(InputError, match=says):
            domains(digits_net(), data, bank=tmp_path / wrong)
