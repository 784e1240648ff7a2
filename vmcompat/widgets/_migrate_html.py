"""The migration widget's answer as HTML: verdict, findings, steps, diff, commands, the run and its row."""

from __future__ import annotations

from html import escape
from typing import Final

from vmcompat.baseline.answer import some
from vmcompat.connect import shown
from vmcompat.markup import Cell, count, download, note, number, page, refusal, table, text
from vmcompat.migration.migrate import GLYPHS, MigrationPlan
from vmcompat.migration.order import MigrationResult
from vmcompat.migration.preflight import STOPS, Finding
from vmcompat.widgets._migrate_state import MigrateState
from vmcompat.widgets.progress import chart, in_words

_NO_PLAN: Final = "No plan yet."
_HEAD: Final = (
    "domain", "from", "to", "outcome", "restarted", "baseline", "not given", "forced", "started (UTC)", "took [s]",
    "downtime [ms]", "sent [MiB]", "passes",
)  # fmt: skip


def render(state: MigrateState) -> dict[str, str]:
    """The page in its parts: those of :func:`happening`, ``findings``, ``diff`` and ``commands``."""
    plan = state.plan
    if plan is None:
        return happening(state) | dict.fromkeys(("findings", "diff", "commands"), page(note(_NO_PLAN)))
    return happening(state) | {
        "findings": page(_findings(state), _steps(plan)),
        "diff": page(_diff(plan)),
        "commands": page(_commands(plan)),
    }


def happening(state: MigrateState) -> dict[str, str]:
    """The parts that change while a guest moves: ``message``, ``status``, ``arming``, ``progress`` and ``results``."""
    arming = state.unarmed or "armed"
    return {
        "message": page(_message(state)),
        "status": page(_status(state)),
        "arming": page(f"<span class='{'faint' if state.unarmed else 'alarm'}'>{escape(arming)}</span>"),
        "progress": page(_progress(state)),
        "results": page(_results(state)),
    }


def force_label(finding: Finding) -> str:
    """A risk or unknown in plain text, for the box to tick; what was seen is in the table below it."""
    return f"{GLYPHS[finding.severity]} {finding.severity} {finding.id}"


def _message(state: MigrateState) -> str:
    if not state.message:
        return ""
    typed = f"<div>Next:</div><pre class='vmcompat-next'>{escape(state.next)}</pre>" if state.next else ""
    return f"{refusal(state.message)}{typed}"


def _status(state: MigrateState) -> str:
    plan, here = state.plan, shown(state.source)
    if state.phase == "listing":
        return _working(f"asking {here} what runs there ...")
    if state.phase == "planning":
        return _working(f"looking at {here} and {shown(state.target)} ...")
    if plan is None and state.domain is None:
        run = "runs" if len(state.domains) == 1 else "run"
        return escape(f"{count(len(state.domains), 'domain')} {run} on {here}: choose one, a target, and press Plan.")
    if plan is None:
        return "Press Plan: both hosts are asked, and nothing is changed."
    names = escape(f"{plan.order.domain}: {plan.seen.source.name} → {plan.seen.target.name}")
    if plan.blocked:
        verdict = f"<b class='alarm'>✗ blocked by {escape(', '.join(f.id for f in plan.order.stops))}</b>"
    else:
        verdict = "<b>✓ may run</b>"
    forced = f" · passed at your word: {escape(', '.join(plan.order.forced))}" if plan.order.forced else ""
    counted = [f"{n} {severity}" for severity in (*STOPS, "warn", "ok")
               if (n := sum(f.severity == severity for f in plan.order.findings))]  # fmt: skip
    told = f"{names} · {verdict}{forced} · <span class='faint'>{', '.join(counted)}</span>"
    return f"<div class='vmcompat-verdict'>{told}</div>"


def _working(words: str) -> str:
    return f"<div class='note vmcompat-working'>{escape(words)}</div>"


