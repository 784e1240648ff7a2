"""The ``<cpu>`` element, read by the rules of libvirt's own parser (``virCPUDefParseXML``).

What libvirt refuses is refused here, and what it ignores is ignored. XML comes from strangers: no entities, no DTD,
no network, bounded sizes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NoReturn, TypeAlias

from lxml import etree

from vmcompat.errors import DocumentError

X86: Final = ("x86_64", "i686")
MAX_FEATURES: Final = 4096  # ten times what the newest map knows: more is an attack, not a CPU
MAX_MARKUP: Final = 1_000_000  # tags and attributes of a file: a thousand hosts in one; each costs some 200 bytes

Policy: TypeAlias = Literal["force", "require", "optional", "disable", "forbid"]
POLICIES: Final[tuple[Policy, ...]] = ("force", "require", "optional", "disable", "forbid")

# What <arch> of a host CPU may hold: exact strings, without 'none' and without aliases such as amd64.
_ARCHES: Final = frozenset(
    "alpha armv6l armv7l armv7b aarch64 cris i686 ia64 lm32 loongarch64 m68k microblaze microblazeel mips mipsel "
    "mips64 mips64el openrisc parisc parisc64 ppc ppcle ppc64 ppc64le ppcemb riscv32 riscv64 s390 s390x sh4 sh4eb "
    "sparc sparc64 unicore32 x86_64 xtensa xtensaeb".split()
)
_DTD: Final = "has a DTD, which no libvirt document has; remove it"
_NO_MODEL_NEEDED: Final = ("host-model", "host-passthrough", "maximum")


@dataclass(frozen=True, slots=True)
class MaxPhysAddr:
    """``<maxphysaddr>``: physical address bits [bits], or the host's own with an upper limit [bits]."""

    mode: Literal["emulate", "passthrough"]
    bits: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """A ``<cpu>`` element as libvirt parses it.

    ``arch`` is set on a *host* definition (``virsh capabilities``), where every listed feature is present and
    carries the policy ``require``; it is None on a *guest* definition (domain XML, host-model of
    ``virsh domcapabilities``).
    """

    arch: str | None
    model: str | None
    vendor: str | None = None
    features: tuple[tuple[str, Policy], ...] = ()
    mode: str = "custom"
    match: str = "exact"
    check: str | None = None
    fallback: str = "allow"
    maxphysaddr: MaxPhysAddr | None = None
    microcode: int | None = None
    signature: tuple[int, int, int] | None = None
    tsc: tuple[int, bool | None] | None = None
    topology: tuple[int, int, int, int] | None = None
    page_sizes: tuple[int, ...] = ()

    def xml(self) -> str:
        """The part of the definition that decides baselines and comparisons, as XML text."""
        lines = ["<cpu>" if self.arch else f"<cpu mode='{self.mode}' match='{self.match}'>"]
        if self.arch:
            lines.append(f"  <arch>{self.arch}</arch>")
        lines += [f"  <{tag}>{text}</{tag}>" for tag, text in (("model", self.model), ("vendor", self.vendor)) if text]
        bits = self.maxphysaddr
        if bits is not None:
            numbers = "".join(f" {n}='{v}'" for n, v in (("bits", bits.bits), ("limit", bits.limit)) if v is not None)
            lines.append(f"  <maxphysaddr mode='{bits.mode}'{numbers}/>")
        for name, policy in self.features:
            lines.append(
                f"  <feature name='{name}'/>" if self.arch else f"  <feature policy='{policy}' name='{name}'/>"
            )
        return "\n".join([*lines, "</cpu>", ""])


def parse_xml(data: bytes, *, source: str) -> etree._Element:
    """The root element of one XML document from an untrusted source.

    Raises
    ------
    DocumentError
        The text is no XML, has a DTD or entities, or is nested or sized beyond what such documents are.
    """
    if sum(map(data.count, (b"<", b"=", b"&"))) > MAX_MARKUP:
        raise DocumentError(f"more than {MAX_MARKUP} tags and attributes; no host has as many", source=source)
    at = data.find(b"<!DOCTYPE")
    if at >= 0 and re.search(rb"<[A-Za-z_]", data[:at]) is None:
        raise DocumentError(_DTD, source=source, line=data.count(b"\n", 0, at) + 1)
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as e:
        text = " ".join((e.msg or "no XML at all").partition(", line")[0].split())[:200]
        raise DocumentError(
            f"not well-formed XML ({text}); fetch the document again", source=source, line=e.lineno or None
        ) from e
    if root.getroottree().docinfo.internalDTD is not None:  # in an encoding that hid it from the search
        raise DocumentError(_DTD, source=source)
    return root


