"""Where guests can go: the verdicts are those of a migration plan, and what cannot be told is not called possible."""

import shlex
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vmcompat as vc
from tests.migration.scene import SANDYBRIDGE, WESTMERE, at, domain_xml
from tests.migration.test_domains import in_state, live
from tests.migration.test_preflight import DEVICE
from tests.strategies import guest_cpu_near
from vmcompat.errors import FrameError
from vmcompat.fleet.cpu_map import CpuMap
from vmcompat.fleet.expand import Reading, read_cpu
from vmcompat.migration.apply import CpuAnswer
from vmcompat.migration.domain import cpu_text
from vmcompat.migration.domains import DomainRecord, Domains, read_domains
from vmcompat.migration.observe import End, Observation, reading
from vmcompat.migration.preflight import CHECKS, preflight
from vmcompat.migration.reach import Reachability, reachability
from vmcompat.schema import REACH, REACH_DOMAINS

# What no kept document answers, or (VERSION, SKEW) what is said when two hosts are chosen.
NEEDS_THE_HOSTS = ("STATE", "SAME_HOST", "PEER", "NAME", "VERSION", "SKEW", "DRY", "JOBS", "AUTOSTART")


@pytest.fixture(scope="module")
def fleet(samples: Path) -> vc.Fleet:
    return vc.read_fleet(samples / "mixed")


@pytest.fixture(scope="module")
def domains(samples: Path) -> Domains:
    return read_domains(samples / "mixed" / "domains")


@pytest.fixture(scope="module")
def reach(domains: Domains, fleet: vc.Fleet) -> Reachability:
    return reachability(domains, fleet)


def host(name: str, cpu: str, *, libvirt: str = "") -> dict[str, str]:
    """The documents of a host that gives guests that CPU."""
    hypervisor = f"""<domainCapabilities><path>/usr/bin/qemu-system-x86_64</path><domain>kvm</domain>
<machine>pc-q35-7.2</machine><arch>x86_64</arch><cpu><mode name='host-model' supported='yes'>{cpu}</mode>
<mode name='custom' supported='yes'><model usable='yes'>Westmere</model><model usable='yes'>SandyBridge</model></mode>
</cpu></domainCapabilities>"""
    cells = "<cell id='0'><memory unit='GiB'>16</memory><cpus><cpu id='0' socket_id='0' core_id='0'/></cpus></cell>"
    own = f"""<capabilities><host><uuid>{name}</uuid><cpu><arch>x86_64</arch>{cpu}</cpu>
<topology><cells>{cells}</cells></topology></host><guest><arch name='x86_64'>
<emulator>/usr/bin/qemu-system-x86_64</emulator><machine>pc-q35-7.2</machine><domain type='kvm'/></arch></guest>
</capabilities>"""
    return {name: own + hypervisor}


def hosts(**cpus: str) -> vc.Fleet:
    texts: dict[str, str] = {}
    for name, cpu in cpus.items():
        texts |= host(name, cpu)
    return vc.read_fleet(texts, view="hypervisor")


def on(place: str | None, guests: Domains) -> Domains:
    return Domains(records=tuple(replace(r, host=place) for r in guests.records))


# ---- the same answers as a plan gives


def as_end(fleet: vc.Fleet, name: str, record: DomainRecord) -> End:
    """The host as if it had been asked for the guest's own machine type; libvirt's answer by ``vc.compare``."""
    (about,) = fleet[name].records
    own = next(d for d in about.documents if d.kind == "capabilities")
    kept = next(d for d in about.documents if d.kind == "domcapabilities")
    guest = record.live
    assert guest is not None
    there = guest.machine in own.facts["machines"] and guest.virttype in own.facts["virttypes"]  # type: ignore[operator]
    read = read_cpu(about, view="hypervisor", virttype="kvm", cpu_map=CpuMap.load(), strict=False)
    answers = {}
    for question, of in (("moved", record.live), ("stored", record.stored)):
        text = cpu_text(of.xml) if of is not None else None
        if there and text is not None and kept.cpu is not None:
            compared = vc.compare(text, host=kept.cpu, cpu_map="9.0.0")
            answers[question] = CpuAnswer(
                host=name, result=compared.result, features=compared.features, reason=compared.reason
            )
    return End(
        name=name,
        uri=f"qemu+ssh://{name}/system",
        libvirt=about.libvirt or "",
        qemu=about.qemu,
        capabilities=own,
        hypervisor=kept if there else None,
        cpu=read if there else Reading(status="no_view", reason="not asked"),
        refused="" if there else "no such machine type",
        answers=answers,
    )


