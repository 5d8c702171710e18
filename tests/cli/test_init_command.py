"""`bnaudit init`: the file that it writes is read and used by the other commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.models
from PIL import Image
from workplace import Ran, Run

from bnaudit.config import Settings, read_config, resolve
from bnaudit.targets.outlines import Shapes, outline_of, torchvision_specs

_KNOWN: dict[tuple[str, str], Shapes] = {}


def _once(spec: str, args: dict[str, object]) -> Shapes:
    key = spec, repr(sorted(args.items()))
    if key not in _KNOWN:
        _KNOWN[key] = outline_of(spec, args)
    return _KNOWN[key]


@pytest.fixture(autouse=True)
def _among_resnets_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each built once for all tests; all models are searched in tests of their own."""
    resnets = [spec for spec in torchvision_specs() if "resnet" in spec]
    monkeypatch.setattr("bnaudit.verbs.architectures.torchvision_specs", lambda: resnets)
    monkeypatch.setattr("bnaudit.verbs.architectures.timm_families", dict)
    monkeypatch.setattr("bnaudit.verbs.architectures.outline_of", _once)
    monkeypatch.setattr("bnaudit.verbs.fitting.outline_of", _once)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(path: Path | str = "bnaudit.toml") -> Settings:
    return resolve({}, read_config(Path(path)))


def words(ran: Ran) -> str:
    """What was printed, as one line."""
    return " ".join(ran.out.split())


def save_resnet(path: str = "resnet.pth", classes: int = 10, prefix: str = "") -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=classes)
    weights = {prefix + name: value for name, value in model.state_dict().items()}
    torch.save({"state_dict": weights, "epoch": 7}, path)


