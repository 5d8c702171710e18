"""What a file that is found in a folder may not switch on."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnaudit.config import read_config
from bnaudit.errors import InputError


@pytest.mark.parametrize("key", ["trust_pickle", "trust-pickle"])
@pytest.mark.parametrize("value", ["true", "false"])
@pytest.mark.parametrize(
    ("name", "table"), [("bnaudit.toml", ""), ("pyproject.toml", "[tool.bnaudit]\n")]
)
def test_trusting_pickles_is_for_the_command_line_only(
    key: str, value: str, name: str, table: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(f"{table}seed = 1\n{key} = {value}\n")
    with pytest.raises(InputError, match="--trust-pickle") as raised:
        read_config(path)
    line = 2 + bool(table)
    assert str(raised.value).startswith(f"{path}:{line}: ")
