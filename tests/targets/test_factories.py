from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bnaudit.errors import InputError, ModelError
from bnaudit.targets.factories import call_factory, load_factory, parse_args

Write = Callable[..., Path]

FILE = """
import math
from collections import OrderedDict

LEVELS = 3

class Builder:
    @staticmethod
    def make():
        return 'made'

def build(width, depth=2):
    return width * depth

def buildings():
    return None
"""


def load(spec: object) -> Callable[..., object]:
    return load_factory(str(spec), option="--model")


def test_a_name_in_a_file_is_loaded(write: Write) -> None:
    file = write("net.py", FILE)
    assert load(f"{file}:build")(3) == 6
    assert load(f"{file}:Builder.make")() == "made"


def test_a_name_in_a_package_is_loaded() -> None:
    assert load("collections:OrderedDict")() == {}


def test_a_relative_path_is_relative_to_the_current_folder(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("net.py", FILE)
    monkeypatch.chdir(tmp_path)
    assert load("net.py:build")(3) == 6


def test_a_package_in_the_current_folder_is_found(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("herepkg/__init__.py", "")
    write("herepkg/nets.py", "def build(): return 'here'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert load("herepkg.nets:build")() == "here"
    assert not list(tmp_path.rglob("__pycache__"))


def test_siblings_are_importable_at_import_and_later(write: Write, tmp_path: Path) -> None:
    write("early_sibling.py", "VALUE = 1")
    write("late_sibling.py", "VALUE = 2")
    file = write(
        "net.py",
        "import early_sibling\n"
        "def build():\n"
        "    import late_sibling\n"
        "    return early_sibling.VALUE + late_sibling.VALUE\n",
    )
    assert call_factory(load(f"{file}:build"), {}, option="--model", spec="net.py:build") == 3
    assert not list(tmp_path.rglob("__pycache__"))


def test_bytecode_is_written_again_afterwards(write: Write) -> None:
    load(f"{write('net.py', FILE)}:build")
    assert sys.dont_write_bytecode is False
    with pytest.raises(InputError):
        load(f"{write('broken.py', 'raise ValueError')}:build")
    assert sys.dont_write_bytecode is False


@pytest.mark.parametrize("stem", ["random", "torch", "json"])
def test_a_file_never_replaces_a_module_of_the_same_name(write: Write, stem: str) -> None:
    import importlib

    theirs = importlib.import_module(stem)
    file = write(f"{stem}.py", "def build(): return __file__")
    assert load(f"{file}:build")() == str(file)
    assert importlib.import_module(stem) is theirs


def test_a_sibling_never_hides_an_installed_module(write: Write) -> None:
    write("wave.py", "HIDDEN = True")
    file = write("net.py", "import wave\ndef build(): return wave.__file__")
    assert load(f"{file}:build")() != str(file.parent / "wave.py")


def test_a_sibling_that_is_hidden_by_an_installed_module_is_named(write: Write) -> None:
    write("wave.py", "def crest(): pass")
    file = write("net.py", "from wave import crest\ndef build(): pass")
    with pytest.raises(InputError, match=r"comes before .*wave\.py: rename"):
        load(f"{file}:build")


def test_a_file_that_a_sibling_imports_is_one_module(write: Write) -> None:
    net = write("onlyonce.py", "class Net: pass")
    data = write("its_data.py", "import onlyonce\ndef make(): return onlyonce.Net")
    assert load(f"{net}:Net") is load(f"{data}:make")()


def test_a_file_that_was_imported_as_a_sibling_is_not_run_again(write: Write) -> None:
    net = write("runs.py", "class Net: pass")
    data = write("its_data.py", "import runs\ndef make(): return runs.Net")
    assert load(f"{data}:make")() is load(f"{net}:Net")


def test_two_files_of_the_same_name_are_two_modules(write: Write) -> None:
    one = write("a/twin.py", "def build(): return 1")
    two = write("b/twin.py", "def build(): return 2")
    assert [load(f"{one}:build")(), load(f"{two}:build")()] == [1, 2]


def test_a_file_of_a_package_may_import_relatively(write: Write, tmp_path: Path) -> None:
    write("somepkg/__init__.py", "")
    write("somepkg/blocks.py", "WIDTH = 7")
    file = write("somepkg/net.py", "from .blocks import WIDTH\ndef build(): return WIDTH")
    assert load(f"{file}:build")() == 7
    assert not list(tmp_path.rglob("__pycache__"))


@pytest.mark.parametrize("name", ["odd-name.py", "1st.py", "with space.py", "ünï_x.py", "a.b.py"])
def test_another_process_can_unpickle_a_files_class(
    write: Write, tmp_path: Path, name: str
) -> None:
    file = write(name, "class Net:\n    width = 5\n")
    content = pickle.dumps(load(f"{file}:Net")())
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).width)"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], input=content, cwd=root, capture_output=True, check=False
    )
    assert done.stdout.decode().strip() == "5", done.stderr.decode()
    assert not (tmp_path / "__pycache__").exists()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("{dir}/net.py", ["net.py:NAME"]),
        ("net", ["path/file.py:NAME", "package.module:NAME"]),
        ("{dir}/nett.py:build", ["there is no file", "nett.py", "did you mean net.py?"]),
        ("{dir}/sub/net.py:build", ["there is no folder", "sub"]),
        ("{dir}/folder.py:build", ["is a folder"]),
        ("{dir}/net.py:buidl", ["has no buidl", "did you mean build"]),
        ("{dir}/net.py:zzz", ["has no zzz", "it defines Builder, build, buildings"]),
        ("{dir}/net.py:Builder.mak", ["has no Builder.mak"]),
        ("{dir}/net.py:LEVELS", ["LEVELS is an int, not a function"]),
        ("{dir}/bad.py:build", ["ZeroDivisionError: division by zero", "bad.py:2"]),
        ("{dir}/helped.py:build", ["ValueError: no use", "helper_of.py:2"]),
        ("{dir}/syntax.py:build", ["SyntaxError", "syntax.py:2"]),
        ("{dir}/exits.py:build", ["SystemExit", "exits.py:2"]),
        ("{dir}/absent.py:build", ["ModuleNotFoundError", "nowhere_to_be_found", "absent.py:1"]),
        ("{dir}/relative.py:build", ["relative imports", "__init__.py"]),
        ("no_such_package.nets:build", ["no module named no_such_package", "path/file.py:NAME"]),
        ("collections.nets:build", ["no module named collections.nets"]),
        ("collections:OrderedDic", ["has no OrderedDic", "did you mean OrderedDict"]),
    ],
)
def test_a_wrong_factory_is_told_in_one_line(
    write: Write, tmp_path: Path, spec: str, words: list[str]
) -> None:
    write("net.py", FILE)
    write("bad.py", "x = 1\nx / 0\n")
    write("helper_of.py", "\nraise ValueError('no\\n   use')\n")
    write("helped.py", "import helper_of\n")
    write("syntax.py", "x = 1\ndef build(:\n")
    write("exits.py", "import sys\nsys.exit('usage')\n")
    write("absent.py", "import nowhere_to_be_found\n")
    write("relative.py", "from .net import build\n")
    (tmp_path / "folder.py").mkdir()
    spec = spec.format(dir=tmp_path)
    with pytest.raises(InputError) as caught:
        load(spec)
    message = str(caught.value)
    assert message.startswith(f"--model {spec}")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"witdh": 1}, ["--model-arg witdh", "accepts width, depth", "did you mean width?"]),
        ({"depth": 1}, ["needs width", "--model-arg width=VALUE"]),
        ({"width": None}, ["--model net.py:build", "TypeError", "net.py:13"]),
    ],
)
def test_wrong_arguments_are_told_in_one_line(
    write: Write, args: dict[str, object], words: list[str]
) -> None:
    build = load(f"{write('net.py', FILE)}:build")
    with pytest.raises(InputError) as caught:
        call_factory(build, args, option="--model", spec="net.py:build")
    for word in words:
        assert word in str(caught.value)


