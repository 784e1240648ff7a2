"""Domain XML: what in it ties the domain to a host, and how another CPU is written into it.

Only ``<cpu>`` is ever rewritten, and of it only what decides compatibility. The text around it stays as it was, byte
for byte: the element is cut out by its position, and nothing is printed anew.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from lxml import etree

from vmcompat.errors import DocumentError
from vmcompat.fleet.cpu import Cpu, parse_cpu, parse_xml, whole
from vmcompat.migration.devices import Devices, devices_of, number_set
from vmcompat.migration.immovable import Immovable, immovable_of

# Whose guest it is: what the manager leaves in the XML, and how the manager itself is told to move it. Pacemaker
# leaves nothing, and Proxmox does without libvirt.
_MANAGERS: Final = (
    ("OpenStack Nova", ("http://openstack.org/xmlns/libvirt/nova/",), "openstack",
     "openstack server migrate --live-migration {uuid}"),
    ("oVirt", ("http://ovirt.org/vm/",), "ovirt", "migrate it in oVirt's administration portal"),
    ("KubeVirt", ("http://kubevirt.io",), "kubevirt", "virtctl migrate --namespace {space} {vm}"),
    ("CloudStack", (), "apache software foundation", "cmk migrate virtualmachine virtualmachineid={uuid}"),
    ("OpenNebula", ("http://opennebula.org/xmlns/",), "opennebula", "onevm migrate --live {name} HOST"),
)  # fmt: skip
# Metadata of tools that write a note and manage nothing.
_HARMLESS: Final = (
    "http://libosinfo.org/", "https://libosinfo.org/", "http://libvirt.org/schemas/", "http://virt-manager.org/",
    "https://wiki.gnome.org/Apps/Boxes", "https://github.com/cockpit-project/cockpit/",
)  # fmt: skip

_REPLACED: Final = ("model", "vendor", "feature")
_END_TAG: Final = re.compile(rb"</([^\s>]+)\s*>")
# virsh takes a number for an id and 36 letters for a UUID before it looks for the name.
_NOT_A_NAME: Final = re.compile(r"\s*[+-]?\d+|.{36}", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A domain's XML, live or stored, and what in it depends on the host.

    Attributes
    ----------
    xml : str
        The whole text.
    cpu : Cpu or None
        None where the definition leaves the CPU to the hypervisor.
    vcpus : int
        Most virtual CPUs that it may have.
    pins : tuple of (str, frozenset of int)
        Where host CPUs are named (``<vcpu cpuset>``, ``<vcpupin vcpu='0'>``), and which.
    nodes : tuple of (str, frozenset of int)
        Where host NUMA nodes are named, and which.
    tsc_frequency : int or None
        Fixed frequency of the guest's time stamp counter [Hz].
    memory : int or None
        Most memory that it may have now [KiB]; None where the definition gives no number.
    page_sizes : tuple of (int or None)
        Huge pages that it asks for [KiB]; None for those of the host's default size. Empty without huge pages.
    hyperv, kvm : tuple of str
        Hyper-V enlightenments and KVM's own features that are on; of Hyper-V ``"passthrough"`` alone where it has
        whatever the host offers.
    hostdevs : tuple of str
        Devices of the host that it was given, each by kind and address.
    immovable : Immovable
        These again, and what else holds it where it is.
    hard_limit : bool
        ``<memtune>`` limits what its QEMU may use of the host's memory.
    shares : tuple of str
        What of the host's caches and memory bandwidth ``<cputune>`` sets apart for it: ``cachetune``, ``memorytune``.
    launch_security : str or None
        How its memory is sealed from the host (``sev``, ``s390-pv``).
    devices : Devices
        Its own devices (disks, interfaces, graphics and so on), and what else of it leans on the host.
    managers : tuple of (str, str, str)
        Who else manages the domain, what in the XML says so, and how to move the domain there.
    namespaces : tuple of str
        Of metadata that nobody here knows.
    """

    xml: str = field(repr=False)
    name: str
    uuid: str
    virttype: str
    arch: str | None
    machine: str | None
    emulator: str | None
    cpu: Cpu | None
    vcpus: int
    pins: tuple[tuple[str, frozenset[int]], ...] = ()
    nodes: tuple[tuple[str, frozenset[int]], ...] = ()
    tsc_frequency: int | None = None
    memory: int | None = None
    page_sizes: tuple[int | None, ...] = ()
    hyperv: tuple[str, ...] = ()
    kvm: tuple[str, ...] = ()
    hostdevs: tuple[str, ...] = ()
    immovable: Immovable = field(default_factory=Immovable)
    hard_limit: bool = False
    shares: tuple[str, ...] = ()
    launch_security: str | None = None
    devices: Devices = field(default_factory=Devices)
    managers: tuple[tuple[str, str, str], ...] = ()
    namespaces: tuple[str, ...] = ()