def parse_cpu(
    element: etree._Element,
    *,
    source: str,
    as_host: bool | None = None,
    attributes: Mapping[str, str] | None = None,
) -> Cpu:
    """One ``<cpu>`` element by the rules of libvirt's parser.

    Parameters
    ----------
    element : lxml element
        ``<cpu>``, or the host-model ``<mode>`` of domain capabilities.
    source : str
        For messages.
    as_host : bool, optional
        Read it as a host definition, as ``baselineCPU`` does, or as a guest definition. Default: a host definition
        if it has an ``<arch>``, as the comparisons and the hypervisor baseline do.
    attributes : mapping, optional
        Used in place of the element's own attributes.

    Returns
    -------
    Cpu
        ``model`` is None where the element has none, even on a host definition, where libvirt would refuse: such a
        host exists and has to be shown.

    Raises
    ------
    DocumentError
        libvirt would refuse the element.
    """
    fail = _Refusal(element, source)
    if attributes is None:  # only these: lxml takes quadratic time to list all of a hostile element
        attributes = {n: v for n in ("mode", "match", "check", "migratable") if (v := element.get(n)) is not None}
    arch = element.findtext("arch")
    is_host = as_host if as_host is not None else arch is not None
    if is_host and arch not in _ARCHES:
        fail(f"<arch> is {arch!r}" if arch else "<cpu> of a host without <arch>")
    mode = _mode(attributes, is_host=is_host, forced=as_host is True, fail=fail)
    model = _string(element.find("model"))
    vendor = _string(element.find("vendor"))
    if vendor is not None and model is None and not is_host:
        fail("<vendor> without <model>")
    features = _features(element, is_host=is_host, fail=fail)
    if features and model is None and mode == "custom" and not is_host:
        fail("<feature> without <model>")
    return Cpu(
        arch=arch if is_host else None,
        model=model,
        vendor=vendor,
        features=features,
        mode=mode,
        match="exact" if is_host else _choice(attributes, "match", ("exact", "minimum", "strict"), fail) or "exact",
        check=None if is_host else _choice(attributes, "check", ("none", "partial", "full", "default"), fail),
        fallback=_fallback(element, needed=not is_host and mode in ("custom", "host-model"), fail=fail),
        **_host_details(element, is_host=is_host, fail=fail),  # type: ignore[arg-type]
    )


class _Refusal:
    """Raises the DocumentError of one element; keeps the parser's lines short."""

    def __init__(self, element: etree._Element, source: str) -> None:
        self._element, self.source = element, source

    def __call__(self, problem: str, at: etree._Element | None = None) -> NoReturn:
        line = (self._element if at is None else at).sourceline
        raise DocumentError(f"{problem:.300}; libvirt refuses such a <cpu>", source=self.source, line=line)


def _mode(given: Mapping[str, str], *, is_host: bool, forced: bool, fail: _Refusal) -> str:
    mode = given.get("mode")
    if is_host:
        if mode is not None:
            fail("attribute mode on a host CPU")
        if "match" in given and not forced:
            fail("attribute match on a host CPU")
    elif mode is not None and mode not in ("custom", *_NO_MODEL_NEEDED):
        fail(f"mode={mode!r}")
    if "migratable" in given and mode not in ("host-passthrough", "maximum"):
        fail("attribute migratable without host-passthrough or maximum")
    return mode or "custom"


def _choice(
    given: etree._Element | Mapping[str, str], name: str, allowed: tuple[str, ...], fail: _Refusal
) -> str | None:
    value = given.get(name)
    if value is not None and value not in allowed:
        fail(f"{name}={value!r}")
    return value


def _fallback(element: etree._Element, *, needed: bool, fail: _Refusal) -> str:
    model = element.find("model")
    if model is None or not needed:
        return "allow"
    vendor_id = model.get("vendor_id")
    if vendor_id is not None and (len(vendor_id.encode()) != 12 or "," in vendor_id):
        fail(f"vendor_id={vendor_id!r} is not 12 bytes without a comma")
    return _choice(model, "fallback", ("allow", "forbid"), fail) or "allow"