def _findings(state: MigrateState) -> str:
    rows = []
    for finding in state.findings:
        kind = {"ok": "faint", "warn": ""}.get(finding.severity, "alarm")
        passed = " (passed)" if state.plan and finding.id in state.plan.order.forced else ""
        words = escape(f"{GLYPHS[finding.severity]} {finding.severity}{passed}")
        faint = " faint" if finding.severity == "ok" else ""
        rows.append(
            [
                Cell(words, kind),
                Cell(escape(finding.id), kind),
                Cell(escape(finding.evidence), f"wide{faint}"),
                Cell(escape(finding.remedy), f"wide{faint}"),
            ]
        )
    return table(["severity", "check", "what was seen", "what to do"], rows, name="vmcompat-checks")


def _steps(plan: MigrationPlan) -> str:
    steps = "".join(f"<li>{escape(step)}</li>" for step in plan.steps)
    keeps = "The running guest keeps its CPU until it is powered off and on again."
    return (
        f"<h4>{'What it would do' if plan.blocked else 'What it does'}</h4><ol class='vmcompat-steps'>{steps}</ol>"
        f"{note(keeps) if plan.diff and not plan.order.restart and plan.seen.live else ''}"
    )


def _diff(plan: MigrationPlan) -> str:
    if not plan.diff:
        return note(f"The stored definition of {plan.order.domain} stays as it is.")
    lines = []
    for line in plan.diff.splitlines():
        colour = {"+": "#116329", "-": "#b3121d"}.get(line[:1])
        lines.append(f"<span style='color:{colour}'>{escape(line)}</span>" if colour else escape(line))
    link = download(plan.diff, name=f"{plan.order.domain}.patch", kind="text/x-diff", words="download")
    body = "\n".join(lines)
    return f"<h4>What changes in the stored definition · {link}</h4><pre class='vmcompat-patch'>{body}</pre>"


def _commands(plan: MigrationPlan) -> str:
    script = plan.commands()
    link = download(script, name=f"{plan.order.domain}.migrate.sh", kind="text/x-shellscript", words="download")
    why = refusal("The plan is blocked, so that its commands are comments.") if plan.blocked else ""
    return (
        f"{why}<h4>The same steps for a shell, as a change ticket takes them (one click selects all) · {link}</h4>"
        f"<pre class='vmcompat-script'>{escape(script)}</pre>"
    )


def _progress(state: MigrateState) -> str:
    if not state.moved or (not state.samples and not state.said):
        return ""
    shown_now = chart(state.samples, title=state.moved)
    words = in_words(state.samples)
    if state.phase in ("running", "aborting"):
        kind = "alarm" if state.phase == "aborting" else ""
        said = f"<div class='note vmcompat-said'><b class='{kind}'>{escape(state.said)}</b><br>{escape(words)}</div>"
        return f"{said}{shown_now}"
    return f"{shown_now}<div class='faint'>At the last look: {escape(words)}</div>"


def _results(state: MigrateState) -> str:
    if not state.results:
        return ""
    rows = [_row(result) for result in state.results]
    return (
        f"<h4>{count(len(rows), 'run')} in this widget, the newest first</h4>{_in_short(state.results[0])}"
        f"<div class='wider'>{table(_HEAD, rows, numbers=4, name='vmcompat-outcome')}</div>"
    )


def _in_short(newest: MigrationResult) -> str:
    if newest.outcome != "migrated":
        return ""  # the message above says more
    still = "" if newest.downtime_ms is None else f" It stood still for {newest.downtime_ms:,} ms."
    more = f" {newest.message[:1].upper()}{newest.message[1:]}." if newest.message else ""
    return f"<div class='vmcompat-moved'>✓ {escape(f'{newest.domain} runs on {newest.target}.{still}{more}')}</div>"


def _row(result: MigrationResult) -> list[Cell]:
    sent = None if result.transferred is None else result.transferred / 2**20
    return [
        text(result.domain),
        text(result.source),
        text(result.target),
        Cell(f"<b>{escape(result.outcome)}</b>", "" if result.outcome == "migrated" else "alarm", result.message),
        text("yes" if result.restarted else "no"),
        text(result.baseline or "–"),
        text(some(result.not_given, 4) if result.not_given else "–"),
        text(", ".join(result.forced) or "–"),
        text(f"{result.started:%Y-%m-%d %H:%M:%S}"),
        number(result.seconds, form=",.1f"),
        number(result.downtime_ms),
        number(sent),
        number(result.iterations),
    ]
