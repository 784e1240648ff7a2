"""What a CPU has against an attack: four answers, and none of them by guessing."""

import pytest

import vmcompat as vc
from vmcompat.audit.mitigations import MITIGATIONS, Mitigation, controls_of, needless, state, states
from vmcompat.baseline.meanings import MEANINGS


def named(word: str) -> Mitigation:
    return next(m for m in MITIGATIONS if word in m.name)


@pytest.mark.parametrize(
    ("vendor", "has", "reported", "expected"),
    [
        ("Intel", {"md-clear"}, None, "has"),
        ("Intel", {"mds-no", "taa-no"}, None, "needless"),
        ("Intel", {"mds-no"}, None, "lacks"),
        ("Intel", set(), {"md-clear"}, "lacks"),
        ("Intel", set(), {"ssbd"}, "unknown"),
        ("AMD", set(), None, ""),
        ("Zhaoxin", {"md-clear"}, None, "unknown"),
        (None, {"md-clear"}, None, "unknown"),
    ],
)
def test_md_clear_is_needed_on_intel_unless_every_immunity_is_there(
    vendor: str | None, has: set[str], reported: set[str] | None, expected: str
) -> None:
    known = None if reported is None else frozenset(reported)
    assert state(named("MDS"), vendor, frozenset(has), known) == expected


def test_one_of_several_switches_is_enough_and_hygon_counts_as_amd() -> None:
    assert state(named("Spectre v4"), "Hygon", frozenset({"virt-ssbd"}), None) == "has"
    assert state(named("Spectre v4"), "AMD", frozenset({"amd-no-ssb"}), None) == "needless"
    assert state(named("Spectre v4"), "AMD", frozenset({"ssbd"}), None) == "lacks"


def test_every_switch_is_a_control_of_its_vendor() -> None:
    for mitigation in MITIGATIONS:
        for vendor, controls in mitigation.controls.items():
            assert [(MEANINGS[c].polarity, MEANINGS[c].vendor) for c in controls] == [("control", vendor)] * len(
                controls
            )
            assert set(controls) <= set(controls_of(vendor))


def test_a_host_whose_cpu_is_not_known_is_unknown_and_not_lacking(samples: object) -> None:
    fleet = vc.read_fleet(f"{samples}/mixed")
    found = dict(zip(fleet.names, states(named("MDS"), fleet.readings, fleet.cpu_map), strict=True))
    assert {found[h] for h in fleet.unknown} == {"unknown"}
    assert [h for h, s in found.items() if s == "lacks"] == ["ams-r2-h03", "ams-r2-h07", "fra-old-h01"]
    assert {found[h] for h in fleet.names if h.startswith("fra-h")} == {""}


def test_a_control_without_an_immunity_in_the_table_is_never_needless() -> None:
    assert needless("flush-l1d", ["rdctl-no", "x"])
    assert not needless("spec-ctrl", MEANINGS)
