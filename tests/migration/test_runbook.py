"""What is handed out for a change ticket: the steps of the plan, and no name from outside that gets loose in it."""

import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from typing import Any

import pytest

from tests.migration.scene import SANDYBRIDGE, WESTMERE, domain, end, seen
from vmcompat.migration.domain import typed
from vmcompat.migration.observe import Observation
from vmcompat.migration.order import Order
from vmcompat.migration.policy import MUST_FINISH, Policy
from vmcompat.migration.preflight import preflight
from vmcompat.migration.runbook import commands, runbook
from vmcompat.migration.transfer import Transfer

markdown = pytest.importorskip("mistune", reason="mistune, which comes with nbconvert, is not installed")

NOVA = "<metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'/></metadata>"
OVIRT = "<metadata><ovirt:vm xmlns:ovirt='http://ovirt.org/vm/1.0'/></metadata>"
HOSTILE = [
    "a b'; touch /tmp/owned; echo $(id) `id` <script>",
    "--help",
    "`````\n# owned\n",
    "x\nEND\ntouch owned\n```\n<script>",
    "| table | [link](http://example.org) ![image](http://example.org) *",
    "\u202egnp.exe",
    "../../etc/cron.d/x",
    "7",
]


def order(observation: Observation, **details: Any) -> Order:
    given = {"source": "qemu+ssh://h1/system", "target": "qemu+ssh://h2/system", "peer_uri": observation.peer_uri}
    found = preflight(observation)
    return Order(domain=observation.domain, seen=observation, findings=found, **(given | details))


def rebased(**details: Any) -> Observation:
    """A SandyBridge guest that is to become a Westmere."""
    old = domain(cpu=f"<cpu mode='custom' check='full'>{SANDYBRIDGE}</cpu>")
    new = domain(cpu=f"<cpu mode='custom' check='full'>{WESTMERE}</cpu>")
    return seen(old, stored=old, new=new, baseline="Westmere", source=end("h1", SANDYBRIDGE), **details)


def tokens(page: str) -> list[dict[str, Any]]:
    parsed = markdown.create_markdown(renderer=None)(page)
    assert isinstance(parsed, list)
    return parsed


def blocks(page: str) -> list[str]:
    """The code of a page, as Markdown reads it."""
    return [token["raw"] for token in tokens(page) if token["type"] == "block_code"]


def headings(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith("#") and not line.startswith("# ")]


def steps(page: str) -> list[str]:
    """The code below the numbered headings."""
    section = page.split("\n## Steps\n")[1].split("\n## ")[0]
    return blocks(section)


# ---- the same steps


@pytest.mark.parametrize(
    "asked", [order(rebased(restart=True), restart=True), order(seen(domain()))], ids=["restart", "as it is"]
)
def test_the_steps_of_the_page_are_the_lines_of_the_script(asked: Order) -> None:
    assert not asked.stops
    assert "set -e\n" + "".join(steps(runbook(asked))) == commands(asked)


def test_the_page_says_what_moves_what_was_found_how_to_see_it_worked_and_what_to_do_if_not() -> None:
    page = runbook(order(rebased(restart=True), restart=True))
    assert [line.lstrip("# ") for line in headings(page) if line.startswith("## ")] == [
        "What was found", "Steps", "While it moves", "How to see that it worked", "If it fails", "Back",
    ]  # fmt: skip
    assert page.startswith("# Move `web1` from h1 to h2\n")
    assert "the Westmere baseline, before it moves" in page
    assert "print(vc.recover('web1', 'qemu+ssh://h1/system', 'qemu+ssh://h2/system'))" in page
    assert "virsh -c qemu+ssh://h1/system domjobabort --domain web1" in page
    assert "virsh -c qemu+ssh://h2/system domjobinfo --completed --domain web1" in page
    assert "virsh -c qemu+ssh://h1/system define ./web1.before.xml" in blocks(page)[-1]


def test_every_finding_that_is_not_ok_comes_with_its_evidence_and_remedy() -> None:
    asked = order(seen(domain(cpu="<cpu mode='host-passthrough'/>"), source=end("h1", SANDYBRIDGE)),
        force=("PASSTHROUGH",),
    )  # fmt: skip
    page = runbook(asked)
    loud = [f for f in asked.findings if f.severity != "ok"]
    assert "PASSTHROUGH" in [f.id for f in loud]
    for finding in loud:
        (line,) = [line for line in page.splitlines() if line.startswith("- **") and f"`{finding.id}`" in line]
        assert finding.severity in line
        assert plain(finding.evidence) in plain(line)
        assert plain(finding.remedy) in plain(line)
    assert "**risk, forced** `PASSTHROUGH`" in page
    assert "Passed on somebody's word (force): `PASSTHROUGH`" in page


def plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def test_of_a_blocked_plan_nothing_can_be_pasted_that_changes_anything() -> None:
    for part in (runbook(order(seen(domain(), job=True))), commands(order(seen(domain(), job=True)))):
        live = [line for line in part.splitlines() if re.match(r"\s*(virsh|umask|patch|until)\b", line)]
        assert all(re.search(r" (domstate|domjobinfo) ", line) for line in live)
        assert re.search(r"^# virsh .* migrate ", part, re.MULTILINE)
    assert "**Blocked** by `STATE`" in runbook(order(seen(domain(), job=True)))


@pytest.mark.parametrize(
    ("metadata", "manager", "line"),
    [
        (NOVA, "OpenStack Nova", "openstack server migrate --live-migration 6f7fe6a5-8a52-4b5c-9c0c-2f1d6f4c4b11"),
        (OVIRT, "oVirt", "migrate it in oVirt's administration portal"),
    ],
)
def test_where_another_manager_owns_the_guest_its_own_way_stands_in_place_of_virsh(
    metadata: str, manager: str, line: str
) -> None:
    owned = seen(domain(inside=metadata))
    page = runbook(order(owned))
    assert blocks(page)[0] == f"{line}\n"
    assert "".join(steps(page)).count(f"# not to be typed: {manager} manages this guest; blocked by OWNER\n") == 3
    assert all(code.startswith("# ") for step in steps(page) for code in step.splitlines())
    # on somebody's word the lines are handed out, and the page still says whose it is
    forced = runbook(order(owned, force=("OWNER",)))
    assert manager in forced
    assert " migrate " in steps(forced)[1]
    assert steps(forced)[1].startswith("virsh ")


# ---- options


def words(transfer: Transfer, policy: Policy | None = None, **observed: Any) -> list[str]:
    asked = order(seen(domain(), **observed), transfer=transfer, **({"policy": policy} if policy else {}))
    (line,) = [line for line in commands(asked).splitlines() if " migrate " in line]
    return shlex.split(line.removeprefix("# "))


@pytest.mark.parametrize(
    ("transfer", "given", "absent"),
    [
        (Transfer(), ["--p2p", "--live", "--persistent", "--undefinesource"], ["--tls", "--unsafe", "--offline"]),
        (Transfer(managed=True), ["--live"], ["--p2p"]),
        (Transfer(tls=True), ["--tls"], []),
        (Transfer(compression="xbzrle"), ["--compressed", "--comp-methods", "xbzrle"], []),
        (Transfer(parallel=3), ["--parallel", "--parallel-connections", "3"], []),
        (Transfer(parallel=0), [], ["--parallel"]),
        (Transfer(bandwidth=50), ["--bandwidth", "50"], []),
        (Transfer(auto_converge=True), ["--auto-converge"], []),
        (Transfer(auto_converge=False), [], ["--auto-converge"]),
        (Transfer(copy_disks="all"), ["--copy-storage-all"], ["--copy-storage-inc"]),
        (Transfer(copy_disks="incremental"), ["--copy-storage-inc"], ["--copy-storage-all"]),
        (Transfer(unsafe=True), ["--unsafe"], []),
        (Transfer(post_copy=True), ["--postcopy", "--timeout", "300", "--timeout-postcopy"], []),
        (Transfer(offline=True), ["--offline", "--persistent", "--p2p"], ["--live", "--timeout", "--verbose"]),
    ],
)
def test_an_option_of_the_transfer_is_one_of_virsh(transfer: Transfer, given: list[str], absent: list[str]) -> None:
    typed_words = words(transfer)
    assert [word for word in given if word not in typed_words] == []
    assert [word for word in absent if word in typed_words] == []


def test_every_option_that_virsh_is_given_it_has() -> None:
    if shutil.which("virsh") is None:
        pytest.skip("no virsh on this machine")
    has = subprocess.run(["virsh", "help", "migrate"], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"--[\w-]+", has))
    several = Transfer(tls=True, compression="mt", parallel=2, bandwidth=5, auto_converge=True, copy_disks="all",
        unsafe=True, post_copy=True,
    )  # fmt: skip
    for given in (several, Transfer(offline=True), Transfer(copy_disks="incremental", managed=True)):
        options = [word for word in words(given, MUST_FINISH) if word.startswith("--")]
        assert set(options) <= known


def test_managed_the_client_goes_to_the_target_as_it_sees_it() -> None:
    managed = words(Transfer(managed=True), peer_uri="qemu+ssh://h2.internal/system")
    assert managed[managed.index("--desturi") + 1] == "qemu+ssh://h2/system"
    peer = words(Transfer(), peer_uri="qemu+ssh://h2.internal/system")
    assert peer[peer.index("--desturi") + 1] == "qemu+ssh://h2.internal/system"


