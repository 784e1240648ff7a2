"""A failure of libvirt, QEMU or nova, as it was copied from a terminal, a log or a page: what it means, what to do."""

from __future__ import annotations

import html
import re
import shlex
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from typing import Final, NamedTuple

import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.errors import DocumentError
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.frames import Fleet
from vmcompat.migration.wordings import LOGS, UNKNOWN, UNKNOWN_CAUSE, WORDINGS, Wording
from vmcompat.schema import ERRORS_EXPLAINED, frame

MAX_CHARACTERS: Final = 1_000_000
_MAX_FEATURES: Final = 1_000  # twice what the newest map knows
_LONGEST: Final = 60  # characters of a name, and room around it
_SHOWN: Final = 300  # characters of the text itself

_COLOURS: Final = re.compile(r"\x1b\[[0-9;]{0,20}[A-Za-z]")
_INSIDE: Final = re.compile(r"</?(?:a|b|code|em|font|i|kbd|samp|span|strong|tt)(?: [^<>]{0,300})?>", re.IGNORECASE)
_AROUND: Final = re.compile(r"</?(?:br|div|li|p|pre|table|tbody|td|th|tr|ul)(?: [^<>]{0,300})?/?>", re.IGNORECASE)
_ESCAPES: Final = re.compile(r"\\(?:[nrt]|u[0-9a-fA-F]{4}|[\"'])")
# 2026-11-24 20:18:40.590 8 ERROR oslo_messaging.rpc.server [req-...]: in front of each line of what is one message
_PREFIX: Final = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,\d]{0,12}(?:Z|[+-]\d\d:?\d\d)?:? (?:\d{1,8}:? )?"
    r"(?:(?:CRITICAL|ERROR|WARNING|INFO|DEBUG|TRACE) [\w.-]{1,100} ?)?(?:\[[^\]]{0,400}\] ?)?"
)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
# What virConnectCompareCPU returns, of which nova prints the number.
_COMPARED: Final = {
    "-1": "the answer -1 is that the comparison itself failed: a name in that CPU that the libvirt there does not "
    "know, or "
    "no host CPU to compare with",
    "0": "the answer 0 is no: the CPUs are incompatible, and which features are missing nova does not pass on",
    "1": "the answer 1 is that the CPUs are identical, which is no reason to refuse",
    "2": "the answer 2 is that the host can give more than is asked, which is no reason to refuse",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that a text says went wrong.

    Attributes
    ----------
    kind : str
        Stable id, such as ``CPU_MISSING_FEATURES``; ``"unknown"`` where the text says nothing that is known.
    features : tuple of str
        CPU features that it names, as libvirt spells them.
    cause, remedy : str
        What happened, in a sentence, and what to type. GUEST, SOURCE and TARGET stand for the guest and for the URIs of
        the hosts that it was to leave and to reach.
    text : str
        The words that say so, at most 300 characters.
    line : int
        Where they begin, from 1.
    weight : {"cause", "symptom", "warning"}
        What stops a guest, what follows from something else, and what stops nothing by itself.
    lack, have, cannot_tell : tuple of str
        Hosts of the fleet: known to lack one of the features, to offer all, and neither. Empty without a fleet.
    """

    kind: str
    features: tuple[str, ...] = ()
    cause: str
    remedy: str
    text: str
    line: int
    weight: str = "cause"
    lack: tuple[str, ...] = ()
    have: tuple[str, ...] = ()
    cannot_tell: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Explanation:
    """What a failure means. Made by :func:`explain_error`.

    Attributes
    ----------
    problems : tuple of Problem
        Causes first, then symptoms, then warnings, each in the order of the text; never empty.
    """

    problems: tuple[Problem, ...]

    @property
    def kind(self) -> str:
        """Of the first problem."""
        return self.problems[0].kind

    @property
    def cause(self) -> str:
        """Of the first problem."""
        return self.problems[0].cause

    @property
    def remedy(self) -> str:
        """Of the first problem."""
        return self.problems[0].remedy

    @cached_property
    def features(self) -> tuple[str, ...]:
        """CPU features that the text names, whatever it says of them."""
        return tuple(dict.fromkeys(name for p in self.problems for name in p.features))

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row a problem: columns of ``schema.ERRORS_EXPLAINED``."""
        return frame(ERRORS_EXPLAINED, ({c: getattr(p, c) for c in ERRORS_EXPLAINED} for p in self.problems))

    def explain(self) -> list[str]:
        """One sentence a problem, with what to do and, given a fleet, where the features are."""
        return [_sentence(problem) for problem in self.problems]

    def __repr__(self) -> str:
        others = [p.kind for p in self.problems[1:]]
        return f"<Explanation {self.kind}: {self.cause}{f'; also {some(others)}' if others else ''}>"

    def _repr_html_(self) -> str:
        told = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.explain())
        return f"<p>{html.escape(repr(self)[1:-1])}</p><ul>{told}</ul>"