def planned(fleet: vc.Fleet, record: DomainRecord, target: str) -> str:
    """The verdict of a plan for one guest and one target, built by hand from the same documents."""
    source = as_end(fleet, str(record.host), record)
    assert record.live is not None
    seen = Observation(
        domain=record.name, state="running", job=False, live=record.live, stored=record.stored, new=record.stored,
        live_cpu=reading(record.live.cpu, host=source.name, libvirt=source.libvirt),
        source=source, target=as_end(fleet, target, record),
    )  # fmt: skip
    severities = {f.severity for f in preflight(seen) if f.id not in NEEDS_THE_HOSTS}
    return "no" if severities & {"block", "risk"} else "unknown" if "unknown" in severities else "yes"


def test_what_documents_say_is_what_a_plan_says_after_asking(
    domains: Domains, fleet: vc.Fleet, reach: Reachability
) -> None:
    chosen = fleet.select("libvirt == '9.0.0' and arch == 'x86_64' and cpu_status == 'ok'")
    nine = chosen.names
    guests = [r for r in domains.records if r.host in nine and r.live is not None and r.live.virttype == "kvm"]
    assert len(guests) > 15
    differing, verdicts = [], set()
    for record in guests:
        for target in nine:
            if target != record.host:
                verdict = at(reach.frame, ((record.name, target), "verdict"))
                verdicts.add(verdict)
                if verdict != planned(fleet, record, target):
                    differing.append((record.name, target, verdict))
    assert differing == []
    assert verdicts == {"yes", "no", "unknown"}


@given(st.randoms(use_true_random=False))
def test_no_guest_is_said_to_fit_where_libvirts_comparison_says_that_it_does_not(random: Random) -> None:
    cpu_map = CpuMap.load()
    text = guest_cpu_near(random, cpu_map, offered=cpu_map.models["SandyBridge"].data)
    found = reachability(on("h1", read_domains({"x": live(cpu=text)})), hosts(h1=SANDYBRIDGE, h2=SANDYBRIDGE))
    if found.frame["verdict"].tolist() == ["yes"]:
        assert vc.compare(text, host=f"<cpu>{SANDYBRIDGE}</cpu>").fits


# ---- the sample, guest by guest


@pytest.mark.parametrize(
    ("guest", "verdict", "reason", "says"),
    [
        ("sap-01", "stuck", "PASSTHROUGH", "ams-r1-h04 and ams-r5-h02 differ"),
        ("nested-ci-01", "stuck", "PASSTHROUGH", "host-passthrough"),
        ("win-ts-01", "stuck", "HYPERV", "re-enlightenment without a fixed TSC frequency"),
        ("any-01", "unknown", "PASSTHROUGH", "mode='maximum'"),
        ("instance-000000a1", "stuck", "OWNER", "OpenStack Nova"),
        ("erp-01", "stuck", "OWNER", "oVirt"),
        ("shop_kv-vm-01", "stuck", "OWNER", "KubeVirt"),
        ("r-12-VM", "stuck", "OWNER", "CloudStack"),
        ("p9-01", "stuck", "MACHINE", "ppc64le"),
        ("z-01", "stuck", "MACHINE", "s390x"),
        ("tcg-01", "unknown", "LIVE_CPU", "not of qemu"),
    ],
)
def test_a_guest_that_cannot_leave_says_why_and_what_to_do(
    reach: Reachability, guest: str, verdict: str, reason: str, says: str
) -> None:
    row = at(reach.domains, guest)
    assert row["verdict"] == verdict
    assert reason in row["held_by"]
    assert says in row["evidence"]
    assert row["remedy"]
    assert reason in row["nearest_reasons"]


