"""A small XML tree, printed the way libvirt prints: single quotes, two spaces, one element a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from xml.sax.saxutils import escape

ENTITIES = {"'": "&apos;", '"': "&quot;"}


@dataclass(frozen=True)
class Element:
    """An element with children or a text."""

    tag: str
    attributes: Mapping[str, str]
    children: tuple[Element, ...]
    text: str | None
    quote: str = "'"

    @property
    def foreign(self) -> Element:
        """The same in double quotes: how libvirt prints what others keep in ``<metadata>``."""
        return replace(self, quote='"', children=tuple(child.foreign for child in self.children))

    def lines(self, depth: int = 0) -> list[str]:
        """The lines of the element, indented by two spaces a level."""
        indent = "  " * depth
        quoted = "".join(
            f" {key}={self.quote}{escape(value, ENTITIES)}{self.quote}" for key, value in self.attributes.items()
        )
        if self.text is not None:
            return [f"{indent}<{self.tag}{quoted}>{escape(self.text)}</{self.tag}>"]
        if not self.children:
            return [f"{indent}<{self.tag}{quoted}/>"]
        inner = [line for child in self.children for line in child.lines(depth + 1)]
        return [f"{indent}<{self.tag}{quoted}>", *inner, f"{indent}</{self.tag}>"]


def el(tag: str, *content: Element | str | None, **attributes: object) -> Element:
    """An element; a string is its text, ``None`` is left out, so is an attribute that is ``None``."""
    children = tuple(item for item in content if isinstance(item, Element))
    texts = [item for item in content if isinstance(item, str)]
    shown = {key: str(value) for key, value in attributes.items() if value is not None}
    return Element(tag, shown, children, texts[0] if texts else None)


def enum(name: str, values: str) -> Element:
    """``<enum name=>`` with one ``<value>`` a word."""
    return el("enum", *(el("value", value) for value in values.split()), name=name)


def document(root: Element, *, spaced: bool = False) -> bytes:
    """The bytes that virsh writes to a file: libvirt's text and one more line feed.

    ``spaced`` sets the children of the root apart by empty lines, as in capabilities.
    """
    lines = root.lines()
    if spaced:
        parts = [child.lines(1) for child in root.children]
        lines = [lines[0], "", *(line for part in parts for line in (*part, "")), lines[-1]]
    return ("\n".join(lines) + "\n\n").encode()