def explain_error(text: str, *, fleet: Fleet | None = None) -> Explanation:
    """Says what a failed migration or start of a guest was about.

    Parameters
    ----------
    text : str
        What libvirt, virsh, QEMU or nova printed: one message or many lines, with what a log, a terminal, JSON, YAML or
        HTML puts around it.
    fleet : Fleet, optional
        Its hosts are divided into those that lack the features that the text names, and those that have them, as its
        view shows them.

    Returns
    -------
    Explanation
        Of kind ``"unknown"``, with the places where to look, where the text says nothing that is known here.

    Raises
    ------
    DocumentError
        The text is empty, or longer than a million characters.

    Notes
    -----
    Linear in the length of the text.

    Examples
    --------
    >>> import vmcompat as vc
    >>> said = "error: operation failed: guest CPU doesn't match specification: missing features: avx2,hle"
    >>> found = vc.explain_error(said, fleet=vc.read_fleet("sample_caps/mixed").select("rack == 'ams-r1'"))
    >>> found.kind, found.features
    ('CPU_MISSING_FEATURES', ('avx2', 'hle'))
    >>> found.problems[0].have
    ('ams-r1-h04', 'ams-r1-h07')
    """
    if len(text) > MAX_CHARACTERS:
        raise DocumentError(f"{len(text)} characters: cut it down to the lines around the failure", source="error text")
    if not text.strip():
        raise DocumentError("is empty; paste what libvirt, QEMU or nova printed", source="error text")
    read = _Text.of(text)
    problems = _merged(_without_introductions(_found(read.words)), read)
    if not problems:
        shown = read.words[:_SHOWN]
        problems = [Problem(kind=UNKNOWN, cause=UNKNOWN_CAUSE, remedy=LOGS, text=shown, line=read.line_of(0))]
    order = ("cause", "symptom", "warning")
    problems.sort(key=lambda p: order.index(p.weight))  # stable: else in the order of the text
    if fleet is not None:
        problems = [_placed(problem, fleet) for problem in problems]
    return Explanation(problems=tuple(problems))


class _Text(NamedTuple):
    """A text without what surrounds the words, these a single blank apart, and where each line begins in them."""

    words: str
    starts: list[int]
    lines: list[int]

    @staticmethod
    def of(text: str) -> _Text:
        starts, lines, pieces, at = [], [], [], 0
        for number, line in enumerate(text.splitlines(), 1):
            words = _cleaned(line)
            if words:
                starts.append(at)
                lines.append(number)
                pieces.append(words)
                at += len(words) + 1
        return _Text(" ".join(pieces), starts, lines)

    def line_of(self, position: int) -> int:
        return self.lines[bisect_right(self.starts, position) - 1] if self.lines else 1


def _cleaned(line: str) -> str:
    """One line's words: no colours, tags, escapes, control characters, nor the time and origin in front."""
    line = _COLOURS.sub("", line) if "\x1b" in line else line
    line = _AROUND.sub(" ", _INSIDE.sub("", line)) if "<" in line else line
    if "&" in line:
        line = html.unescape(html.unescape(line))  # a page shown in a page
    if "\\" in line:
        line = _ESCAPES.sub(_unescaped, line)
    line = line.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").replace("''", "'")
    line = "".join(c if c.isprintable() else " " for c in line) if not line.isprintable() else line
    words = " ".join(line.split())
    prefix = _PREFIX.match(words)
    return words[prefix.end() :] if prefix else words


def _unescaped(match: re.Match[str]) -> str:
    what = match[0][1:]
    if what[0] == "u":
        return chr(int(what[1:], 16))
    return " " if what in "nrt" else what


class _Match(NamedTuple):
    """Where a wording was found, and the CPU features that it names, as they stand there."""

    wording: Wording
    start: int
    end: int
    groups: Mapping[str, str]
    names: tuple[str, ...]


def _found(words: str) -> list[_Match]:
    """All that is known in the text, in its order; of wordings that overlap, the one that comes first in the table."""
    found: list[_Match] = []
    taken: list[tuple[int, int]] = []
    for wording in WORDINGS:
        own = []
        for hit in wording.pattern.finditer(words):
            groups = {k: v for k, v in hit.groupdict().items() if v}
            names, end = _listed(words, hit.end()) if wording.lists and "feature" not in groups else ((), hit.end())
            if not _overlaps(taken, hit.start(), end):
                feature = (groups["feature"],) if "feature" in groups else ()
                own.append(_Match(wording, hit.start(), end, groups, feature or names))
        found += own
        taken = sorted([*taken, *((m.start, m.end) for m in own)])
    return sorted(found, key=lambda m: m.start)


def _overlaps(taken: list[tuple[int, int]], start: int, end: int) -> bool:
    at = bisect_right(taken, (start, start))
    before = at > 0 and taken[at - 1][1] > start
    return before or (at < len(taken) and taken[at][0] < end)


def _listed(words: str, start: int) -> tuple[tuple[str, ...], int]:
    """The names in a list that begins there, and where it ends: libvirt separates by a comma, with or without blank."""
    names: list[str] = []
    known, at, end = CpuMap.load().index, start, start
    while len(names) < _MAX_FEATURES:
        comma = words.find(",", at, at + _LONGEST)
        item = words[at : comma if comma >= 0 else at + _LONGEST]
        name = _NAME.match(item.lstrip())
        word = name[0].rstrip(".-") if name else ""
        rest = item.lstrip()[len(word) :]
        if not word or rest.startswith(" features:") or (names and rest[:1] == " " and _spelled(word) not in known):
            break
        names.append(word)
        end = words.index(word, at) + len(word)
        if rest or comma < 0:  # behind the last name the text goes on
            break
        at = comma + 1
    return tuple(names), end


