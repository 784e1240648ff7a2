"""The pool planner's answer as HTML: the curve, today against the proposal, moves, and files to take away."""

from __future__ import annotations

from html import escape
from typing import Any, Final, cast

import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.baseline.meanings import in_words
from vmcompat.baseline.pools import Pools
from vmcompat.errors import VmcompatError
from vmcompat.markup import Cell, count, details, download, inert, note, number, page, refusal, table, text, unknown
from vmcompat.widgets._plan import PoolsState

_COLUMNS: Final = ("model", "level", "hosts", "features", "controls lost", "capabilities lost")
_MOST: Final = 60  # rows of a table; what is not shown is counted, and is in the files
_WIDTH: Final = 620  # of the curve [px]
_HEIGHT: Final = 206
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 90, 24, 46
_BLUE: Final = "#17507e"
_ORANGE: Final = "#c26a00"


def render(state: PoolsState) -> dict[str, str]:
    """The page in its parts: those of :func:`progress`, ``proposal``, ``moves`` and ``export``."""
    found = state.answer
    parts = progress(state)
    if not isinstance(found, Pools):
        why = note("not solved yet" if found is None else "Nothing can be proposed: see above.")
        return parts | {"proposal": page(why), "moves": page(why), "export": page(why)}
    return parts | {
        "proposal": page(*_proposal(state, found)),
        "moves": page(_moves(found)),
        "export": page(*_export(found)),
    }


def progress(state: PoolsState) -> dict[str, str]:
    """The parts that change while more of the curve is solved: ``status`` and ``curve``."""
    return {"status": _status(state), "curve": page(_curve(state))}


def _status(state: PoolsState) -> str:
    found, told = state.answer, []
    if found is None:
        told.append(f"<div class='note vmcompat-working'>solving for {count(state.k, 'pool')} ...</div>")
    elif isinstance(found, str):
        told.append(refusal(found))
    else:
        told.append(f"<div class='vmcompat-verdict'>{escape(found.explain()[0])}.</div>")
        if found.missing:
            told.append(note(f"In no pool, since their CPU is not known: {unknown(state.unknown)}"))
        if warnings := [w for w in found.warnings if not w.startswith("without ")]:
            items = "".join(f"<li>{escape(w)}</li>" for w in warnings)
            told.append(details(f"{count(len(warnings), 'thing')} to know before using it", f"<ul>{items}</ul>"))
    told += [note(w) for w in state.notes]
    if found is not None and state.open:
        points = count(len(state.open), "point")
        told.append(f"<div class='faint vmcompat-working'>solving: {points} of the curve still to come</div>")
    return page(*told)


