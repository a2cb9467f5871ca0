"""The run itself: every repetition of every row on every engine, in turn."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from engines import agreement
from engines.peers import KINDS, OURS
from engines.process import EngineFailed, EngineProcess
from engines.prompts import Prompts
from engines.rows import PLAIN, SCORED, Figure, Row, warm_up
from engines.table import Results
from engines.tasks import Measured, Task

_MEMORY = Figure("peak memory of the model's process, MB", lambda measured: 0.0)
_TOKENS = Figure("check: greedy tokens before the first that differs from ours", lambda measured: 0.0)
_SCORES = Figure("check: largest difference of a score from ours", lambda measured: 0.0)
_CHECKS = {PLAIN.name: (_TOKENS,), SCORED.name: (_SCORES,)}


class Comparison:
    """Rows, engines and what was measured."""

    def __init__(self, rows: Sequence[Row], names: Sequence[str], checkpoint: Path) -> None:
        self.results = Results()
        self._rows = rows
        self._names = names
        self._checkpoint = checkpoint
        self._versions: dict[str, dict[str, str]] = {}

    @property
    def figures(self) -> list[Figure]:
        """All that the table shows, in order."""
        checks = [figure for row in self._rows for figure in _CHECKS.get(row.name, ()) if OURS in self._names]
        return [*(figure for row in self._rows for figure in row.figures), _MEMORY, *checks]

    def started(self, process: EngineProcess) -> None:
        """Wait for an engine's model, and warm it up. Raises EngineFailed."""
        sys.stderr.write(f"starting {process.name}\n")
        versions = process.wait()
        for needs, task in warm_up(Prompts(self._checkpoint, seed="warm-up")):
            if needs not in KINDS[process.name].lacks:
                process.run(task)
        self._versions[process.name] = versions

    def lacks_all(self, name: str, reason: str) -> None:
        """Note that an engine could not be started."""
        for figure in self.figures:
            self.results.lack(figure, name, reason)

    def run(self, processes: Sequence[EngineProcess], repetitions: int) -> None:
        """Measure everything."""
        running = [one for one in processes if one.name in self._versions]
        for repetition in range(repetitions):
            for row in self._rows:
                sys.stderr.write(f"repetition {repetition + 1} of {repetitions}: {row.name}\n")
                first = repetition % max(1, len(running))
                task = row.task(self._checkpoint, repetition)
                self._check(row, self._row(row, task, running[first:] + running[:first]))
        for process in running:
            try:
                self.results.add(_MEMORY, process.name, process.peak_bytes() / 1e6)
            except EngineFailed as error:
                self.results.lack(_MEMORY, process.name, str(error))

    def to_json(self, heading: str) -> str:
        """Return every number, and why some are missing."""
        fields = {"run": heading, "versions": self._versions, "samples": self.results.samples}
        return json.dumps({**fields, "missing": self.results.missing}, indent=1) + "\n"

    def _row(self, row: Row, task: Task, processes: Sequence[EngineProcess]) -> dict[str, Measured]:
        measured: dict[str, Measured] = {}
        for process in processes:
            try:
                if (reason := KINDS[process.name].lacks.get(row.needs)) is not None:
                    raise EngineFailed(reason)
                measured[process.name] = process.run(task)
            except EngineFailed as error:
                for figure in (*row.figures, *_CHECKS.get(row.name, ())):
                    self.results.lack(figure, process.name, str(error))
                continue
            for figure in row.figures:
                self.results.add(figure, process.name, figure.of(measured[process.name]))
        return measured

    def _check(self, row: Row, measured: dict[str, Measured]) -> None:
        ours = measured.pop(OURS, None)
        if ours is None:
            return
        for name, other in measured.items():
            if row is PLAIN:
                self.results.add(_TOKENS, name, agreement.same_tokens(ours, other))
            elif row is SCORED:
                self.results.add(_SCORES, name, agreement.score_difference(ours, other))
