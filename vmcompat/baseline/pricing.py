"""What each possible pool is worth when every host has its price, compiled: numba is imported with this module.

The subproblem of a Lagrangian relaxation: hosts are bought at a price, so that every pool may be filled by itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vmcompat.baseline.loops import compiled

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NEVER = -1e300  # the gain from a client that may not be in a pool, and the profit of a pool that cannot be


@compiled
def gains(
    admits: Bools, value: float, breaks: Bools, unit: Floats, price: Floats, entry_start: Ints, entry_label: Ints,
    entry_hosts: Ints, entry_restart: Floats, per_move: float, label: int, out: Floats,
) -> None:  # fmt: skip
    """What one unit of each client brings to a pool that goes on from today's pool ``label`` (-1: from none).

    A client has an entry for each of today's pools that its hosts are in.
    """
    for g in range(len(unit)):
        if not admits[g]:
            out[g] = NEVER
            continue
        gain = unit[g] * value - price[g]
        for e in range(entry_start[g], entry_start[g + 1]):
            if entry_label[e] != label:
                gain -= per_move * entry_hosts[e]
            if breaks[entry_label[e]]:
                gain -= entry_restart[e]
        out[g] = gain


@compiled
def filled(gain: Floats, many: Ints, size: Floats, needed: float, taken: Floats) -> float:
    """The largest profit of a pool of at least that size, in fractions of units; ``taken`` says how many of each."""
    profit: float = 0.0
    total: float = 0.0
    for g in range(len(gain)):
        taken[g] = 0.0
        if gain[g] > 0.0:
            taken[g] = many[g]
            profit += gain[g] * many[g]
            total += size[g] * many[g]
    if total >= needed:
        return profit
    loss = np.full(len(gain), np.inf)
    for g in range(len(gain)):
        if NEVER < gain[g] <= 0.0 and size[g] > 0.0:
            loss[g] = -gain[g] / size[g]
    for g in np.argsort(loss):
        if loss[g] == np.inf:
            break
        amount = min(float(many[g]), (needed - total) / size[g])
        taken[g] = amount
        profit += gain[g] * amount
        total += size[g] * amount
        if total >= needed * (1.0 - 1e-12):
            return profit
    return NEVER


@compiled
def profits(
    admits: Bools, value: Floats, breaks: Bools, of_part: Ints, many: Ints, unit: Floats, hosts: Floats,
    protected: Floats, price: Floats, entry_start: Ints, entry_label: Ints, entry_hosts: Ints, entry_restart: Floats,
    label_part: Ints, per_move: float, min_hosts: float, needed: Floats,
) -> Floats:  # fmt: skip
    """An upper bound of what each pool brings: pools by today's pools (the last: none) by thresholds."""
    n_labels = len(label_part)
    sized = min_hosts > 0.0 or needed.max() > 0.0
    out = np.full((len(value), n_labels + 1, len(needed)), NEVER)
    gain = np.empty(len(unit))
    taken = np.empty(len(unit))
    stays = np.empty(n_labels)
    for f in range(len(value)):
        gains(
            admits[f], value[f], breaks[f], unit, price, entry_start, entry_label, entry_hosts, entry_restart, per_move,
            -1, gain,
        )  # fmt: skip
        by_hosts = filled(gain, many, hosts, min_hosts, taken)
        for t in range(len(needed)):
            out[f, n_labels, t] = by_hosts
            if needed[t] > 0.0:
                out[f, n_labels, t] = min(by_hosts, filled(gain, many, protected[:, t], needed[t], taken))
        # hosts that stay bring more by what their move would cost; in pools of a size at most by that
        stays[:] = 0.0
        if per_move > 0.0:
            for g in range(len(unit)):
                if admits[f, g]:
                    for e in range(entry_start[g], entry_start[g + 1]):
                        more = per_move * entry_hosts[e]
                        if not sized:
                            more = max(0.0, gain[g] + more) - max(0.0, gain[g])
                        stays[entry_label[e]] += many[g] * more
        for label in range(n_labels):
            if label_part[label] == of_part[f]:
                for t in range(len(needed)):
                    if out[f, n_labels, t] > NEVER:
                        out[f, label, t] = out[f, n_labels, t] + stays[label]
    return out