def _curve(state: PoolsState) -> str:
    """Value kept against the number of pools; a bar up to the bound where a point is not proven."""
    solved = {k: p for k, p in state.found.items() if isinstance(p, Pools)}
    if not solved:
        return ""
    today = next((p.today for p in solved.values()), None)
    values = [v for p in solved.values() for v in (p.value, p.bound)] + ([] if today is None else [today])
    low, high = min(values), max(values)
    low, high = low - 0.08 * (high - low or 1), high + 0.05 * (high - low or 1)
    ks = state.ks

    def x(k: float) -> float:
        return _LEFT + (k - ks[0] + 0.5) / len(ks) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    order = sorted(solved)
    shapes = [f"<polyline points='{' '.join(f'{x(k):.1f},{y(solved[k].value):.1f}' for k in order)}' fill='none' "
              f"stroke='{_BLUE}' stroke-width='2'/>"]  # fmt: skip
    if today is not None:
        shapes.append(
            f"<line x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{y(today):.1f}' y2='{y(today):.1f}' stroke='{_ORANGE}' "
            f"stroke-dasharray='5 3'/><text x='{_WIDTH - _RIGHT + 4}' y='{y(today) + 4:.1f}' fill='{_ORANGE}'>"
            f"today {today:,.0f}</text>"
        )
    for k in ks:
        weight = " font-weight='600'" if k == state.k else ""
        shapes.append(f"<text x='{x(k):.1f}' y='{_HEIGHT - 28}' text-anchor='middle'{weight}>{k}</text>")
        if k not in solved:
            if k in state.found:
                shapes.append(f"<text x='{x(k):.1f}' y='{_HEIGHT - _BOTTOM - 4}' text-anchor='middle' fill='#b3121d'>"
                              f"×<title>{escape(str(state.found[k]))}</title></text>")  # fmt: skip
            continue
        p, here = solved[k], k == state.k
        if not p.optimal:
            shapes.append(f"<line x1='{x(k):.1f}' x2='{x(k):.1f}' y1='{y(p.value):.1f}' y2='{y(p.bound):.1f}' "
                          f"stroke='{_BLUE}' stroke-dasharray='2 2'/>")  # fmt: skip
        words = f"{count(k, 'pool')}: {p.value:,.0f}, {'proven' if p.optimal else f'gap {p.gap:.1%}'}"
        shapes.append(
            f"<circle cx='{x(k):.1f}' cy='{y(p.value):.1f}' r='{7 if here else 4}' stroke='{_BLUE}' stroke-width='2' "
            f"fill='{_BLUE if p.optimal else '#fff'}'><title>{words}</title></circle>"
        )
        if here:
            shapes.append(f"<text x='{x(k):.1f}' y='{y(p.value) - 11:.1f}' text-anchor='middle' font-weight='600'>"
                          f"{p.value:,.0f}</text>")  # fmt: skip
    for at in sorted({min(values), max(values)}):
        shapes.append(f"<text x='{_LEFT - 8}' y='{y(at) + 4:.1f}' text-anchor='end'>{at:,.0f}</text>")
    key = "pools; filled: proven to be the best; ×: the demands cannot be met"
    shapes.append(f"<text x='{_LEFT}' y='{_HEIGHT - 6}' class='faint'>{key}</text>")
    spoken = "; ".join(f"{k}: {solved[k].value:,.0f}" for k in order)
    return (
        "<h4>Value kept, by number of pools</h4>"
        f"<svg class='vmcompat-curve' role='img' aria-label='Value by number of pools. {spoken}' width='{_WIDTH}' "
        f"height='{_HEIGHT}' viewBox='0 0 {_WIDTH} {_HEIGHT}' style='font-size:12px;fill:currentColor'>"
        f"{''.join(shapes)}</svg>"
    )


def _proposal(state: PoolsState, found: Pools) -> list[str]:
    shown = ["<h4>Proposed pools</h4>", "" if state.proposed is None else _pools(found, state.proposed)]
    if state.today is not None:
        shown += [f"<h4>Today, by {escape(str(state.demand.current))}</h4>", _today(state.today)]
    exchange = state.exchange
    if exchange is not None:
        shown += ["<h4>Which hosts go where (rows: today, columns: proposed)</h4>", _exchange(exchange, found)]
    return shown


def _pools(found: Pools, proposed: pd.DataFrame) -> str:
    head = ["pool", *_COLUMNS, "value each", "moved in"]
    rows = []
    for (name, row), (_, facts) in zip(found.frame.iterrows(), proposed.iterrows(), strict=True):
        up = "gives up: " + in_words(row["given_up"], most=12) if row["given_up"] else "nothing is given up"
        pool = Cell(escape(str(name)), title=", ".join(row["hosts"]))
        rows.append([pool, *_facts(facts, up), number(row["value"]), number(row["n_moved"])])
    return f"<div class='wider'>{table(head, rows, numbers=6, name='vmcompat-proposed')}</div>"


