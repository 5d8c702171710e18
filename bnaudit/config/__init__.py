"""The settings of a run: one typed model, filled from a TOML file and the command line.

The file has the same names as the options, with underscores or dashes; paths in it are relative to
the file. The command line wins.
"""

from bnaudit.config.files import DEFAULT_FILE, ConfigFile, find_config, read_config
from bnaudit.config.gate import GateSettings, Tolerance
from bnaudit.config.names import nearest
from bnaudit.config.paths import NAME_SCHEMES, PATH_SCHEMES, SCHEMES
from bnaudit.config.resolve import resolve
from bnaudit.config.settings import Settings

__all__ = [
    "DEFAULT_FILE",
    "NAME_SCHEMES",
    "PATH_SCHEMES",
    "SCHEMES",
    "ConfigFile",
    "GateSettings",
    "Settings",
    "Tolerance",
    "find_config",
    "nearest",
    "read_config",
    "resolve",
]
