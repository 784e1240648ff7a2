"""A stored definition is replaced only if it is still the one that was looked at; nobody's password is shown."""

from collections.abc import Iterator

import pytest

from vmcompat.connect import Host, open_host
from vmcompat.errors import MigrationError
from vmcompat.migration.apply import CpuAnswer, redefine, stored_xml

NEW = """<domain type='test'>
  <name>web1</name>
  <uuid>6f7fe6a5-8a52-4b5c-9c0c-2f1d6f4c4b11</uuid>
  <memory>8192</memory>
  <os><type>hvm</type></os>
  <devices><graphics type='vnc' passwd='geheim'/></devices>
</domain>"""


@pytest.fixture
def host() -> Iterator[Host]:
    pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    with open_host("test:///default", write=True) as host:
        host.ask("to define web1", lambda c: c.defineXML(NEW))
        yield host


def test_what_libvirt_stored_comes_back_in_its_own_words(host: Host) -> None:
    old = stored_xml(host, "web1", secrets=True)
    stored = redefine(host, "web1", expected=old, new=old.replace("8192", "16384"))
    assert ">16384<" in stored
    assert stored == stored_xml(host, "web1", secrets=True)


def test_a_definition_that_somebody_changed_stays_and_the_change_is_shown_without_secrets(host: Host) -> None:
    seen = stored_xml(host, "web1", secrets=True)
    changed = seen.replace("8192", "16384").replace("geheim", "noch geheimer")
    host.ask("to change web1", lambda c: c.defineXML(changed))
    with pytest.raises(MigrationError, match=r"nothing was written") as refused:
        redefine(host, "web1", expected=seen, new=seen)
    assert "+  <memory unit='KiB'>16384</memory>" in str(refused.value)
    assert "geheim" not in str(refused.value)
    assert ">16384<" in stored_xml(host, "web1")


def test_secrets_are_read_only_where_a_redefinition_needs_them(host: Host) -> None:
    assert "geheim" in stored_xml(host, "web1", secrets=True)
    assert "geheim" not in stored_xml(host, "web1")


@pytest.mark.parametrize(("result", "fits"), [("identical", True), ("superset", True), ("unknown", False)])
def test_only_a_yes_is_a_yes(result: str, fits: bool) -> None:
    assert CpuAnswer(host="h1", result=result).fits is fits  # type: ignore[arg-type]
