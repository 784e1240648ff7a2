"""A <cpu> is read by the rules of libvirt's own parser, and refused where libvirt refuses it."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmcompat as vc
from tests.fleet.documents import capabilities, cpu
from vmcompat.connect import Host, open_host
from vmcompat.errors import DocumentError
from vmcompat.fleet.cpu import Cpu, MaxPhysAddr, parse_cpu, parse_xml


def host(xml: str) -> Cpu:
    """Read as baselineCPU reads it."""
    return parse_cpu(parse_xml(xml.encode(), source="test"), source="test", as_host=True)


def auto(xml: str) -> Cpu:
    """Read as the comparisons and the hypervisor baseline read it."""
    return parse_cpu(parse_xml(xml.encode(), source="test"), source="test")


ARCH = "<arch>x86_64</arch>"
NAMED = f"{ARCH}<model>Westmere</model>"


@pytest.mark.parametrize(
    "xml",
    [
        "<cpu><model>Westmere</model></cpu>",
        "<cpu><arch/><model>Westmere</model></cpu>",
        "<cpu><arch>amd64</arch><model>Westmere</model></cpu>",
        "<cpu><arch>none</arch><model>Westmere</model></cpu>",
        "<cpu><arch> x86_64</arch><model>Westmere</model></cpu>",
        f"<cpu mode='custom'>{NAMED}</cpu>",
        f"<cpu migratable='on'>{NAMED}</cpu>",
        f"<cpu>{NAMED}<microcode version='-1'/></cpu>",
        f"<cpu>{NAMED}<microcode version='4294967296'/></cpu>",
        f"<cpu>{NAMED}<signature family='0' model='1' stepping='1'/></cpu>",
        f"<cpu>{NAMED}<signature family='6' model='1'/></cpu>",
        f"<cpu>{NAMED}<counter name='tsc'/></cpu>",
        f"<cpu>{NAMED}<counter name='tsc' frequency='1' scaling='perhaps'/></cpu>",
        f"<cpu>{NAMED}<topology sockets='1' cores='1'/></cpu>",
        f"<cpu>{NAMED}<topology sockets='0' cores='1' threads='1'/></cpu>",
        f"<cpu>{NAMED}<cache/></cpu>",
        f"<cpu>{NAMED}<cache mode='emulate' level='4'/></cpu>",
        f"<cpu>{NAMED}<cache mode='disable'/><cache mode='disable'/></cpu>",
        f"<cpu>{NAMED}<maxphysaddr bits='46'/></cpu>",
        f"<cpu>{NAMED}<maxphysaddr mode='emulate' bits='-1'/></cpu>",
        f"<cpu>{NAMED}<maxphysaddr mode='emulate' limit='40'/></cpu>",
        f"<cpu>{NAMED}<feature/></cpu>",
        f"<cpu>{NAMED}<feature name=''/></cpu>",
        f"<cpu>{NAMED}<feature name='vmx'/><feature name='vmx'/></cpu>",
    ],
)
def test_a_host_cpu_that_libvirt_refuses_is_refused(xml: str) -> None:
    with pytest.raises(DocumentError, match=r"^test:1: .+; libvirt refuses such a <cpu>$"):
        host(xml)


def test_match_is_refused_on_what_turns_out_to_be_a_host_cpu_and_ignored_on_what_was_asked_for_as_one() -> None:
    xml = f"<cpu match='bogus' check='bogus'>{NAMED}</cpu>"
    with pytest.raises(DocumentError, match="match"):
        auto(xml)
    assert host(xml).model == "Westmere"


@pytest.mark.parametrize(
    "xml",
    [
        "<cpu mode='bogus'/>",
        "<cpu mode='custom' migratable='on'/>",
        "<cpu match='bogus'/>",
        "<cpu check='bogus'/>",
        "<cpu><vendor>Intel</vendor></cpu>",
        "<cpu><feature name='vmx'/></cpu>",
        "<cpu><model fallback='bogus'>Westmere</model></cpu>",
        "<cpu><model vendor_id='short'>Westmere</model></cpu>",
        "<cpu><model vendor_id='a,comma here'>Westmere</model></cpu>",
        "<cpu><model>Westmere</model><feature name='vmx' policy='bogus'/></cpu>",
        "<cpu><model>Westmere</model><feature name='vmx'/><feature name='vmx' policy='disable'/></cpu>",
    ],
)
def test_a_guest_cpu_that_libvirt_refuses_is_refused(xml: str) -> None:
    with pytest.raises(DocumentError, match="libvirt refuses"):
        auto(xml)


def test_on_a_host_every_listed_feature_is_present_whatever_its_policy() -> None:
    given = host(f"<cpu>{NAMED}<feature name='vmx' policy='forbid'/><feature name='avx' policy='bogus'/></cpu>")
    assert given.features == (("vmx", "require"), ("avx", "require"))


def test_a_guest_keeps_its_policies_and_defaults() -> None:
    listed = "".join(f"<feature name='{p}' policy='{p}'/>" for p in ("force", "optional", "disable", "forbid"))
    given = auto(f"<cpu><model>Westmere</model><feature name='require'/>{listed}</cpu>")
    assert [p for _, p in given.features] == ["require", "force", "optional", "disable", "forbid"]
    assert (given.arch, given.mode, given.match, given.check, given.fallback) == (
        None,
        "custom",
        "exact",
        None,
        "allow",
    )


def test_a_model_is_its_whole_text_and_is_not_trimmed() -> None:
    assert auto("<cpu><model> Haswell </model></cpu>").model == " Haswell "
    assert auto("<cpu><model>Has<!-- -->well</model><model>Westmere</model></cpu>").model == "Haswell"
    assert auto("<cpu><model/></cpu>").model is None


def test_a_host_without_model_is_read_since_such_hosts_exist() -> None:
    assert host(f"<cpu>{ARCH}<vendor>Intel</vendor></cpu>").model is None


def test_what_libvirt_ignores_is_ignored() -> None:
    given = host(f"<cpu colour='red'>{NAMED}<topology sockets='2' cores='4' threads='2'/><pages size='x'/><foo/></cpu>")
    assert given.topology == (2, 1, 4, 2)
    assert given.page_sizes == ()


def test_details_of_a_host_are_read() -> None:
    given = host(
        f"<cpu>{NAMED}<microcode version='47'/><counter name='tsc' frequency='2394454000' scaling='yes'/>"
        "<signature family='6' model='85' stepping='4'/><maxphysaddr mode='passthrough' limit='46'/>"
        "<pages unit='KiB' size='2048'/><pages unit='KiB' size='4'/></cpu>"
    )
    assert (given.microcode, given.tsc, given.signature) == (47, (2394454000, True), (6, 85, 4))
    assert given.maxphysaddr == MaxPhysAddr("passthrough", limit=46)
    assert given.page_sizes == (4, 2048)


@pytest.mark.parametrize(
    "xml",
    [
        f"<cpu>{NAMED}<maxphysaddr mode='emulate' bits='46'/><feature name='vmx'/></cpu>",
        "<cpu mode='custom' match='strict'><model>Westmere</model><vendor>Intel</vendor>"
        "<maxphysaddr mode='passthrough' limit='40'/><feature name='vmx' policy='disable'/></cpu>",
    ],
)
def test_the_text_of_a_cpu_reads_as_that_cpu(xml: str) -> None:
    assert auto(auto(xml).xml()) == auto(xml)


NUMBERS = st.sampled_from(
    ["1", "0", "6", "-1", "+1", " 1", "1 ", "", "x", "0x10", "0" * 30 + "1", "4294967295", "4294967296", "1" * 21]
)
TEXTS = ["", "x", "yes", "no", "on", "emulate", "passthrough", "disable", "custom", "exact", "tsc", "1", "3", "4"]


def element(tag: str, **attributes: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """An element with some of those attributes."""

    def text(given: dict[str, str]) -> str:
        return f"<{tag}{''.join(f' {n}={v!r}' for n, v in given.items())}/>"

    return st.fixed_dictionaries({}, optional=attributes).map(text)


@st.composite
def host_cpus(draw: st.DrawFn, *, models: list[str], features: list[str]) -> str:
    """A <cpu> of a host with, mostly, a mistake or an oddity somewhere."""

    def often(usual: str, *odd: str) -> str:
        return draw(st.sampled_from([usual] * 9 + list(odd)))

    words = st.sampled_from(TEXTS)
    names = draw(st.lists(st.sampled_from(features), max_size=6, unique=True))
    names += draw(st.sampled_from([[]] * 9 + [["no-such"], names[:1], [""], ["sse4_1"]]))
    policies = [draw(st.sampled_from(["", "", " policy='disable'", " policy='bogus'"])) for _ in names]
    model = draw(st.sampled_from(models))
    kinds = [
        element("microcode", version=NUMBERS),
        element("signature", family=NUMBERS, model=NUMBERS, stepping=NUMBERS),
        element("counter", name=words, frequency=NUMBERS, scaling=words),
        element("topology", sockets=NUMBERS, dies=NUMBERS, cores=NUMBERS, threads=NUMBERS),
        element("cache", level=words, mode=words),
        element("maxphysaddr", mode=words, bits=NUMBERS),
        element("pages", unit=words, size=NUMBERS),
    ]
    parts = [
        often("<arch>x86_64</arch>", "<arch>i686</arch>", "", "<arch/>", "<arch>amd64</arch>", "<arch> x86_64</arch>"),
        often(
            f"<model>{model}</model>",
            "",
            "<model/>",
            f"<model> {model}</model>",
            f"<model>{model}<!-- --></model>",
            f"<model><![CDATA[{model}]]></model><model>x</model>",
            f"<model fallback='bogus' vendor_id='x'>{model}</model>",
            "<model>no-such</model>",
        ),
        often("", "<vendor>Intel</vendor>", "<vendor>AMD</vendor>", "<vendor>no-such</vendor>", "<vendor/>"),
        *draw(st.lists(st.one_of(kinds), max_size=2)),
        *(f"<feature name='{n}'{p}/>" for n, p in zip(names, policies, strict=True)),
    ]
    attributes = often("", " match='bogus'", " check='bogus'", " mode='custom'", " mode=''", " migratable='on'")
    return f"<cpu{attributes}>{''.join(draw(st.permutations(parts)))}</cpu>"


@pytest.fixture(scope="module")
def linked() -> Iterator[Host]:
    """The libvirt on this machine, which needs no host to answer."""
    pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    with open_host("test:///default") as opened:
        yield opened


def test_libvirt_has_an_answer_exactly_where_strict_reading_has_one(linked: Host) -> None:
    cpu_map = vc.CpuMap.load("system")
    answered: list[bool] = []

    @settings(max_examples=250, derandomize=True)
    @given(host_cpus(models=list(cpu_map.models), features=list(cpu_map.features)))
    def agree(xml: str) -> None:
        try:
            theirs = linked.ask("a baseline", lambda c: c.baselineCPU([xml], 0))
        except vc.VmcompatError:
            theirs = None
        fleet = vc.read_fleet({"h": capabilities(xml)}, cpu_map=cpu_map, strict=True)
        try:
            ours = fleet.baseline(driver="test", migratable=False).xml
        except vc.VmcompatError:
            ours = None
        assert ours == theirs
        answered.append(theirs is not None)

    agree()
    assert 50 <= sum(answered) <= len(answered) - 50, "the examples are not mixed"


def test_a_cpu_with_more_features_than_any_has_is_refused() -> None:
    with pytest.raises(DocumentError, match=r"^test:1: <cpu> with 5000 features"):
        host(cpu("Westmere", *(f"f{i}" for i in range(5000))))
