"""What features are worth and what hosts count, as whole numbers: sums that no order of the summands can change."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from vmcompat.baseline.answer import some
from vmcompat.baseline.lattice import Floats, Ints
from vmcompat.baseline.meanings import meanings
from vmcompat.errors import FrameError

Value: TypeAlias = "Mapping[str, float] | pd.Series | Callable[[str], float] | None"


class Exact(NamedTuple):
    """Numbers as multiples of a small unit.

    Attributes
    ----------
    multiples : int array
        All of them together stay below 2**61.
    per_one : float
        How many units make 1, a power of two.
    """

    multiples: Ints
    per_one: float

    @staticmethod
    def of(numbers: Floats) -> Exact:
        """Each number to within half a unit; those with few binary places, all whole ones among them, exactly."""
        _, exponent = math.frexp(math.fsum(np.abs(numbers)))
        per_one = 2.0 ** (60 - exponent)
        return Exact(np.rint(numbers * per_one).astype(np.int64), per_one)


def feature_values(features: Sequence[str], vendor: str | None, value: Value) -> Exact:
    """What each feature is worth.

    Parameters
    ----------
    features : sequence of str
    vendor : str or None
        For the default weights: what is bound to another vendor weighs 0.
    value : mapping, Series or callable, optional
        Replaces them; a feature that a mapping does not name weighs 0.

    Raises
    ------
    FrameError
        A weight that is negative or no finite number, or of a feature that is not among them.
    """
    if value is None:
        return Exact.of(meanings(features, vendor=vendor)["value"].to_numpy(dtype=np.float64))
    if callable(value):
        weights = [value(name) for name in features]
    else:
        given = dict(value.items())
        strange = [str(name) for name in given if name not in features]
        if strange:
            raise FrameError(f"value= weighs {some(strange)}, which the fleet's CPU map does not know")
        weights = [given.get(name, 0.0) for name in features]
    try:
        numbers = np.array(weights, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise FrameError(f"value= gives a weight that is no number ({e})") from e
    for name, number in zip(features, numbers.tolist(), strict=True):
        if not 0 <= number < math.inf:
            raise FrameError(f"value= weighs {name} {number}: give finite numbers of at least 0")
    return Exact.of(numbers)


def host_amounts(hosts: pd.DataFrame, capacity: str | None) -> tuple[Exact, Ints]:
    """What each host counts, 0 where that is not known, and 1 for each host of which it is not.

    Parameters
    ----------
    hosts : DataFrame
        Of a fleet.
    capacity : str, optional
        One of its columns. Default: every host counts 1.

    Raises
    ------
    FrameError
        No such column, or none of numbers.
    """
    if capacity is None:
        return Exact.of(np.ones(len(hosts))), np.zeros(len(hosts), dtype=np.int64)
    if capacity not in hosts.columns:
        raise FrameError(f"no column {capacity!r} to add up; columns: {', '.join(hosts.columns)}")
    column = hosts[capacity]
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        raise FrameError(f"capacity={capacity!r} is no column of numbers: its dtype is {column.dtype}")
    numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    known = np.isfinite(numbers)
    return Exact.of(np.where(known, numbers, 0.0)), (~known).astype(np.int64)
