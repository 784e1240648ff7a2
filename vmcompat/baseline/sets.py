"""A column of a frame whose values are sets of names, kept as bits until one is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.extensions import ExtensionArray, ExtensionDtype

from vmcompat.baseline.lattice import Ints, Words, unpack

_SHOWN: Final = 3
_Rows: TypeAlias = "slice | npt.NDArray[np.bool_] | npt.NDArray[np.intp]"


@dataclass(frozen=True, eq=False)
class Names:
    """What the bits of packed sets stand for: each bit for none, one or many names.

    Attributes
    ----------
    names : Index of str
        In the order in which sets list them.
    bits : int array, one a name
        The bit that says whether the name is in a set; -1 where it always is, -2 where it never is.
    """

    names: pd.Index
    bits: Ints

    @cached_property
    def at(self) -> npt.NDArray[np.intp]:
        """Positions of the names that may be in a set."""
        return np.flatnonzero(self.bits > -2)

    @cached_property
    def n_bits(self) -> int:
        """How many bits a set has."""
        return int(self.bits.max(initial=-1)) + 1

    def chosen(self, words: Words) -> npt.NDArray[np.intp]:
        """Positions of the names in one packed set."""
        present = np.append(unpack(words[None, :], self.n_bits)[0], True)  # the last one is for the bit -1
        answer: npt.NDArray[np.intp] = self.at[present[self.bits[self.at]]]
        return answer


class NameSet(Set[str]):
    """A set of names that is unpacked when it is asked; operators give a frozenset."""

    __slots__ = ("_names", "_words")

    def __init__(self, names: Names, words: Words) -> None:
        self._names, self._words = names, words

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> Any:
        return frozenset(it)

    def __len__(self) -> int:
        return len(self._names.chosen(self._words))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names.names[self._names.chosen(self._words)].tolist())

    def __contains__(self, name: object) -> bool:
        if name not in self._names.names:
            return False
        bit = int(self._names.bits[self._names.names.get_loc(name)])
        return bit == -1 or (bit >= 0 and bool(int(self._words[bit >> 6]) >> (bit & 63) & 1))

    def __hash__(self) -> int:
        return self._hash()

    def __repr__(self) -> str:
        n = len(self)
        more = f", ... {n - _SHOWN} more" if n > _SHOWN else ""
        return f"{{{', '.join(islice(self, _SHOWN))}{more}}}"


class SetDtype(ExtensionDtype):
    """The dtype of :class:`SetArray`."""

    name = "set"
    type = NameSet
    na_value = None

    @classmethod
    def construct_array_type(cls) -> Any:
        """The array of this dtype."""
        return SetArray


class SetArray(ExtensionArray):
    """Packed sets; what their bits stand for may differ between the rows.

    Parameters
    ----------
    words : uint64 array, sets by words
    names : sequence of Names
    which : int array, one a set
        Which of the names are meant; -1 where the set is missing.
    """

    def __init__(self, words: Words, names: Sequence[Names], which: Ints) -> None:
        self._words, self._names, self._which = words, tuple(names), which

    @classmethod
    def _from_sequence(cls, scalars: Any, *, dtype: Any = None, copy: bool = False) -> Any:
        raise TypeError("sets of names are computed: make a Series of dtype object for others")

    @property
    def dtype(self) -> SetDtype:
        """Always the same."""
        return SetDtype()

    @property
    def nbytes(self) -> int:
        """Of the sets, without the names [bytes]."""
        return self._words.nbytes + self._which.nbytes

    def __len__(self) -> int:
        return len(self._which)

    def __getitem__(self, item: Any) -> Any:
        if np.ndim(item) == 0 and not isinstance(item, slice):
            which = int(self._which[item])
            return None if which < 0 else NameSet(self._names[which], self._words[item])
        rows: _Rows = item if isinstance(item, slice) else np.asarray(pd.array(item))
        return SetArray(self._words[rows], self._names, self._which[rows])

    def __eq__(self, other: object) -> Any:
        if isinstance(other, SetArray) and len(other) == len(self):
            return np.array([a == b for a, b in zip(self, other, strict=True)], dtype=np.bool_)
        return NotImplemented

    def isna(self) -> npt.NDArray[np.bool_]:
        """Where a set is missing."""
        return self._which < 0

    def take(self, indices: Any, *, allow_fill: bool = False, fill_value: Any = None) -> SetArray:
        """The sets at these positions; with ``allow_fill`` -1 gives a missing one."""
        at = np.asarray(indices, dtype=np.intp)
        if not allow_fill:
            return SetArray(self._words[at], self._names, self._which[at])
        if (at < -1).any():
            raise ValueError("a position below -1")
        words, which = np.zeros((len(at), self._words.shape[1]), np.uint64), np.full(len(at), -1)
        there = at >= 0
        words[there], which[there] = self._words[at[there]], self._which[at[there]]
        return SetArray(words, self._names, which)

    def copy(self) -> SetArray:
        """Sets of its own."""
        return SetArray(self._words.copy(), self._names, self._which.copy())

    @classmethod
    def _concat_same_type(cls, to_concat: Sequence[SetArray]) -> SetArray:
        width = max(a._words.shape[1] for a in to_concat)
        start = np.cumsum([0, *(len(a._names) for a in to_concat)])
        return SetArray(
            np.concatenate([np.pad(a._words, ((0, 0), (0, width - a._words.shape[1]))) for a in to_concat]),
            [names for a in to_concat for names in a._names],
            np.concatenate(
                [np.where(a._which < 0, -1, a._which + s) for a, s in zip(to_concat, start[:-1], strict=True)]
            ),
        )
