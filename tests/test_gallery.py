"""The contact sheet: one file that needs no network, every picture with its words."""

import html
import re

import vmcompat as vc
from tests import gallery
from vmcompat import plot


def test_the_page_holds_every_plot_with_its_words_and_asks_nobody() -> None:
    shown = list(gallery.pictures({"<pair>": pair}))
    page = gallery.page(shown)
    assert [p.name for p in shown] == list(gallery.ANSWERS)
    assert sorted(gallery.ANSWERS) == plot.__all__
    images = re.findall(r'<img alt="([^"]+)"[^>]* src="data:image/png;base64,[^"]+"', page)
    assert len(images) == len(shown)
    assert html.unescape(images[0]) == plot.features(pair()).get_label()
    assert re.findall(r'(?:src|href)="(?!data:|#)', page) == []
    assert "&lt;pair&gt;" in page


def test_a_plot_that_refuses_is_told_in_its_place() -> None:
    mixed = gallery.FLEETS["mixed"]()
    shown = {p.name: p.shown for p in gallery.pictures({"unknown": lambda: mixed[list(mixed.unknown)]})}
    assert list(shown) == list(gallery.ANSWERS)
    assert shown["loss"].startswith("<p>no picture: no host with a known CPU")
    assert "<img" in shown["features"]


def pair() -> vc.Fleet:
    return gallery.FLEETS["virsh_pair"]()