def _today(today: pd.DataFrame) -> str:
    rows = []
    for key, row in today.iterrows():
        _, vendor, name = cast(tuple[Any, ...], key)
        label = name if isinstance(name, str) else "(in none)" if pd.isna(name) else str(name)
        twice = [k[2] for k in today.index].count(name) > 1
        rows.append([text(f"{label} ({vendor})" if twice else label), *_facts(row, "")])
    return f"<div class='scroll'>{table(['today', *_COLUMNS], rows, numbers=4, name='vmcompat-today')}</div>"


def _facts(row: pd.Series, more: str) -> list[Cell]:
    """A row of ``schema.BASELINES`` as `_COLUMNS`."""
    answered = isinstance(row["model"], str)
    kinds = {"controls_lost": "alarm", "capabilities_lost": ""}
    lost = [number(_known(row[c]), kind=kind, title=more) for c, kind in kinds.items()]
    return [
        text(row["model"]) if answered else Cell(escape(str(row["reason"])), "wide"),
        text(_level(row["level"]) if answered else ""),
        number(row["n_hosts"]),
        number(_known(row["n_features"])),
        *lost,
    ]


def _exchange(exchange: pd.DataFrame, found: Pools) -> str:
    rows = []
    for name, row in exchange.head(_MOST).iterrows():
        cells = [number(n, kind="" if pool == name else "moves") for pool, n in row.items()]
        rows.append([text(name), *cells])
    more = "" if len(exchange) <= _MOST else note(f"and {len(exchange) - _MOST} more of today's: see placement.csv")
    shown = table(["today", *map(str, exchange.columns)], rows, numbers=len(exchange.columns), name="vmcompat-exchange")
    return f"<div class='scroll'>{shown}</div>{more}"


def _moves(found: Pools) -> str:
    if found.today is None:
        return note("Choose what today's pools are, and the moves from there are listed here.")
    if found.moves.empty:
        return note("No host has to move.")
    rows = [
        [
            text(host),
            text(m["today"]),
            text(m["pool"]),
            text("yes" if m["restarts"] else "no"),
            number(m["value_after"]),
        ]
        for host, m in found.moves.head(_MOST).iterrows()
    ]
    head = ["host", "from", "to", "guests have to restart", "value of all after it"]
    more = "" if len(found.moves) <= _MOST else note(f"and {len(found.moves) - _MOST} more moves: see moves.csv")
    stay = found.placement[found.placement["restarts"] & ~found.placement["moved"]]
    also = ""
    if len(stay):
        also = note(
            f"Guests restart on {count(len(stay), 'host')} that {'stays' if len(stay) == 1 else 'stay'} too, since "
            f"the pool gives up a feature of today's: {some(list(stay.index), 6)}"
        )
    return f"<div class='scroll'>{table(head, rows, numbers=1, name='vmcompat-move-list')}</div>{more}{also}"


def _export(found: Pools) -> list[str]:
    frames = {"pools": found.frame, "placement": found.placement, "moves": found.moves}
    links = [
        download(
            inert(_flat(frame)).to_csv(index=False),
            name=f"{name}.csv",
            kind="text/csv",
            words=f"{name}.csv ({count(len(frame), 'row')})",
        )
        for name, frame in frames.items()
    ]
    shown = ["<h4>Frames</h4>", "<br>".join(links), "<h4>Baseline of each pool, for its domains</h4>"]
    for name in found.frame.index:
        try:
            base = found.baseline(str(name))
        except VmcompatError as e:
            shown.append(f"<div>{escape(str(name))}</div>{refusal(str(e))}")
            continue
        link = download(base.guest_xml, name=f"{name}-{base.model}.xml", kind="text/xml", words=f"{name}: {base.model}")
        shown.append(f"<div class='file'>{link}{details('show', f'<pre>{escape(base.guest_xml)}</pre>')}</div>")
    return shown


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Tuples as words, for a CSV file."""
    tuples = [c for c in frame.columns if frame[c].dtype == object]
    return frame.assign(**{c: frame[c].map(" ".join) for c in tuples})


def _level(level: object) -> str:
    return level if isinstance(level, str) else "below x86-64-v1"


def _known(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
