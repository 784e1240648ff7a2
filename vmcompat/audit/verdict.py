"""The verdict: five sentences, each computed from the frames and citing what it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from vmcompat.audit.case import Case
from vmcompat.baseline.answer import some
from vmcompat.markup import count, unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """One sentence of the verdict.

    Attributes
    ----------
    told : str
    ids : tuple of str
        The findings that it counts.
    colour : {"red", "amber", "unknown", "green"}
    """

    told: str
    ids: tuple[str, ...] = ()
    colour: str = "green"


def verdict(case: Case, findings: pd.DataFrame) -> tuple[Sentence, ...]:
    """Coverage, security, conformance, mobility, and what to do first.

    Parameters
    ----------
    case : Case
    findings : DataFrame
        Columns of ``schema.AUDIT``.
    """
    return (
        _coverage(case, findings),
        _security(case, findings),
        _conformance(case, findings),
        _mobility(case, findings),
        _first(case, findings),
    )


def _coverage(case: Case, findings: pd.DataFrame) -> Sentence:
    fleet = case.fleet
    told = f"The CPU of {len(fleet.features)} of {count(len(fleet), 'host')} is known"
    told += f" ({'what the hypervisor can give' if fleet.view == 'hypervisor' else 'what the host itself is'})"
    statuses = fleet.hosts.loc[fleet.unknown, "cpu_status"].to_dict()
    if statuses:
        told += f", not that of {unknown(statuses)}"
    absent = [
        what
        for what, given in (
            ("guests", case.domains),
            ("a deployed baseline", case.deployed),
            ("an earlier report", case.before),
            ("waivers", case.waivers),
        )
        if given is None
    ]
    if case.domains is not None:
        n_live, n_running = int(case.domains.frame["live"].sum()), _n_running(case.domains.frame)
        told += f"; of {count(len(case.domains), 'guest')} {n_running} run"
        told += f", and of {n_live} of these the CPU that they run with was given" if n_live != n_running else ""
    if absent:
        told += f"; not given, and so not judged: {', '.join(absent)}"
    ids = findings.index[(findings["kind"] == "coverage") & (findings["severity"] == "unknown")]
    return Sentence(told=told + ".", ids=tuple(ids), colour="unknown" if statuses or absent else "green")


def _n_running(guests: pd.DataFrame) -> int:
    return int((guests["state"].notna() & (guests["state"] != "shut off")).sum())


def _security(case: Case, findings: pd.DataFrame) -> Sentence:
    found = findings[findings["kind"] == "security"]
    still, waived = found[found["status"] != "waived"], int((found["status"] == "waived").sum())
    expired = int((found["status"] == "waiver expired").sum())
    red, amber = still[still["severity"] == "red"], still[still["severity"] == "amber"]
    judged = f"over the {count(len(case.guest_view.features), 'host')} that say what guests are offered"
    beside = "".join(
        [f"; {count(waived, 'finding is', 'findings are')} waived" if waived else "",
         f"; {count(expired, 'waiver has', 'waivers have')} expired" if expired else ""]
    )  # fmt: skip
    if still.empty:
        return Sentence(told=f"Security: nothing found {judged}{beside}.", colour="green")
    told = f"Security: {count(len(red), 'red finding')} and {len(amber)} amber {judged}{beside}"
    what = _subjects(red if len(red) else amber)
    return Sentence(
        told=f"{told}: {what}.", ids=tuple(red.index if len(red) else amber.index),
        colour="red" if len(red) else "amber",
    )  # fmt: skip


_CODES = {
    "CONTROL_LACKING": "{n} without a mitigation control that the same processor has elsewhere ({who})",
    "CONTROL_LOST": "{n} whose guests cannot use a control that some of its hosts have ({who})",
    "CONTROL_NOT_PASSED_ON": "{n} that does not pass a control on to guests ({who})",
    "GUEST_WITHOUT_CONTROL": "{n} running without a control that its host would give ({who})",
    "IMMUNITY_STALE": "{n} told to be immune on a host that is not ({who})",
    "HAZARD_HIDDEN": "{n} whose guests are not told of a hazard ({who})",
}
_NOUNS = {"CONTROL_LACKING": "host", "CONTROL_NOT_PASSED_ON": "host", "CONTROL_LOST": "group", "HAZARD_HIDDEN": "group"}


def _subjects(found: pd.DataFrame) -> str:
    codes = found.index.str.partition(":").get_level_values(0) if len(found) else ()
    told = []
    for code in dict.fromkeys(codes):
        subjects = list(dict.fromkeys(found["subject"][codes == code]))
        noun = count(len(subjects), _NOUNS.get(code, "guest"))
        told.append(_CODES[code].format(n=noun, who=some(subjects, 3)))
    return "; ".join(told)


def _conformance(case: Case, findings: pd.DataFrame) -> Sentence:
    ids = _ids(findings, "NOT_CONFORMING", "CONFORMANCE_UNKNOWN", "TWIN_DIFFERS")
    n = case.twins.frame["group"].nunique()
    alike = " and ".join(case.twins.by)
    same = (
        f"{count(n, 'group')} of {case.twins.n_groups} alike by {alike} {'is' if n == 1 else 'are'} no longer identical"
    )
    if not case.twins.n_groups:
        same = f"no two known hosts are alike by {alike}, so that no twins could be compared"
    if case.conformance is None:
        return Sentence(told=f"{same[0].upper()}{same[1:]}.", ids=ids, colour="amber" if n else "green")
    verdicts = case.conformance.frame["conforms"].value_counts()
    yes, no, unknown = (int(verdicts.get(v, 0)) for v in ("yes", "no", "unknown"))
    told = f"{yes} of {count(len(case.fleet), 'host')} satisfy what is deployed, {no} do not, and of {unknown} it is "
    colour = "red" if no else "unknown" if unknown else "amber" if n else "green"
    return Sentence(told=f"{told}not known; {same}.", ids=ids, colour=colour)


def _ids(findings: pd.DataFrame, *codes: str) -> tuple[str, ...]:
    return tuple(i for i in findings.index if i.partition(":")[0] in codes)


def _mobility(case: Case, findings: pd.DataFrame) -> Sentence:
    if case.reach is None or case.domains is None:
        return Sentence(told="Where guests can go is not known, for none were given.", colour="unknown")
    found = case.reach.domains
    managed = (found["verdict"] != "free") & (found["n_by_manager"] > 0)
    free, stuck, unknown = (int(((found["verdict"] == v) & ~managed).sum()) for v in ("free", "stuck", "unknown"))
    told = f"{free} of {count(len(found), 'guest')} can go to another host today"
    told += f", {managed.sum()} more if their manager moves them" if managed.any() else ""
    told += f", {stuck} to none" + (f", and of {unknown} that is not known" if unknown else "")
    by = found.loc[(found["verdict"] == "stuck") & ~managed, "held_by"].explode().value_counts()
    if len(by):
        told += "; held by " + ", ".join(f"{check} ({n})" for check, n in by.items())
    return Sentence(
        told=told + ".", ids=_ids(findings, "STUCK", "PERHAPS_STUCK"),
        colour="amber" if stuck else "unknown" if unknown else "green",
    )  # fmt: skip


def _first(case: Case, findings: pd.DataFrame) -> Sentence:
    """What to do first: the remedies of what is worst, then the moves."""
    still = findings[(findings["status"] != "waived") & findings["severity"].isin(["red", "unknown"])]
    subjects = _most(still.loc[still.index.str.startswith(("CONTROL_LACKING:", "NOT_CONFORMING:")), "subject"])
    steps = [f"mend {some(subjects, 4)}"] if subjects else []
    unread = _most(still.loc[still["kind"] == "coverage", "subject"])
    steps += [f"read {some(unread, 4)} again"] if unread else []
    told = f"First {', then '.join(steps)}; " if steps else ""
    if case.plan is None:
        told += f"no moves are recommended: {case.no_plan}"
        return Sentence(told=f"{told[0].upper()}{told[1:]}.", ids=tuple(still.index), colour="unknown")
    plan = case.plan
    proof = (
        "no other pools within these bounds are better" if plan.optimal else f"others win at most {plan.gap:.1%} more"
    )
    if not len(plan.moves):
        told += f"no move of a host makes the {count(len(plan.frame), 'pool')} better ({proof})"
    else:
        moved = [f"{host} to {pool}" for host, pool in plan.moves["pool"].items()]
        won = f", which wins {plan.won:,.0f}" if plan.won is not None else ""
        told += f"move {some(moved, 4)}{won} ({proof})"
        odd = {host for hosts in case.twins.frame["hosts"] for host in hosts}
        if first := [str(host) for host in plan.moves.index if host in odd]:
            told += f"; {some(first)} {'is a twin' if len(first) == 1 else 'are twins'} that differ"
            told += f"{'s' if len(first) == 1 else ''}: mend before moving, and ask again"
    return Sentence(told=f"{told[0].upper()}{told[1:]}.", ids=tuple(still.index), colour="amber" if steps else "green")


def _most(subjects: Iterable[str]) -> Sequence[str]:
    return list(dict.fromkeys(subjects))
