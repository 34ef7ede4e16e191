"""What a benchmark has found."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BenchmarkReport:
    """Measurements as values and as words.

    Attributes:
        kind: "speed", "accuracy" or "train".
        values: plain values, for JSON; see `unetctl.jobs.benchmark_speed.speed`,
            `unetctl.jobs.benchmark_accuracy.accuracy` and `unetctl.jobs.benchmark_train.train_speed`.
        text: one line each, for people.
    """

    kind: str
    values: dict[str, Any]
    text: tuple[str, ...]

    def lines(self) -> list[str]:
        """For people."""
        return list(self.text)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"benchmark": self.kind, **self.values}

    def to_json(self) -> str:
        """One object."""
        return json.dumps(self.to_dict(), indent=1)