def test_every_guest_that_is_not_free_has_evidence_and_something_to_do(reach: Reachability) -> None:
    held = reach.domains[reach.domains["verdict"] != "free"]
    assert len(held) == 25
    assert (held["evidence"] != "").all()
    assert (held["remedy"] != "").all()
    assert held["nearest"].isin(reach.fleet.names).all()
    assert not held["evidence"].str.contains("\0").any()


def test_a_guest_of_a_manager_is_held_by_that_and_its_own_command_moves_it(reach: Reachability) -> None:
    row = at(reach.domains, "instance-000000a1")
    assert row["held_by"] == ("OWNER",)
    assert row["n_by_manager"] == 15
    assert "nothing else keeps it from 15 hosts" in row["evidence"]
    assert row["remedy"].startswith("move it there: openstack server migrate --live-migration")


def test_the_clock_of_a_guest_keeps_it_from_hosts_that_count_otherwise(reach: Reachability) -> None:
    row = at(reach.frame, ("rt-clock-01", "ams-r3-h02"))
    assert (row["verdict"], row["reasons"]) == ("no", ("TSC",))
    assert "2094700000 Hz" in row["evidence"]
    assert at(reach.frame, (("rt-clock-01", "ams-r3-h01"), "verdict")) == "yes"


def test_missing_features_are_named(reach: Reachability) -> None:
    row = at(reach.frame, ("app-01", "ams-r2-h03"))
    assert (row["reasons"], row["missing"]) == (("LIVE_CPU",), ("md-clear",))
    assert row["evidence"] == "ams-r2-h03 lacks md-clear"


def test_pins_hold_a_guest_where_the_cpus_are(reach: Reachability) -> None:
    reasons = at(reach.frame, ("sap-01", "reasons"))
    assert any("NUMATUNE" in r for r in reasons)


def test_a_running_guest_is_judged_by_what_it_runs_with_and_not_by_what_is_stored(reach: Reachability) -> None:
    row = at(reach.frame, ("app-08", "ams-r1-h01"))  # stored is a Haswell, which that host could give
    assert row["verdict"] == "no"
    assert "avx512f" in row["missing"]


def test_a_guest_that_is_off_with_host_model_starts_on_any_kvm_host_of_its_kind(reach: Reachability) -> None:
    row = at(reach.domains, "build-01")
    refused = at(reach.frame, "build-01").query("verdict == 'no'")
    assert row["verdict"] == "free"
    assert {"ams-lab-h01", "ams-p9-h01", "ams-z15-h01"} <= set(refused.index)  # no KVM, or another architecture
    assert set(refused["reasons"]) == {("MACHINE",)}


def test_a_host_whose_cpu_is_not_known_is_unknown_unless_something_else_says_no(reach: Reachability) -> None:
    silent = reach.frame.xs("ams-r3-h08", level="host")
    judged_by_cpu = silent[silent["reasons"].map(lambda r: "LIVE_CPU" in r)]
    assert len(judged_by_cpu)
    assert set(judged_by_cpu["verdict"]) == {"unknown"}
    assert (silent["verdict"] != "yes").all()


def test_a_memory_too_small_is_no(fleet: vc.Fleet, domains: Domains) -> None:
    guest = domains["web-01"].records[0]
    assert guest.live is not None
    huge = replace(guest, live=replace(guest.live, memory=2**40))
    frame = reachability(Domains(records=(huge,)), fleet).frame
    assert frame["reasons"].map(lambda r: "MEMORY" in r).sum() == 47


# ---- what cannot be told


def test_a_running_guest_without_live_xml_is_unknown_to_everywhere() -> None:
    found = reachability(on("h1", in_state("running", domain_xml())), hosts(h1=WESTMERE, h2=WESTMERE))
    row = at(found.domains, "web1")
    assert (row["verdict"], row["held_by"]) == ("unknown", ("LIVE_CPU",))
    assert row["remedy"] == "virsh dumpxml --domain web1 on h1, and read it too"


def test_a_guest_that_cannot_be_read_is_unknown_and_stays() -> None:
    found = reachability(read_domains({"x": "<domain>"}), hosts(h1=WESTMERE, h2=WESTMERE))
    assert at(found.domains, ("x", ["n_unknown", "verdict"])).tolist() == [2, "unknown"]