def _features(element: etree._Element, *, is_host: bool, fail: _Refusal) -> tuple[tuple[str, Policy], ...]:
    listed = element.findall("feature")
    if len(listed) > MAX_FEATURES:
        raise DocumentError(
            f"<cpu> with {len(listed)} features; no CPU has more than a few hundred",
            source=fail.source,
            line=element.sourceline,
        )
    features: dict[str, Policy] = {}
    for f in listed:
        name = f.get("name")
        if not name:
            fail("<feature> without name", f)
        elif name in features:
            fail(f"feature {name} twice", f)
        elif is_host:
            features[name] = "require"
        else:
            policy = f.get("policy", "require")
            if policy not in POLICIES:
                fail(f"policy={policy!r} of feature {name}", f)
            features[name] = policy
    return tuple(features.items())


def _host_details(element: etree._Element, *, is_host: bool, fail: _Refusal) -> dict[str, object]:
    details: dict[str, object] = {}
    if (topology := element.find("topology")) is not None:
        names = ("sockets", "dies", "cores", "threads", "clusters")
        counts = [_number(topology, n, fail, default=1 if n in ("dies", "clusters") else None) for n in names]
        if 0 in counts:
            fail("<topology> with a count of 0", topology)
        details["topology"] = tuple(counts[:4])
    _check_cache(element, fail)
    if (bits := element.find("maxphysaddr")) is not None:
        mode = _choice(bits, "mode", ("emulate", "passthrough"), fail)
        if mode is None:
            fail("<maxphysaddr> without mode", bits)
        count, limit = (_number(bits, n, fail, default=-1, most=_INT) for n in ("bits", "limit"))
        if limit >= 0 and mode != "passthrough":
            fail("<maxphysaddr> with a limit and without mode passthrough", bits)
        details["maxphysaddr"] = MaxPhysAddr(
            mode,  # type: ignore[arg-type]
            count if count >= 0 else None,
            limit if limit >= 0 else None,
        )
    if is_host:
        if (microcode := element.find("microcode")) is not None and "version" in microcode.attrib:
            details["microcode"] = _number(microcode, "version", fail)
        if (signature := element.find("signature")) is not None:
            numbers = tuple(_number(signature, n, fail) for n in ("family", "model", "stepping"))
            if numbers[0] == 0:
                fail("<signature> with family 0", signature)
            details["signature"] = numbers
        if (counter := element.find("counter[@name='tsc']")) is not None:
            scaling = {"yes": True, "no": False}.get(_choice(counter, "scaling", ("yes", "no"), fail) or "")
            details["tsc"] = (_number(counter, "frequency", fail, most=_ULL), scaling)
        sizes = (kib(p, p.get("size")) for p in element.iterfind("pages"))
        details["page_sizes"] = tuple(sorted(size for size in sizes if size is not None))
    return details


def _check_cache(element: etree._Element, fail: _Refusal) -> None:
    caches = element.findall("cache")
    if len(caches) > 1:
        fail("more than one <cache>", caches[1])
    for cache in caches:
        if cache.get("mode") not in ("emulate", "passthrough", "disable"):
            fail(f"<cache> with mode={cache.get('mode')!r}", cache)
        if _number(cache, "level", fail, default=1, most=3) == 0:
            fail("<cache> with level 0", cache)


_INT: Final = 2**31 - 1
_UINT: Final = 2**32 - 1
_ULL: Final = 2**64 - 1


def _number(
    element: etree._Element, name: str, fail: _Refusal, *, default: int | None = None, most: int = _UINT
) -> int:
    text = element.get(name)
    if text is None and default is not None:
        return default
    match = re.fullmatch(r"\s*\+?0*([0-9]{1,20})", text or "")
    if match is None or int(match[1]) > most:
        fail(f"<{element.tag!s}> with {name}={text!r}", element)
    return int(match[1])


def _string(element: etree._Element | None) -> str | None:
    """The string value of an element, not trimmed: libvirt knows no model ' Haswell '."""
    return ("".join(element.itertext()) or None) if element is not None else None


def whole(text: str | None) -> int | None:
    """A number of a document that libvirt does not check, or None where it is none."""
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,20}", text) else None


_UNITS: Final = {"KiB": 1, "MiB": 1024, "GiB": 1024**2}


def kib(element: etree._Element, text: str | None) -> int | None:
    """A size in the ``unit`` of its element, in KiB; None where it is none."""
    number, factor = whole((text or "").strip()), _UNITS.get(element.get("unit", "KiB"))
    return None if number is None or factor is None else number * factor