def typed(name: str, uuid: str) -> str:
    """What to type for a domain: its name, or its UUID where virsh or a reader would take the name for another."""
    return uuid if uuid and (_NOT_A_NAME.fullmatch(name) or not name.isprintable()) else name


def read_domain(xml: str, *, source: str) -> Domain:
    """One ``<domain>`` as ``virsh dumpxml`` prints it.

    Parameters
    ----------
    xml : str
        The text.
    source : str
        Where it comes from, for messages.

    Raises
    ------
    DocumentError
        The text is no domain, or libvirt would not take its ``<cpu>``, a set of CPUs or a device in it.
    """
    return domain_of(parse_xml(xml.encode(), source=source), xml=xml, source=source)


def domain_of(root: etree._Element, *, xml: str, source: str) -> Domain:
    """See :func:`read_domain`; for a text whose root element is there already."""
    if root.tag != "domain":
        raise DocumentError(f"root element is <{root.tag!s}>, not <domain>", source=source, line=root.sourceline)
    name, uuid = (root.findtext("name") or "").strip(), (root.findtext("uuid") or "").strip()
    kind, cpu, tsc = root.find("os/type"), root.find("cpu"), root.find("clock/timer[@name='tsc'][@frequency]")
    pins, nodes = tuple(_pins(root, source)), tuple(_nodes(root, source))
    managers, namespaces = _owners(root, name=name, uuid=uuid)
    sealed, held = root.find("launchSecurity"), immovable_of(root)
    return Domain(
        xml=xml,
        name=name,
        uuid=uuid,
        virttype=root.get("type", ""),
        arch=None if kind is None else kind.get("arch"),
        machine=None if kind is None else kind.get("machine"),
        emulator=(root.findtext("devices/emulator") or "").strip() or None,
        cpu=None if cpu is None else parse_cpu(cpu, source=source, as_host=False),
        vcpus=_number(root.findtext("vcpu") or "1", "<vcpu>", source),
        pins=pins,
        nodes=nodes,
        tsc_frequency=None if tsc is None else _number(tsc.get("frequency", ""), "<timer frequency>", source),
        memory=_memory(root),
        page_sizes=tuple(_page_sizes(root)),
        hyperv=_hyperv(root),
        kvm=_switched_on(root.find("features/kvm")),
        hostdevs=tuple(map(str, held.hostdevs)),
        immovable=held,
        hard_limit=_hard_limit(root),
        shares=tuple(kind for kind, part in _SHARES if root.find(f"cputune/{kind}/{part}") is not None),
        launch_security=None if sealed is None else sealed.get("type", ""),
        devices=devices_of(root, source=source),
        managers=managers,
        namespaces=namespaces,
    )


def _number(text: str, where: str, source: str) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,18}\s*", text):
        raise DocumentError(f"{where} is {text!r}, not a number", source=source)
    return int(text)


def _pins(root: etree._Element, source: str) -> Iterator[tuple[str, frozenset[int]]]:
    vcpu = root.find("vcpu[@cpuset]")
    if vcpu is not None:
        yield "<vcpu cpuset>", _numbers(vcpu, "cpuset", source)
    for pin in root.iterfind("cputune/*[@cpuset]"):
        of = "".join(f" {k}='{pin.get(k, '')}'" for k in ("vcpu", "vcpus", "iothread") if k in pin.attrib)
        yield f"<{pin.tag!s}{of}>", _numbers(pin, "cpuset", source)