def test_the_deadline_of_the_policy_is_virshs_where_it_has_one_and_else_told() -> None:
    paused = words(Transfer(), MUST_FINISH)
    assert paused[paused.index("--timeout") : paused.index("--timeout") + 3] == [
        "--timeout",
        "120",
        "--timeout-suspend",
    ]
    assert "--timeout" not in words(Transfer())
    assert "After 300 s the last one, since virsh itself does not give up" in runbook(order(seen(domain())))


def test_with_post_copy_the_page_says_what_must_not_be_done_then_and_how_it_is_resumed() -> None:
    page = runbook(order(seen(domain()), transfer=Transfer(post_copy=True)))
    assert "destroy neither" in page
    assert any("--postcopy-resume" in block for block in blocks(page))


# ---- names from outside


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_changes_nothing_of_the_page_but_the_name(name: str) -> None:
    good = runbook(order(rebased(restart=True), restart=True))
    bad = runbook(order(replace(rebased(restart=True), domain=name), restart=True))
    shape = [token["type"] for token in tokens(good)]
    assert [token["type"] for token in tokens(bad)] == shape
    assert headings(bad) == headings(good)
    assert "block_html" not in shape
    prose = str([token for token in tokens(bad) if token["type"] != "block_code"])
    assert not re.search(r"'type': '(inline_html|link|image)'", prose)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_host_and_a_hostile_description_stay_text(name: str) -> None:
    inside = "<description>x\n```\n# owned\n</description>"
    old, new = (domain(cpu=f"<cpu check='full'>{cpu}</cpu>", inside=inside) for cpu in (SANDYBRIDGE, WESTMERE))
    here = replace(end("h1", SANDYBRIDGE), name=name)
    page = runbook(order(seen(old, stored=old, new=new, baseline=name, source=here, restart=True), restart=True))
    good = runbook(order(rebased(restart=True), restart=True))
    assert "# owned" in steps(page)[0]
    assert [token["type"] for token in tokens(page)] == [token["type"] for token in tokens(good)]
    prose = str([token for token in tokens(page) if token["type"] != "block_code"])
    assert not re.search(r"'type': '(inline_html|block_html|link|image)'", prose)


@pytest.mark.parametrize("name", HOSTILE)
def test_every_line_of_a_hostile_name_is_the_same_words_to_a_shell(name: str) -> None:
    good = commands(order(seen(domain())))
    bad = commands(order(replace(seen(domain()), domain=name)))
    assert len(bad.splitlines()) == len(good.splitlines())
    uuid = seen(domain()).moved.uuid  # type: ignore[union-attr]
    for line, other in zip(good.splitlines(), bad.splitlines(), strict=True):
        expected = shlex.split(line, comments=True)
        got = shlex.split(other, comments=True)
        assert len(got) == len(expected)
        for word, instead in zip(expected, got, strict=True):
            assert instead == word or instead in (name, uuid) or instead in (f"./{n}.before.xml" for n in (name, uuid))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_commented_line_stays_a_comment(name: str) -> None:
    asked = order(replace(seen(domain(), job=True), domain=name))
    assert all(line.startswith("# ") for line in commands(asked).splitlines())
    assert all(line.startswith("# ") for step in steps(runbook(asked)) for line in step.splitlines())


def test_no_file_is_written_outside_the_folder() -> None:
    script = commands(order(replace(seen(domain()), domain="../../etc/cron.d/x")))
    assert "> ./6f7fe6a5-8a52-4b5c-9c0c-2f1d6f4c4b11.before.xml" in script


@pytest.mark.parametrize("name", ["7", " 7", "-1", "c" * 36, "two\nlines", "right\u202eleft", "bell\x07"])
def test_what_virsh_or_a_reader_would_take_for_another_is_typed_by_its_uuid(name: str) -> None:
    assert typed(name, "6f7fe6a5-8a52-4b5c-9c0c-2f1d6f4c4b11") == "6f7fe6a5-8a52-4b5c-9c0c-2f1d6f4c4b11"
    assert typed("web-1", "6f7fe6a5-8a52-4b5c-9c0c-2f1d6f4c4b11") == "web-1"


def test_no_password_is_on_the_page_nor_in_the_script() -> None:
    secret = order(
        seen(domain()), source="qemu+tls://root:geheim@h1/system", peer_uri="qemu+tls://root:geheim@h2/system"
    )
    assert "geheim" not in runbook(secret) + commands(secret)


def test_the_same_plan_gives_the_same_page() -> None:
    assert runbook(order(rebased())) == runbook(order(rebased()))