def save_images(folder: str, classes: int = 10, sizes: tuple[int, ...] = (40,)) -> None:
    rng = np.random.default_rng(0)
    for number in range(classes):
        for copy, side in enumerate((*sizes, *sizes)):
            file = Path(folder, f"class {number}", f"{copy}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file)


def test_with_a_checkpoint_and_data_the_file_works_as_it_is(bnaudit: Run, here: Path) -> None:
    save_resnet(prefix="module.")
    save_images("data/val")
    save_images("data/train")
    ran = bnaudit("init")
    assert ran.code == 0, ran.err
    assert "torchvision:resnet18 with num_classes=10" in words(ran)
    assert "imagefolder:data/val" in words(ran)
    assert "missing" not in words(ran)
    assert "check transform none: images are RGB divided by 255" in words(ran)
    assert "eight samples were measured" in words(ran)
    assert "bnaudit measure" in words(ran)
    assert "bnaudit gate" in words(ran)
    said = settings()
    assert said.model == "torchvision:resnet18"
    assert said.model_arg == {"num_classes": 10}
    assert said.data == "imagefolder:data/val"
    assert said.checkpoint_key is None
    text = Path("bnaudit.toml").read_text(encoding="utf-8")
    assert '# train_data = "imagefolder:data/train"' in text
    assert "quantized_resnet18" in text
    assert {path.name for path in here.iterdir()} == {"bnaudit.toml", "data", "resnet.pth"}
    measured = bnaudit("measure", "--config", "bnaudit.toml", "--attribute", "none", "--no-plots")
    assert measured.code == 0, measured.err
    assert "layer4.1.bn2" in measured.out


def test_every_setting_that_is_commented_out_can_be_put_in_force(
    bnaudit: Run, folder: Path
) -> None:
    bnaudit("init", "--model", "net.py:model", "--data", "npz:data.npz")
    uncommented, seen = [], set()
    for line in Path("bnaudit.toml").read_text(encoding="utf-8").splitlines():
        code = line.removeprefix("# ")
        name, equals, _ = code.partition(" = ")
        is_table = code.startswith("[")
        if is_table:
            seen = set()
        if line.startswith("# ") and ((equals and name.isidentifier()) or is_table):
            line = "" if name in seen else code
        if equals:
            seen.add(name)
        uncommented.append(line)
    Path("all.toml").write_text("\n".join(uncommented), encoding="utf-8")
    said = settings("all.toml")
    assert said.samples == 2000
    assert said.thresholds == {"BN101": {"shift": 0.1}}
    assert said.gate.max_layer_esm == 0.2
    assert said.gate.tolerance.layer_esm == 0.05
    assert said.gate.baseline is not None


def test_a_network_of_ones_own_is_missing_and_said_to_be(bnaudit: Run, folder: Path) -> None:
    ran = bnaudit("init")
    assert ran.code == 0, ran.err
    assert "missing model" in words(ran)
    assert "fill in what is missing" in words(ran)
    said = settings()
    assert said.model is None
    assert said.checkpoint == Path("good.pt")
    assert said.data is not None
    text = Path("bnaudit.toml").read_text(encoding="utf-8")
    assert '# model = "path/file.py:factory"' in text
    assert "from 0.weight to" in text
    filled = text.replace('# model = "path/file.py:factory"', 'model = "net.py:model"')
    Path("bnaudit.toml").write_text(filled, encoding="utf-8")
    assert bnaudit("measure", "--no-plots", "--attribute", "none").code == 0


def test_a_model_and_data_that_are_named_are_tried(bnaudit: Run, folder: Path) -> None:
    ran = bnaudit("init", "good.pt", "--model", "net.py:model", "--data", "npz:data.npz")
    assert ran.code == 0, ran.err
    assert "eight samples were measured" in words(ran)
    assert settings().model == "net.py:model"


def test_a_model_that_does_not_fit_is_said_to_do_so(bnaudit: Run, folder: Path) -> None:
    ran = bnaudit("init", "--model", "net.py:model", "--model-arg", "width=6")
    assert ran.code == 0, ran.err
    assert "does not fit the checkpoint" in words(ran)
    assert "eight samples" not in words(ran)
    assert "It does not fit" in Path("bnaudit.toml").read_text(encoding="utf-8")


def test_a_model_that_fails_on_the_data_is_told(bnaudit: Run, folder: Path) -> None:
    np.savez("flat.npz", x=np.zeros((9, 7), np.float32))
    ran = bnaudit("init", "--model", "net.py:model", "--data", "npz:flat.npz")
    assert ran.code == 0, ran.err
    assert "it does not work yet" in words(ran)


def test_without_data_the_weights_are_loaded_at_least(bnaudit: Run, here: Path) -> None:
    save_resnet()
    ran = bnaudit("init")
    assert ran.code == 0, ran.err
    assert "missing data" in words(ran)
    assert "the weights were loaded with it" in words(ran)


def test_a_file_that_needs_trust_is_told_before_it_is_measured(bnaudit: Run, here: Path) -> None:
    model = torchvision.models.resnet18()
    torch.save({"state_dict": model.state_dict(), "loss": torch.nn.MSELoss()}, "run.pth")
    ran = bnaudit("init")
    assert ran.code == 0, ran.err
    assert "it does not work yet" in words(ran)
    assert "--trust-pickle" in words(ran)


def test_settings_in_pyproject_that_would_be_hidden_are_told(bnaudit: Run, folder: Path) -> None:
    Path("pyproject.toml").write_text("[tool.bnaudit]\nsamples = 7\n")
    ran = bnaudit("init", "--model", "net.py:model")
    assert "note pyproject.toml has a table [tool.bnaudit]" in words(ran)


def test_paths_are_relative_to_a_file_in_another_folder(
    bnaudit: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = bnaudit("init", "--model", "net.py:model", "-o", "ci/audit.toml")
    assert ran.code == 0, ran.err
    assert "bnaudit measure --config ci/audit.toml" in words(ran)
    monkeypatch.chdir(folder.parent)
    measured = bnaudit("measure", "--config", "work/ci/audit.toml", "--no-plots", "--json")
    assert measured.code == 0, measured.err


def test_a_file_in_the_place_of_a_folder_is_told_before_the_search(
    bnaudit: Run, folder: Path
) -> None:
    ran = bnaudit("init", "-o", "net.py/ci/bnaudit.toml")
    assert ran.code == 2
    assert ran.err == "error: net.py/ci/bnaudit.toml: net.py is no folder; name a file in one\n"
    ran = bnaudit("init", "nope.pt", "-o", "ci/bnaudit.toml")
    assert ran.code == 2
    assert not Path("ci").exists()


def test_a_file_that_is_there_is_not_replaced(bnaudit: Run, folder: Path) -> None:
    Path("bnaudit.toml").write_text("samples = 7\n")
    ran = bnaudit("init", "--model", "net.py:model")
    assert ran.code == 2
    assert "--force" in ran.err
    assert Path("bnaudit.toml").read_text() == "samples = 7\n"
    forced = bnaudit("init", "--model", "net.py:model", "--force")
    assert forced.code == 0, forced.err
    assert settings().samples is None


def test_of_several_checkpoints_one_has_to_be_named(bnaudit: Run, folder: Path) -> None:
    Path("better.pth").write_bytes(Path("good.pt").read_bytes())
    Path("notes.bin").write_bytes(b"no checkpoint")
    ran = bnaudit("init")
    assert ran.code == 2
    assert "better.pth, good.pt" in ran.err
    assert "notes.bin" not in ran.err
    assert not Path("bnaudit.toml").exists()


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 truncated"])
def test_without_a_readable_checkpoint_nothing_is_written(
    bnaudit: Run, here: Path, content: bytes | None
) -> None:
    if content is not None:
        Path("bad.pth").write_bytes(content)
    ran = bnaudit("init")
    assert ran.code == 2
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    assert not Path("bnaudit.toml").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--model", "net.py:absent"),
        ("--model", "timm"),
        ("--model-arg", "width=3"),
        ("--data", "imagefolder:absent"),
        ("--data-arg", "split=test"),
        ("--transform", "imagnet", "--model", "net.py:model"),
        ("--checkpoint-key", "absent"),
        ("-o", "net.py/bnaudit.toml"),
        ("-o", "images"),
    ],
)
def test_what_is_named_and_cannot_be_used_is_an_error(
    bnaudit: Run, folder: Path, options: tuple[str, ...]
) -> None:
    before = sorted(Path().rglob("*"))
    ran = bnaudit("init", *options)
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith("error: ")
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("name", ['a "quoted" one', "back\\slash", "Gewichte é 名", "~home", "#1"])
def test_files_of_any_name_are_written_so_that_they_are_found(
    bnaudit: Run, folder: Path, name: str
) -> None:
    Path("good.pt").rename(f"{name}.pt")
    Path("sub").mkdir()
    Path("images").rename(f"sub/{name}")
    ran = bnaudit("init", "--model", "net.py:model", "--data", f"imagefolder:sub/{name}")
    assert ran.code == 0, ran.err
    assert "eight samples were measured" in words(ran)
    assert settings().checkpoint is not None
    assert settings().checkpoint.is_file()