def _nodes(root: etree._Element, source: str) -> Iterator[tuple[str, frozenset[int]]]:
    for node in root.iterfind("numatune/*[@nodeset]"):
        cell = f" cellid='{node.get('cellid', '')}'" if "cellid" in node.attrib else ""
        yield f"<numatune><{node.tag!s}{cell}>", _numbers(node, "nodeset", source)


def _numbers(element: etree._Element, attribute: str, source: str) -> frozenset[int]:
    text = element.get(attribute, "")
    if (numbers := number_set(text)) is None:
        raise DocumentError(f"{attribute}={text!r} is no set", source=source, line=element.sourceline)
    return numbers


_BYTES: Final = {
    "b": 1, "bytes": 1, "kb": 10**3, "k": 2**10, "kib": 2**10, "mb": 10**6, "m": 2**20, "mib": 2**20,
    "gb": 10**9, "g": 2**30, "gib": 2**30, "tb": 10**12, "t": 2**40, "tib": 2**40,
}  # fmt: skip


def _kib(text: str | None, unit: str) -> int | None:
    """A size in KiB, rounded up as libvirt rounds; None where it is none."""
    number, factor = whole((text or "").strip()), _BYTES.get(unit.lower())
    return None if number is None or factor is None else -(-number * factor // 1024)


def _memory(root: etree._Element) -> int | None:
    memory = root.find("memory")
    return None if memory is None else _kib(memory.text, memory.get("unit", "KiB"))


def _page_sizes(root: etree._Element) -> Iterator[int | None]:
    huge = root.find("memoryBacking/hugepages")
    if huge is not None:
        pages = huge.findall("page")
        yield from dict.fromkeys(_kib(p.get("size"), p.get("unit", "KiB")) for p in pages) if pages else [None]


def _hyperv(root: etree._Element) -> tuple[str, ...]:
    hyperv = root.find("features/hyperv")
    passed = hyperv is not None and hyperv.get("mode") == "passthrough"
    return ("passthrough",) if passed else _switched_on(hyperv)


def _switched_on(element: etree._Element | None) -> tuple[str, ...]:
    return () if element is None else tuple(str(e.tag) for e in element if e.get("state") == "on")


# What asks for a share; beside it either may hold no more than monitors, which ask for nothing.
_SHARES: Final = (("cachetune", "cache"), ("memorytune", "node"))
_NO_LIMIT: Final = 2**53 - 1  # libvirt's own word for none [KiB]


def _hard_limit(root: etree._Element) -> bool:
    limit = root.find("memtune/hard_limit")
    size = None if limit is None else _kib(limit.text, limit.get("unit", "KiB"))
    return size is not None and 0 < size < _NO_LIMIT


def _owners(root: etree._Element, *, name: str, uuid: str) -> tuple[tuple[tuple[str, str, str], ...], tuple[str, ...]]:
    namespaces = [etree.QName(e).namespace or "" for e in root.iterfind("metadata/*")]
    system = [(e.text or "").strip() for e in root.iterfind("sysinfo/system/entry") if e.get("name") != "uuid"]
    space, _, vm = name.partition("_")  # as KubeVirt names its domains
    words = {"name": name, "uuid": uuid, "space": space, "vm": vm}
    quoted = {key: shlex.quote(text) for key, text in words.items()}
    managers, known = [], set()
    for manager, prefixes, maker, command in _MANAGERS:
        named = [n for n in namespaces if n.startswith(prefixes)] if prefixes else []
        made = [text for text in system if maker in text.lower()]
        known.update(named)
        if named or made:
            says = f"<metadata> has {named[0]}" if named else f"<sysinfo> says {made[0]!r}"
            managers.append((manager, says, command.format(**quoted)))
    strange = [n for n in namespaces if n not in known and not n.startswith(_HARMLESS)]
    return tuple(managers), tuple(dict.fromkeys(strange))


# ---- writing a CPU into a definition


def cpu_text(xml: str) -> str | None:
    """The ``<cpu>`` element of a domain as it stands in the text; None where there is none."""
    span = next((s for s in _children(xml) if s.tag == "cpu"), None)
    return None if span is None else span.text


def with_cpu(xml: str, cpu: str) -> str:
    """A domain definition with another CPU.

    Parameters
    ----------
    xml : str
        A ``<domain>``.
    cpu : str
        A ``<cpu>`` whose mode, match, check, model, vendor and features replace those of the definition. What else
        the definition's ``<cpu>`` holds (topology, numa, cache, maxphysaddr) stays.

    Returns
    -------
    str
        The same text outside ``<cpu>``.
    """
    children = _children(xml)
    old = next((s for s in children if s.tag == "cpu"), None)
    new = _outline(cpu)
    attributes = "".join(f" {n}='{new.attributes[n]}'" for n in ("mode", "match", "check") if n in new.attributes)
    kept = [s for s in (_children(old.text) if old else []) if s.tag not in _REPLACED]
    given = _children(cpu)
    # libvirt's own order, so that the diff shows what changes and nothing else
    ordered = [
        *(s.text for s in given if s.tag in ("model", "vendor")),
        *(s.text for s in kept if s.tag != "numa"),
        *(s.text for s in given if s.tag == "feature"),
        *(s.text for s in kept if s.tag == "numa"),
    ]
    text = "\n".join([f"<cpu{attributes}>", *(f"    {each}" for each in ordered), "  </cpu>"])
    if old is not None:
        return xml[: old.start] + text + xml[old.end :]
    place = next((s for s in children if s.tag in ("clock", "on_poweroff", "devices")), None)
    if place is None:
        raise DocumentError("a <domain> without <devices>", source="domain")
    return f"{xml[: place.start]}{text}\n  {xml[place.start :]}"


def difference(old: str, new: str, *, name: str) -> str:
    """A unified diff of two definitions, as ``patch`` takes it; empty where they are equal."""
    # at no other ends of lines than those that patch and a shell know
    before, after = (text.removesuffix("\n").split("\n") for text in (old, new))
    lines = difflib.unified_diff(before, after, f"{name}.before.xml", f"{name}.after.xml", lineterm="")
    return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class _Span:
    """One element by its place in the text."""

    tag: str
    start: int
    end: int
    text: str
    attributes: dict[str, str]


def _children(xml: str) -> list[_Span]:
    """The children of the root element, by their places in the text."""
    return [span for depth, span in _spans(xml) if depth == 1]


def _outline(xml: str) -> _Span:
    return next(span for depth, span in _spans(xml) if depth == 0)


def _spans(xml: str) -> list[tuple[int, _Span]]:
    parse_xml(xml.encode(), source="domain")  # refuses entities and DTDs, which expat would follow
    data = xml.encode()
    parser = expat.ParserCreate("utf-8")
    open_at: list[tuple[int, dict[str, str]]] = []
    spans: list[tuple[int, _Span]] = []
    counted = [0, 0]  # so many bytes are so many characters

    def characters(place: int) -> int:
        if place < counted[0]:  # the root's own beginning
            return len(data[:place].decode())
        counted[:] = place, counted[1] + len(data[counted[0] : place].decode())
        return counted[1]

    def start(tag: str, attributes: dict[str, str]) -> None:
        open_at.append((parser.CurrentByteIndex, attributes))

    def end(tag: str) -> None:
        begin, attributes = open_at.pop()
        if len(open_at) <= 1:
            stop = parser.CurrentByteIndex  # behind an empty element, but in front of an end tag
            if (end_tag := _END_TAG.match(data, stop)) and end_tag[1] == tag.encode():
                stop = end_tag.end()
            first, last = characters(begin), characters(stop)
            spans.append((len(open_at), _Span(tag, first, last, xml[first:last], attributes)))

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.Parse(data, True)
    return spans