def test_an_error_of_ours_inside_a_factory_stays_itself() -> None:
    def build() -> None:
        raise ModelError("this very line")

    with pytest.raises(ModelError, match=r"^this very line$"):
        call_factory(build, {}, option="--model", spec="net.py:build")


def test_ctrl_c_inside_a_factory_is_not_an_input_error() -> None:
    def build() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call_factory(build, {}, option="--model", spec="net.py:build")


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("key=10", 10),
        ("key=1e-3", 1e-3),
        ("key=(2, 2)", (2, 2)),
        ("key=[1, 2]", [1, 2]),
        ("key='10'", "10"),
        ("key=true", True),
        ("key=False", False),
        ("key=none", None),
        ("key=hello", "hello"),
        ("key=a=b", "a=b"),
        ("key=", ""),
        ("key=007", "007"),
        ("key=__import__('os')", "__import__('os')"),
    ],
)
def test_a_value_is_a_literal_or_the_string_itself(pair: str, value: object) -> None:
    parsed = parse_args([pair], option="--model-arg")["key"]
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("pairs", "word"),
    [
        (["width"], "write it as key=value"),
        (["=3"], "not an argument's name"),
        (["num-classes=10"], "write num_classes=10"),
        (["a=1", "a=2"], "a is given twice"),
    ],
)
def test_a_wrong_pair_is_named(pairs: list[str], word: str) -> None:
    with pytest.raises(InputError, match="--model-arg") as caught:
        parse_args(pairs, option="--model-arg")
    assert word in str(caught.value)
