"""What the doctor finds, as data and as a block of text to paste into a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: What was checked.
        problems: One line each; none if all is well.
        figures: What was measured, by name.
        seconds: What the check took.
    """

    name: str
    problems: tuple[str, ...] = ()
    figures: Mapping[str, float | str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """All findings, and the machine they were made on."""

    machine: Mapping[str, str]
    findings: tuple[Finding, ...]

    @property
    def is_well(self) -> bool:
        """Whether no check found a problem."""
        return not any(finding.problems for finding in self.findings)

    @property
    def problems(self) -> list[str]:
        """Each problem in a line that begins with the check's name."""
        return [f"{finding.name}: {problem}" for finding in self.findings for problem in finding.problems]

    def block(self) -> str:
        """Everything, for pasting into a report."""
        width = max(len(finding.name) for finding in self.findings)
        lines = [f"{name}: {value}" for name, value in self.machine.items()]
        for finding in self.findings:
            state = "FAILED" if finding.problems else "ok"
            figures = ", ".join(f"{name} {_short(value)}" for name, value in finding.figures.items())
            lines.append(f"{finding.name:{width}}  {state:6}  {finding.seconds:5.1f} s  {figures}".rstrip())
        return "\n".join([*lines, *(f"problem: {problem}" for problem in self.problems)])

    def to_json(self) -> str:
        """Everything, for programs."""
        findings = [
            {
                "name": finding.name,
                "problems": list(finding.problems),
                "figures": dict(finding.figures),
                "seconds": finding.seconds,
            }
            for finding in self.findings
        ]
        return json.dumps({"machine": dict(self.machine), "findings": findings}, indent=2)


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"