def test_a_name_with_line_breaks_stays_in_its_line(bnaudit: Run, folder: Path) -> None:
    Path("good.pt").rename("a\n\x1b[31mb.pt")
    ran = bnaudit("init", "--model", "net.py:model")
    assert "a [31mb.pt: 11 tensors" in words(ran)
    assert "\x1b" not in ran.out
    assert settings().checkpoint == Path("a\n\x1b[31mb.pt")


def test_folders_that_look_like_a_home_do_no_harm(bnaudit: Run, folder: Path) -> None:
    Path("images").rename("~nobody-here")
    ran = bnaudit("init", "--model", "net.py:model")
    assert ran.code == 0, ran.err
    assert settings().data == "npz:data.npz"


def test_where_there_are_several_state_dicts_the_key_is_written(bnaudit: Run, folder: Path) -> None:
    weights = torch.load("good.pt")
    torch.save({"model": weights, "model_ema": weights}, "good.pt")
    assert bnaudit("init", "--model", "net.py:model").code == 0
    assert settings().checkpoint_key == "model"
    assert "model_ema" in Path("bnaudit.toml").read_text(encoding="utf-8")
    bnaudit("init", "--model", "net.py:model", "--checkpoint-key", "model_ema", "--force")
    assert settings().checkpoint_key == "model_ema"


def test_a_pickled_model_needs_no_name_but_trust(bnaudit: Run, here: Path) -> None:
    torch.save(torchvision.models.mobilenet_v3_small(), "whole.pt")
    save_images("val", classes=2)
    ran = bnaudit("init")
    assert ran.code == 0, ran.err
    assert "missing" not in words(ran)
    assert "bnaudit measure --trust-pickle" in words(ran)
    assert settings().model is None
    assert bnaudit("measure", "--trust-pickle", "--no-plots", "--attribute", "none").code == 0


def test_images_of_different_sizes_need_a_transform(bnaudit: Run, here: Path) -> None:
    save_resnet(classes=1000)
    save_images("val", classes=2, sizes=(40, 48))
    ran = bnaudit("init")
    assert "missing transform" in words(ran)
    text = Path("bnaudit.toml").read_text(encoding="utf-8")
    assert '# transform = "ResNet18_Weights.IMAGENET1K_V1"' in text
    assert settings().transform is None


def test_published_weights_are_known_by_their_file_name(bnaudit: Run, here: Path) -> None:
    save_resnet("resnet18-f37072fd.pth", classes=1000)
    save_images("val", classes=2, sizes=(40, 48))
    ran = bnaudit("init")
    assert "missing" not in words(ran)
    assert settings().transform == "ResNet18_Weights.IMAGENET1K_V1"


def test_a_checkpoint_without_batch_norm_is_told(bnaudit: Run, folder: Path) -> None:
    torch.save(torch.nn.Sequential(torch.nn.Linear(192, 3)).state_dict(), "good.pt")
    ran = bnaudit("init")
    assert ran.code == 0, ran.err
    assert "no BatchNorm layers" in words(ran)
