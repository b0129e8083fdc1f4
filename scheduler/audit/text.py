"""The report of an audit, for people."""

from __future__ import annotations

from workers.terminal import clean

from .report import Report

__all__ = ["render"]

_SHOWN = 20


def render(report: Report) -> str:
    """Return the verdicts as a table, then the first violations, then what else should be known."""
    head = f"{report.log}: {report.lines:,} lines, seq {report.first_seq} to {report.last_seq}, {report.seconds:.2f} s"
    lines = [head, ""]
    for finding in report.findings:
        counts = ", ".join(f"{number:,} {what}" for what, number in sorted(finding.counts.items()) if number)
        verdict = f"{finding.violations:,} WRONG" if finding.violations else finding.verdict
        lines.append(f"  {finding.guarantee:<8}  {verdict:<10}  {finding.title:<48}  {counts}".rstrip())
    shown = report.violations[:_SHOWN]
    if shown:
        lines += ["", *(clean(str(violation)) for violation in shown)]
        wrong = sum(finding.violations for finding in report.findings)
        if wrong > len(shown):
            lines.append(f"... and {wrong - len(shown):,} more; --json has up to 1,000")
    if report.notes:
        lines += ["", *(f"note: {clean(note)}" for note in report.notes[:_SHOWN])]
    lines += ["", "clean" if report.is_clean else "NOT clean"]
    return "\n".join(lines)