def test_a_guest_on_no_known_host_has_every_host_before_it_and_what_depends_on_its_own_is_unknown() -> None:
    named, passed = (
        at(reachability(on(None, read_domains({"x": live(cpu=cpu)})), hosts(h1=WESTMERE, h2=WESTMERE)).domains, "web1")
        for cpu in (f"<cpu check='full'>{WESTMERE}</cpu>", "<cpu mode='host-passthrough'/>")
    )
    assert named[["n_yes", "verdict"]].tolist() == [2, "free"]
    assert passed[["n_unknown", "verdict"]].tolist() == [2, "unknown"]
    assert "which host it is on" in passed["evidence"]


def test_a_feature_that_no_map_knows_is_not_taken_for_given() -> None:
    strange = f"<cpu check='full'>{WESTMERE}<feature policy='require' name='warp-drive'/></cpu>"
    found = reachability(on("h1", read_domains({"x": live(cpu=strange)})), hosts(h1=WESTMERE, h2=WESTMERE))
    assert found.frame["verdict"].tolist() == ["unknown"]
    assert "warp-drive" in found.frame["evidence"].iloc[0]


def test_a_host_with_nothing_but_capabilities_is_unknown() -> None:
    texts = {name: text.partition("<domainCapabilities>")[0] for name, text in host("h2", WESTMERE).items()}
    fleet = vc.read_fleet(host("h1", WESTMERE) | texts, view="hypervisor")
    found = reachability(on("h1", read_domains({"x": live()})), fleet)
    assert found.frame["verdict"].tolist() == ["unknown"]


def test_a_fleet_of_one_host_leaves_its_guests_nowhere_to_go() -> None:
    found = reachability(on("h1", read_domains({"x": live()})), hosts(h1=WESTMERE))
    assert at(found.domains, ("web1", ["verdict", "evidence"])).tolist() == ["stuck", "the fleet has no other host"]
    assert found.frame.empty
    assert list(found.frame.columns) == list(REACH)


def test_a_fleet_without_hosts_is_refused(domains: Domains, fleet: vc.Fleet) -> None:
    with pytest.raises(FrameError, match="without hosts"):
        reachability(domains, fleet[[]])


# ---- a guest that is off


@pytest.mark.parametrize(
    ("cpu", "verdict", "reasons"),
    [
        (f"<cpu check='partial'>{SANDYBRIDGE}</cpu>", "no", ("NEW_CPU",)),
        (f"<cpu check='none'>{SANDYBRIDGE}</cpu>", "no", ("NEW_CPU",)),
        (f"<cpu check='partial'>{WESTMERE}</cpu>", "yes", ()),
        (f"<cpu>{WESTMERE}<feature policy='forbid' name='aes'/></cpu>", "no", ("NEW_CPU",)),
        (f"<cpu match='strict'>{WESTMERE}</cpu>", "yes", ()),
        ("<cpu match='strict'><model>Westmere</model><feature policy='disable' name='aes'/></cpu>", "unknown",
         ("NEW_CPU",)),
        ("<cpu><model>Westmere</model><vendor>AMD</vendor></cpu>", "no", ("VENDOR",)),
        ("<cpu mode='host-model'/>", "yes", ()),
        ("<cpu mode='host-model'><feature policy='require' name='avx'/></cpu>", "no", ("NEW_CPU",)),
        ("<cpu mode='host-passthrough'/>", "yes", ()),
        ("<cpu mode='maximum'/>", "yes", ()),
        ("", "yes", ()),
        ("<cpu><model>Nehalem</model></cpu>", "no", ("CPU_NAMES",)),
    ],
)  # fmt: skip
def test_a_guest_that_is_off_is_judged_by_its_next_start(cpu: str, verdict: str, reasons: tuple[str, ...]) -> None:
    guests = on("h1", in_state("shut off", domain_xml(cpu=cpu)))
    frame = reachability(guests, hosts(h1=SANDYBRIDGE, h2=WESTMERE)).frame
    assert (frame["verdict"].tolist(), frame["reasons"].tolist()) == ([verdict], [reasons])


