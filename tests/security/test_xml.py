"""XML that attacks its reader is refused at once, and what is large is read in seconds."""

import time
from pathlib import Path

import pytest

import vmcompat as vc
from tests.migration.scene import domain_xml
from tests.security.strangers import SECRET, told
from vmcompat.errors import DocumentError
from vmcompat.fleet.cpu import parse_xml
from vmcompat.migration.domain import cpu_text, difference, with_cpu


def nested(depth: int) -> str:
    return "<a>" * depth + "</a>" * depth


LAUGHS = "".join(f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 10))
ATTACKS = {
    "billion laughs": f"<!DOCTYPE domain [<!ENTITY a0 'ha'>{LAUGHS}]><domain><name>&a9;</name></domain>",
    "external entity": "<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain><name>&x;</name></domain>",
    "parameter entity": "<!DOCTYPE d [<!ENTITY % x SYSTEM 'http://127.0.0.1:9/x'> %x;]><domain/>",
    "external DTD": "<!DOCTYPE domain SYSTEM 'http://127.0.0.1:9/x.dtd'><domain/>",
    "UTF-16": "<?xml version='1.0' encoding='UTF-16'?><!DOCTYPE d [<!ENTITY x 'y'>]><domain><name>&x;</name></domain>",
    "unknown entity": "<domain><name>&x;</name></domain>",
    "deep nesting": f"<domain>{nested(100_000)}</domain>",
    "many elements": f"<domain>{'<a/>' * 1_100_000}</domain>",
    "many attributes": "<domain " + " ".join(f"a{i}=''" for i in range(1_100_000)) + "/>",
    "a control character": "<domain><name>\x1b[2J</name></domain>",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_xml_that_attacks_its_reader_is_refused_at_once(attack: str) -> None:
    data = ATTACKS[attack].encode("utf-16" if attack == "UTF-16" else "utf-8")
    began = time.monotonic()
    with pytest.raises(DocumentError) as refused:
        parse_xml(data, source="x.xml")
    guests, fleet = vc.read_domains({"x": data}), vc.read_fleet({"x": data})
    assert [r.known for r in guests.records] == [None]
    assert [len(r.unreadable) for r in fleet.records] == [1]
    assert time.monotonic() - began < 20
    assert "root:" not in told(refused.value) + guests.findings.to_csv() + fleet.findings.to_csv()


def test_an_inclusion_is_an_element_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    include = f"<xi:include xmlns:xi='http://www.w3.org/2001/XInclude' href='{tmp_path}/secret' parse='text'/>"
    text = domain_xml(before=f"<metadata>{include}</metadata><title>{include}</title>")
    guests = vc.read_domains({"web1": text})
    assert SECRET not in repr(guests.records) + guests.frame.to_csv()


@pytest.mark.parametrize(
    "children",
    ["<a>é</a>" * 100_000, "".join(f"<a{i}/>" for i in range(50_000))],
    ids=["alike", "each another"],
)
def test_a_cpu_is_found_among_any_number_of_elements_in_seconds(children: str) -> None:
    text = f"<domain type='kvm'><name>é</name>{children}<cpu mode='host-model'/><devices/></domain>"
    began = time.monotonic()
    assert cpu_text(text) == "<cpu mode='host-model'/>"
    assert "<model>Westmere</model>" in with_cpu(text, "<cpu mode='custom'><model>Westmere</model></cpu>")
    assert time.monotonic() - began < 10


def test_a_diff_has_the_ends_of_lines_of_patch() -> None:
    old = domain_xml(before="<title>a\u2028END\x85b</title>")
    new = old.replace("1048576", "2097152")
    assert all(line[:1] in " +-@" for line in difference(old, new, name="web1").removesuffix("\n").split("\n"))
    assert " <title>a\u2028END\x85b</title>\n" in difference(old, new, name="web1").replace("   <", " <")
