"""Domain XML: what ties a guest to its host is read, and only what decides compatibility is rewritten."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from tests.migration.scene import UUID, domain_xml
from vmcompat.errors import DocumentError
from vmcompat.migration.domain import cpu_text, difference, read_domain, with_cpu
from vmcompat.migration.immovable import HostDevice, SharedMemory

SHARE = "<cachetune vcpus='0'>{}</cachetune><memorytune vcpus='0'>{}</memorytune>"
BASELINE = """<cpu mode='custom' match='exact' check='partial'>
  <model fallback='forbid'>Westmere</model>
  <vendor>Intel</vendor>
  <feature policy='require' name='pclmuldq'/>
  <feature policy='disable' name='vme'/>
</cpu>
"""
OLD_CPUS = {
    "custom": """<cpu mode='custom' match='minimum' check='none'>
    <model fallback='allow'>SandyBridge</model>
  </cpu>""",
    "passthrough": "<cpu mode='host-passthrough' check='none' migratable='on'/>",
    "host-model": "<cpu mode='host-model'></cpu>",
    "maximum": '<cpu mode="maximum" check="none" />',
    "none": "",
    "with topology": """<cpu mode='host-model' check='partial'>
    <topology sockets='1' dies='1' cores='2' threads='2'/>
    <maxphysaddr mode='emulate' bits='42'/>
    <feature policy='disable' name='vmx'/>
    <numa>
      <cell id='0' cpus='0-3' memory='4194304' unit='KiB'/>
    </numa>
  </cpu>""",
}


def outside_cpu(xml: str) -> str:
    """The text without its <cpu>, and without the line that one in a definition without CPU would take."""
    cpu = cpu_text(xml)
    return xml if cpu is None else xml.replace(f"{cpu}\n  ", "", 1)


@pytest.mark.parametrize("old", OLD_CPUS)
def test_only_the_cpu_changes_and_it_becomes_the_baseline(old: str) -> None:
    before = domain_xml(cpu=OLD_CPUS[old])
    after = with_cpu(before, BASELINE)
    assert outside_cpu(after) == outside_cpu(before)
    cpu = read_domain(after, source="after").cpu
    assert cpu is not None
    assert (cpu.mode, cpu.match, cpu.check, cpu.fallback) == ("custom", "exact", "partial", "forbid")
    assert (cpu.model, cpu.vendor) == ("Westmere", "Intel")
    assert cpu.features == (("pclmuldq", "require"), ("vme", "disable"))
    assert "migratable" not in (cpu_text(after) or "")


def test_topology_numa_and_address_bits_stay_in_libvirts_order() -> None:
    after = with_cpu(domain_xml(cpu=OLD_CPUS["with topology"]), BASELINE)
    cpu = etree.fromstring(cpu_text(after) or "")
    tags = ["model", "vendor", "topology", "maxphysaddr", "feature", "feature", "numa"]
    assert [child.tag for child in cpu] == tags
    assert [dict(e.attrib) for e in cpu.iterfind("numa/cell")] == [
        {"id": "0", "cpus": "0-3", "memory": "4194304", "unit": "KiB"}
    ]


@pytest.mark.parametrize("old", OLD_CPUS)
def test_writing_the_same_cpu_again_changes_nothing(old: str) -> None:
    once = with_cpu(domain_xml(cpu=OLD_CPUS[old]), BASELINE)
    assert with_cpu(once, BASELINE) == once
    assert difference(once, with_cpu(once, BASELINE), name="web1") == ""


def test_every_domain_of_the_sample_keeps_all_but_its_cpu(samples: Path) -> None:
    paths = sorted((samples / "mixed" / "domains").glob("*.xml"))
    assert len(paths) > 50
    for path in paths:
        before = path.read_text(encoding="utf-8")
        after = with_cpu(before, BASELINE)
        assert outside_cpu(after) == outside_cpu(before), path
        kept = {"topology", "numa", "cache", "maxphysaddr"}
        parts = [
            [etree.tostring(e) for e in etree.fromstring(text).iterfind("cpu/*") if e.tag in kept]
            for text in (before, after)
        ]
        assert [p.strip() for p in parts[1]] == [p.strip() for p in parts[0]], path


def test_the_manager_of_every_domain_of_the_sample_is_recognised(samples: Path) -> None:
    folder = samples / "mixed" / "domains"
    called = {"nova": "OpenStack Nova", "ovirt": "oVirt", "kubevirt": "KubeVirt", "cloudstack": "CloudStack"}
    with (folder / "domains.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        path = folder / f"{row['domain']}.xml"
        domain = read_domain(path.read_text(encoding="utf-8"), source=str(path))
        expected = [] if row["manager"] == "libvirt" else [called[row["manager"]]]
        assert [manager for manager, _, _ in domain.managers] == expected, path
        assert domain.namespaces == ()
    assert {row["manager"] for row in rows} == {"libvirt", *called}


# What may stand around <cpu> and must come out as it went in: comments, CDATA, namespaces, tags that look alike.
AROUND = st.lists(
    st.sampled_from(
        [
            "<title>\u00e4\u20ac\U0001f40e</title>",
            "<!-- <cpu mode='maximum'/> -->",
            "<description><![CDATA[</cpu><cpu/>]]></description>",
            "<metadata><x:cpu xmlns:x='urn:x'><x:model>y</x:model></x:cpu></metadata>",
            "<cputune/>",
            "<features><hyperv mode='custom'/></features>",
            "<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><q:arg value='-cpu'/></q:commandline>",
            '<on_poweroff a="b>c">destroy</on_poweroff>',
            "<a><cpu mode='custom'><model>inner</model></cpu></a>",
        ]
    ),
    unique=True,
).map("\n  ".join)


@given(before=AROUND, inside=AROUND, old=st.sampled_from(sorted(OLD_CPUS)))
def test_whatever_stands_around_it_stays(before: str, inside: str, old: str) -> None:
    xml = domain_xml(before=before, inside=inside, cpu=OLD_CPUS[old])
    after = with_cpu(xml, BASELINE)
    assert outside_cpu(after) == outside_cpu(xml)
    cpu = read_domain(after, source="after").cpu
    assert cpu is not None
    assert (cpu.mode, cpu.model) == ("custom", "Westmere")


def test_a_hostile_name_stays_one_word_in_the_managers_command() -> None:
    note = "<metadata><k:k xmlns:k='http://kubevirt.io'/></metadata>"
    domain = read_domain(domain_xml(name="shop_a; reboot", before=note), source="web1")
    assert domain.managers[0][2] == "virtctl migrate --namespace shop 'a; reboot'"


def test_what_ties_a_domain_to_its_host_is_read() -> None:
    domain = read_domain(
        domain_xml(
            vcpu="<vcpu placement='static' cpuset='0-3,^2,8' current='1'>4</vcpu>",
            before="""<cputune><vcpupin vcpu='0' cpuset='1'/><emulatorpin cpuset='0'/>
            <iothreadpin iothread='1' cpuset='2-3'/></cputune>
            <numatune><memory mode='strict' nodeset='0-1'/><memnode cellid='0' nodeset='1'/></numatune>""",
            inside="<clock offset='utc'><timer name='tsc' frequency='2500000000'/></clock>",
        ),
        source="web1",
    )
    assert (domain.name, domain.uuid, domain.virttype, domain.vcpus) == ("web1", UUID, "kvm", 4)
    assert (domain.machine, domain.emulator) == ("pc-q35-7.2", "/usr/bin/qemu-system-x86_64")
    assert dict(domain.pins) == {
        "<vcpu cpuset>": {0, 1, 3, 8},
        "<vcpupin vcpu='0'>": {1},
        "<emulatorpin>": {0},
        "<iothreadpin iothread='1'>": {2, 3},
    }
    assert dict(domain.nodes) == {"<numatune><memory>": {0, 1}, "<numatune><memnode cellid='0'>": {1}}
    assert domain.tsc_frequency == 2_500_000_000


@pytest.mark.parametrize(
    ("xml", "problem"),
    [
        ("<capabilities/>", "not <domain>"),
        ("<domain><name>x</name>", "not well-formed"),
        ("<!DOCTYPE domain [<!ENTITY a 'b'>]><domain type='kvm'><name>&a;</name></domain>", "DTD"),
        (domain_xml(vcpu="<vcpu cpuset='0-3;reboot'>1</vcpu>"), "is no set"),
        (domain_xml(vcpu="<vcpu>many</vcpu>"), "<vcpu> is 'many', not a number"),
        (domain_xml(cpu="<cpu mode='custom'><feature name='avx'/></cpu>"), "<feature> without <model>"),
    ],
)
def test_what_is_no_domain_is_one_clear_error(xml: str, problem: str) -> None:
    with pytest.raises(DocumentError, match=f"web1.*{problem}"):
        read_domain(xml, source="web1")


def test_entities_are_not_followed_where_text_is_cut_either() -> None:
    with pytest.raises(DocumentError, match="DTD"):
        with_cpu("<!DOCTYPE domain [<!ENTITY a '<cpu/>'>]><domain>&a;<devices/></domain>", BASELINE)


@pytest.mark.parametrize(
    ("limit", "limited"),
    [
        ("<hard_limit unit='GiB'>4</hard_limit>", True),
        ("<hard_limit unit='KiB'>0</hard_limit>", False),
        ("<hard_limit unit='KiB'>9007199254740991</hard_limit>", False),
        ("<soft_limit unit='GiB'>4</soft_limit>", False),
    ],
)
def test_a_limit_of_memory_is_one_where_libvirt_takes_it_for_one(limit: str, limited: bool) -> None:
    assert read_domain(domain_xml(before=f"<memtune>{limit}</memtune>"), source="x").hard_limit is limited


@pytest.mark.parametrize(
    ("cache", "bandwidth", "shares"),
    [
        ("<cache id='0' level='3' type='both' size='3'/>", "", ("cachetune",)),
        ("<monitor level='3' vcpus='0'/>", "<node id='0' bandwidth='20'/>", ("memorytune",)),
        ("<monitor level='3' vcpus='0'/>", "<monitor vcpus='0'/>", ()),
    ],
)
def test_a_share_is_asked_for_where_more_than_a_monitor_is_asked_for(
    cache: str, bandwidth: str, shares: tuple[str, ...]
) -> None:
    before = f"<cputune>{SHARE.format(cache, bandwidth)}</cputune>"
    assert read_domain(domain_xml(before=before), source="x").shares == shares


def test_what_holds_a_guest_is_read_with_what_decides_whether_it_does() -> None:
    held = read_domain(domain_xml(devices="""
<hostdev mode='subsystem' type='mdev' model='vfio-ap'><source><address uuid='c2177883'/></source></hostdev>
<interface type='hostdev'><source network='vfs'><address type='pci' domain='0x0000' bus='0x00' slot='0x07'
function='0x0'/></source><teaming type='transient' persistent='ua-1'/></interface>
<interface type='bridge'><source bridge='br0'/><teaming type='persistent'/></interface>
<shmem name='s' role='master'><model type='ivshmem-doorbell'/><server path='/s'/></shmem>
"""), source="x").immovable  # fmt: skip
    assert held.hostdevs == (
        HostDevice(type="mdev", name="c2177883", model="vfio-ap"),
        HostDevice(type="pci", name="0000:00:07.0", teamed=True, network="vfs"),
    )
    assert held.shared == (SharedMemory(name="s", model="ivshmem-doorbell", role="master", server="/s"),)
    assert (held.stateless, held.images, held.handed) == ((), (), ())
