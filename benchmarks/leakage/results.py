"""The raw results: one entry a run, written after each, so that an interrupted benchmark goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Block = tuple[str, int]


@dataclass
class Results:
    """Figures by run, and the setting that they hold for.

    Attributes:
        setting: what all runs share; entries of another setting are dropped when a file is read.
        figures: by (variant, coverage, condition's key, seed), by name of the figure.
        names: by (variant, coverage): rows of the table as (group, name, condition's key).
        losses: by condition's key, what it trained with.
        path: where it is kept; None for nowhere.
    """

    setting: dict[str, Any]
    figures: dict[tuple[str, int, str, int], dict[str, float]] = field(default_factory=dict)
    names: dict[Block, list[tuple[str, str, str]]] = field(default_factory=dict)
    losses: dict[str, dict[str, Any]] = field(default_factory=dict)
    path: Path | None = None

    @classmethod
    def open(cls, path: Path | None, setting: dict[str, Any]) -> Results:
        """What `path` holds of this setting; empty if there is none."""
        results = cls(setting, path=path)
        if path is not None and path.is_file():
            stored = cls.load(path)
            if stored.setting == json.loads(json.dumps(setting)):
                results.figures = stored.figures
        return results

    @classmethod
    def load(cls, path: Path) -> Results:
        """A stored file, whatever its setting."""
        data = json.loads(path.read_text(encoding="utf-8"))
        results = cls(data["setting"], path=path)
        for block in data["blocks"]:
            place = block["variant"], block["coverage"]
            results.names[place] = [(row["group"], row["name"], row["key"]) for row in block["rows"]]
            for row in block["rows"]:
                results.losses[row["key"]] = row.get("loss", {})
                for seed, figures in row["figures"].items():
                    results.figures[(*place, row["key"], int(seed))] = figures
        return results

    def save(self) -> None:
        """Write the file, whole or not at all."""
        if self.path is None:
            return
        blocks = [
            {"variant": place[0], "coverage": place[1], "rows": [self._row(place, *row) for row in rows]}
            for place, rows in self.names.items()
        ]
        text = json.dumps({"setting": self.setting, "blocks": blocks}, indent=1)
        partial = self.path.with_suffix(".part")
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(self.path)

    def _row(self, place: Block, group: str, name: str, key: str) -> dict[str, Any]:
        seeds = {
            str(run[3]): {n: round(v, 5) for n, v in figures.items()}
            for run, figures in sorted(self.figures.items())
            if run[:3] == (*place, key)
        }
        return {"group": group, "name": name, "key": key, "loss": self.losses.get(key, {}), "figures": seeds}

    def rows(self, place: Block) -> Iterable[tuple[str, str, str]]:
        """(group, name, key) of a block's rows."""
        return self.names.get(place, [])

    def values(self, place: Block, name: str, figure: str) -> np.ndarray:
        """A figure of a row by name, one value a seed, in the order of the seeds.

        Raises:
            KeyError: the block has no such row.
        """
        keys = {n: key for _, n, key in self.rows(place)}
        runs = sorted(run for run in self.figures if run[:3] == (*place, keys[name]))
        return np.array([self.figures[run][figure] for run in runs])
