"""What the settings leave out of the verdict, and which of that is not needed any more."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase

from bnaudit.config import GateSettings
from bnaudit.findings.policy import codes_of
from bnaudit.results import LayerAudit

EVERYTHING = "all"
LAYER_CHECKS = ("max_layer_esm", "layer_esm")
"""The checks of single layers, which can be ignored by name as a code can."""


class Ignores:
    """The ignores of `[gate]`, which remember what they were needed for.

    Raises `InputError` for codes that do not exist.
    """

    def __init__(self, settings: GateSettings, layers: Sequence[LayerAudit]) -> None:
        self._select = codes_of("gate.select", settings.select)
        given = [part for text in settings.ignore for part in text.split(",") if part.strip()]
        self._ignore = [(part.strip(), codes_of("gate.ignore", [part])) for part in given]
        self._per_layer = [
            (glob, name, _codes(glob, name))
            for glob, names in settings.per_layer_ignores.items()
            for name in names
        ]
        self._names = {layer.name: (layer.name, *layer.aliases) for layer in layers}
        self._needed: set[str] = set()

    def selects(self, code: str) -> bool:
        """Whether findings with this code count at all."""
        return not self._select or code.startswith(self._select)

    def code(self, code: str) -> str | None:
        """The setting that ignores this code everywhere; None where none does."""
        for given, codes in self._ignore:
            if code.startswith(codes):
                return self._need(f"gate.ignore {given}")
        return None

    def layer(self, layer: str, check: str) -> str | None:
        """The setting that ignores a code, or a check of `LAYER_CHECKS`, in this layer."""
        for glob, given, codes in self._per_layer:
            if self._matches(glob, layer) and (EVERYTHING in codes or check.startswith(codes)):
                return self._need(f"gate.per_layer_ignores {glob!r} {given}")
        return None

    def everything(self, layer: str) -> bool:
        """Whether the layer is left out of all that concerns single layers, and of their mean."""
        found = [
            self._need(f"gate.per_layer_ignores {glob!r} {given}")
            for glob, given, codes in self._per_layer
            if EVERYTHING in codes and self._matches(glob, layer)
        ]
        return bool(found)

    def unused(self, not_judged: Collection[str] = ()) -> tuple[str, ...]:
        """The ignores that nothing was left out for, in words.

        `not_judged`: checks of `LAYER_CHECKS` that this run had no occasion for: ignoring them may
        be needed another time.
        """
        found = [
            f"gate.ignore {given}: nothing to ignore any more"
            for given, _ in self._ignore
            if f"gate.ignore {given}" not in self._needed
        ]
        for glob, given, _ in self._per_layer:
            setting = f"gate.per_layer_ignores {glob!r} {given}"
            if not any(self._matches(glob, name) for name in self._names):
                found.append(f"{setting}: matches no layer")
            elif setting not in self._needed and given not in not_judged:
                found.append(f"{setting}: nothing to ignore any more")
        return tuple(found)

    def _need(self, setting: str) -> str:
        self._needed.add(setting)
        return setting

    def _matches(self, glob: str, layer: str) -> bool:
        names: Iterable[str] = self._names.get(layer, (layer,))
        return any(fnmatchcase(name, glob) for name in names)


def _codes(glob: str, name: str) -> tuple[str, ...]:
    if name == EVERYTHING or name in LAYER_CHECKS:
        return (name,)
    return codes_of(f"gate.per_layer_ignores {glob!r}", [name])
