"""Whether a CPU fits a host, by libvirt's rules, with the names of what stands in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

import vmcompat as vc

WESTMERE = "<cpu><arch>x86_64</arch><model>Westmere</model><vendor>Intel</vendor><feature name='vmx'/></cpu>"


def guest(model: str, *, match: str = "exact", vendor: str = "", **policies: str) -> str:
    features = "".join(f"<feature policy='{p}' name='{n.replace('_', '-')}'/>" for n, p in policies.items())
    named = f"<vendor>{vendor}</vendor>" if vendor else ""
    return f"<cpu match='{match}'><model>{model}</model>{named}{features}</cpu>"


@pytest.mark.parametrize(
    ("cpu", "result", "features"),
    [
        (guest("Nehalem"), "superset", ()),
        (guest("Westmere", vmx="require"), "identical", ()),
        (guest("Westmere", vmx="optional"), "identical", ()),
        (guest("Westmere", vmx="disable"), "identical", ()),
        (guest("Westmere", vmx="forbid"), "incompatible", ("vmx",)),
        (guest("Westmere", avx="require"), "incompatible", ("avx",)),
        (guest("Westmere", avx="force"), "superset", ()),
        (guest("Westmere", avx="optional"), "superset", ()),
        (guest("Westmere", match="strict"), "incompatible", ("vmx",)),
        (guest("Westmere", match="minimum"), "superset", ()),
        (guest("Westmere", aes="disable"), "superset", ()),
        # a forbidden feature of the model stays demanded, so that it cannot be had either way
        (guest("Nehalem", popcnt="forbid"), "incompatible", ("popcnt",)),
        ("<cpu mode='host-passthrough'/>", "superset", ()),
    ],
)
def test_each_policy_counts_as_libvirt_counts_it(cpu: str, result: str, features: tuple[str, ...]) -> None:
    comparison = vc.compare(cpu, host=WESTMERE)
    assert (comparison.result, comparison.features) == (result, features)
    assert comparison.fits == (result in ("identical", "superset"))


def test_the_reason_says_what_is_wrong_and_a_vendor_comes_first() -> None:
    assert vc.compare(guest("SandyBridge"), host=WESTMERE).reason == "Host CPU does not provide required features"
    other = vc.compare(guest("NoSuchModel", vendor="AMD"), host=WESTMERE)
    assert other.reason == "host CPU vendor does not match required CPU vendor AMD"
    power = "<cpu><arch>ppc64</arch><model>POWER9</model></cpu>"
    assert vc.compare(power, host=WESTMERE).reason == "CPU arch ppc64 does not match host arch"


@pytest.mark.parametrize("cpu", [guest("NoSuchModel"), guest("Westmere", no_such="optional")])
def test_a_name_that_the_map_does_not_know_is_an_error_even_where_it_is_optional(cpu: str) -> None:
    with pytest.raises(vc.VmcompatError, match="is not in the CPU map of libvirt"):
        vc.compare(cpu, host=WESTMERE)


def test_a_fleet_is_compared_host_by_host_and_cannot_tell_is_no_refusal(samples: Path) -> None:
    fleet = vc.read_fleet(samples / "mixed")
    base = fleet["ams-r2-h08", "ams-r2-h09"].baseline()
    table = fleet.compare(base)
    assert list(table.index) == list(fleet.names)
    result = table["result"]
    assert set(result[fleet.unknown]) == {"unknown"}
    assert result["ams-r2-h10"] == "superset"
    # its libvirt 9.0 has no name for the vmx features: nothing is known to be missing
    assert result["ams-r2-h01"] == "unknown"
    assert "too old" in table.loc["ams-r2-h01", "reason"]  # type: ignore[operator]
    assert result["ams-r2-h07"] == "incompatible"
    assert table.loc["ams-r2-h07", "features"] == ("md-clear", "flush-l1d")
    assert table.loc["fra-h01", "reason"] == "host CPU vendor does not match required CPU vendor Intel"


def test_who_may_move_where_is_reflexive_and_transitive_and_keeps_vendors_apart(samples: Path) -> None:
    fleet = vc.read_fleet(samples / "mixed")
    matrix = vc.migration_matrix(fleet)
    fits = matrix.to_numpy()
    assert fits.dtype == bool
    assert fits.diagonal().all()
    assert not ((fits.astype(int) @ fits.astype(int) > 0) & ~fits).any()
    vendor = fleet.hosts.loc[matrix.index, "vendor"].to_numpy()
    assert not fits[vendor[:, None] != vendor[None, :]].any()
    assert matrix.loc["fra-old-h01", "ams-r5-h02"]
    assert not matrix.loc["ams-r5-h02", "fra-old-h01"]


def test_who_may_move_where_of_no_known_host_is_an_empty_table() -> None:
    matrix = vc.migration_matrix(vc.read_fleet({"h1": "<cpu><arch>x86_64</arch></cpu>"}))
    assert matrix.shape == (0, 0)