# ---- the frames


def test_the_frame_has_a_row_for_each_guest_and_each_other_host(
    reach: Reachability, domains: Domains, fleet: vc.Fleet
) -> None:
    table = reach.frame
    assert list(table.columns) == list(REACH)
    assert list(reach.domains.columns) == list(REACH_DOMAINS)
    expected = [(d, h) for d, at in domains.frame["host"].items() for h in fleet.names if h != at]
    assert table.index.tolist() == expected
    counts = table["verdict"].groupby(level="domain", sort=False).value_counts().unstack(fill_value=0)
    for verdict in ("yes", "no", "unknown"):
        assert counts[verdict].tolist() == reach.domains[f"n_{verdict}"].tolist()
    assert (table["reasons"].map(len) == 0).equals(table["verdict"] == "yes")
    assert table["evidence"].str.contains("\0").sum() == 0


def test_reasons_are_ids_of_checks(reach: Reachability) -> None:
    assert {i for ids in reach.frame["reasons"] for i in ids} <= set(CHECKS)


def test_the_checks_that_hold_a_guest_are_in_the_way_to_every_host(reach: Reachability) -> None:
    for name, row in reach.domains[reach.domains["verdict"] == "stuck"].iterrows():
        assert all(set(reasons) & set(row["held_by"]) for reasons in at(reach.frame, (name, "reasons"))), name


def test_another_order_changes_no_answer(reach: Reachability, domains: Domains, fleet: vc.Fleet) -> None:
    turned = reachability(domains[domains.names[::-1]], fleet[fleet.names[::-1]]).frame
    pd.testing.assert_frame_equal(at(turned, reach.frame.index), reach.frame)


def test_sentences_name_the_guests_and_hold_no_placeholder(reach: Reachability) -> None:
    told = reach.explain()
    assert told[0] == "38 of 63 guests can go to another host, 19 to none; 6 are in doubt"
    assert any("win-ts-01 cannot leave (HYPERV)" in line for line in told)
    assert not any("\0" in line for line in told)
    assert repr(reach) == "<Reachability of 63 guests among 48 hosts: 38 free, 19 stuck, 6 unknown>"


def test_a_guests_name_is_text_in_a_page_and_quoted_in_a_command() -> None:
    guests = on("h1", in_state("running", domain_xml(name="&lt;b>x'; reboot")))
    found = reachability(guests, hosts(h1=WESTMERE, h2=WESTMERE))
    assert "<b>x" not in found._repr_html_()
    assert shlex.split(found.domains["remedy"].iloc[0])[3] == "<b>x'; reboot"
    device = on("h1", read_domains({"x": live(name="x'; reboot", devices=DEVICE)}))
    assert (
        shlex.split(reachability(device, hosts(h1=WESTMERE, h2=WESTMERE)).domains["remedy"].iloc[0])[3] == "x'; reboot"
    )


def test_five_thousand_guests_and_five_hundred_hosts_take_seconds(domains: Domains, fleet: vc.Fleet) -> None:
    random = Random(1)
    records, readings = [], []
    for i in range(500):
        record = fleet.records[i % len(fleet)]
        documents = []
        for document in record.documents:
            facts = dict(document.facts)
            if isinstance(facts.get("tsc_frequency"), int):  # every crystal is a little different
                facts["tsc_frequency"] = int(str(facts["tsc_frequency"])) + random.randrange(5000)
            documents.append(replace(document, facts=facts))
        records.append(replace(record, name=f"h{i}", documents=tuple(documents)))
        readings.append(fleet.readings[i % len(fleet)])
    large = replace(fleet, records=tuple(records), readings=tuple(readings))
    guests = []
    for i in range(5000):
        record_of = domains.records[i % len(domains)]
        at = fleet.names.index(str(record_of.host)) + 48 * random.randrange(10)
        guests.append(replace(record_of, name=f"g{i}", host=f"h{at}"))
    began = time.perf_counter()
    found = reachability(Domains(records=tuple(guests)), large)
    assert len(found.domains) == 5000
    assert time.perf_counter() - began < 20, "a matter of seconds; four on the machine where this was written"