def _without_introductions(found: list[_Match]) -> Iterator[_Match]:
    """Leaves out a symptom whose words only lead over to the next problem: "guest CPU doesn't match: missing ..."."""
    for match, following in zip_longest(found, found[1:]):
        leads_over = following is not None and following.start - match.end <= len(": ")
        if not (match.wording.weight == "symptom" and leads_over):
            yield match


def _merged(found: Iterator[_Match], read: _Text) -> list[Problem]:
    """One problem for all that says the same, one for all warnings of a kind, and one for each symptom."""
    groups: dict[tuple[object, ...], list[_Match]] = {}
    for match in found:
        alike = match.wording.weight != "cause" or "feature" in match.groups
        details = () if alike else (match.names, tuple(match.groups.items()))
        groups.setdefault((match.wording, *details), []).append(match)
    return [_problem(same, read) for same in groups.values()]


def _problem(same: list[_Match], read: _Text) -> Problem:
    first = same[0]
    features = tuple(dict.fromkeys(_spelled(name) for match in same for name in match.names))
    unnamed = dict.fromkeys(
        f"{m.groups['register']} {m.groups['bit']}" for m in same if "register" in m.groups and not m.names
    )
    named = {k: v for k, v in first.groups.items() if k not in ("feature", "register", "bit", "why")}
    name, why = next(iter(named.values()), ""), first.groups.get("why")
    told = {
        "new": "", "old": "", **named, "name": name,
        "features": ", ".join([*features, *unnamed]) or "features that it does not name",
        "which": f" ({name})" if name else "",
        "reason": f": {why}" if why else "",
        "guest": shlex.quote(name) if name else "GUEST",
        "verdict": _COMPARED.get(first.groups.get("answer", ""), "the text does not hold libvirt's answer"),
        "beyond": _beyond(first.groups),
    }  # fmt: skip
    wording = first.wording
    return Problem(
        kind=wording.kind,
        features=features,
        cause=wording.cause.format_map(told),
        remedy=wording.remedy.format_map(told),
        text=read.words[first.start : first.end][:_SHOWN],
        line=read.line_of(first.start),
        weight=wording.weight,
    )


def _beyond(groups: Mapping[str, str]) -> str:
    """The bits of a virtio device that are used and not there."""
    if "allowed" not in groups:
        return ""
    used, allowed = (int(groups[key], 16) for key in ("name", "allowed"))
    bits = [str(bit) for bit in range(64) if (used & ~allowed) >> bit & 1]
    return f"bit{'s' * (len(bits) > 1)} {', '.join(bits)}" if bits else "which, its own numbers do not show"


def _spelled(name: str) -> str:
    """A feature by libvirt's name; QEMU and Linux have others for some, and change - for _."""
    known = CpuMap.load()
    others = {other: ours for ours, theirs in known.aliases.items() for other in theirs}
    candidates = (name, others.get(name, name), name.replace("-", "_"), name.replace("_", "-"), name.lower())
    return next((c for c in candidates if c in known.index), name)


def _placed(problem: Problem, fleet: Fleet) -> Problem:
    """With the hosts of the fleet that lack the features, and those that have them."""
    if not problem.features:
        return problem
    places: dict[str, list[str]] = {"lack": [], "have": [], "cannot_tell": []}
    asked = fleet.cpu_map.set_of(problem.features)
    strange = {name for name in problem.features if name not in fleet.cpu_map.index}
    for host, reading in zip(fleet.names, fleet.readings, strict=True):
        if reading.status != "ok":
            place = "cannot_tell"
        elif asked & ~reading.offered & reading.reported:
            place = "lack"
        else:
            place = "cannot_tell" if asked & ~reading.offered or strange - reading.beyond else "have"
        places[place].append(host)
    lack, have, cannot_tell = (tuple(places[place]) for place in ("lack", "have", "cannot_tell"))
    return replace(problem, lack=lack, have=have, cannot_tell=cannot_tell)


def _sentence(problem: Problem) -> str:
    told = f"{problem.kind} (line {problem.line}): {problem.cause}. To do: {problem.remedy}"
    if problem.lack or problem.have or problem.cannot_tell:
        it = ("all of these features", "some of them") if len(problem.features) > 1 else (problem.features[0], "it")
        told += f". In the fleet {_hosts(problem.have, 'has', 'have')} {it[0]}, "
        told += f"{_hosts(problem.lack, 'lacks', 'lack')} {it[1]}"
        told += f", and of {some(problem.cannot_tell)} it cannot be told" if problem.cannot_tell else ""
    return told


def _hosts(names: tuple[str, ...], one: str, many: str) -> str:
    return f"{some(names) or 'no host'} {one if len(names) < 2 else many}"
