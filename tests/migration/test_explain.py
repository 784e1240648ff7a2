"""Pasted failures: every wording is known, what surrounds it does not matter, and what is not known is not guessed."""

import html
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vmcompat as vc
from tests.migration.scene import SANDYBRIDGE, WESTMERE
from tests.migration.test_reach import host, hosts
from vmcompat.errors import DocumentError
from vmcompat.migration.explain import MAX_CHARACTERS, Explanation, explain_error
from vmcompat.migration.wordings import WORDINGS
from vmcompat.schema import ERRORS_EXPLAINED

SPEC = "operation failed: guest CPU doesn't match specification"


class Case(NamedTuple):
    """A text, what it means, and what of it the installed libvirt or QEMU holds; empty where others have it."""

    text: str
    kind: str
    held: str = ""
    features: tuple[str, ...] = ()


CASES = [
    Case(
        f"error: {SPEC}: missing features: xsave,avx,xsaveopt,rdtscp", "CPU_MISSING_FEATURES",
        "guest CPU doesn't match specification: missing features: ", ("xsave", "avx", "xsaveopt", "rdtscp"),
    ),
    Case(
        f"{SPEC}: extra features: ht", "CPU_EXTRA_FEATURES", "guest CPU doesn't match specification: extra features: ",
        ("ht",),
    ),
    Case(SPEC, "CPU_INCOMPATIBLE", "guest CPU doesn't match specification"),
    Case(
        "the CPU is incompatible with host CPU: Host CPU does not provide required features: avx512f, avx512dq",
        "CPU_INCOMPATIBLE", "Host CPU does not provide required features", ("avx512f", "avx512dq"),
    ),
    Case("error: the CPU is incompatible with host CPU", "CPU_INCOMPATIBLE", "the CPU is incompatible with host CPU"),
    Case(
        "unsupported configuration: guest and host CPU are not compatible: Host CPU does not provide required "
        "features: "
        "pdpe1gb, aes", "CPU_INCOMPATIBLE", "", ("pdpe1gb", "aes"),
    ),
    Case(
        "the CPU is incompatible with host CPU: Host CPU does not strictly match guest CPU: Extra features: vmx",
        "CPU_EXTRA_FEATURES", "Host CPU does not strictly match guest CPU: Extra features", ("vmx",),
    ),
    Case(
        "Host CPU provides forbidden features: hle,rtm", "CPU_FORBIDDEN_FEATURES", "Host CPU provides forbidden "
        "features",
        ("hle", "rtm"),
    ),
    Case(
        "Host CPU provides forbidden feature 'hle'", "CPU_FORBIDDEN_FEATURES", "Host CPU provides forbidden feature '",
        ("hle",),
    ),
    Case(
        "the CPU is incompatible with host CPU: host CPU vendor does not match required CPU vendor AMD", "CPU_VENDOR",
        "does not match required CPU vendor",
    ),
    Case("operation failed: CPU vendors do not match", "CPU_VENDOR", "CPU vendors do not match"),
    Case("CPU arch ppc64 does not match host arch", "CPU_ARCH", " does not match host arch"),
    Case("internal error: Unknown CPU model SapphireRapids", "UNKNOWN_MODEL", "Unknown CPU model "),
    Case("unsupported configuration: unknown CPU model: Foo", "UNKNOWN_MODEL", "unknown CPU model"),
    Case("unsupported configuration: CPU model EPYC-Milan unknown", "UNKNOWN_MODEL"),
    Case(
        "unsupported configuration: CPU model 'GraniteRapids' not supported by hypervisor", "UNKNOWN_MODEL",
        "' not supported by hypervisor",
    ),
    Case("qemu-system-x86_64: unable to find CPU model 'Nope'", "UNKNOWN_MODEL", "unable to find CPU model '"),
    Case("error: internal error: Unknown CPU feature avx-vnni", "UNKNOWN_FEATURE", "Unknown CPU feature ",
    ("avx-vnni",)),
    Case(
        "unsupported configuration: unknown CPU feature: frob", "UNKNOWN_FEATURE", "unknown CPU feature: ", ("frob",)
    ),
    Case(
        "qemu-system-x86_64: Property 'SandyBridge-x86_64-cpu.zzz' not found", "UNKNOWN_FEATURE", "' not found",
        ("zzz",)
    ),
    Case("unsupported configuration: CPU flag arch-lbr not found", "UNKNOWN_FEATURE", "", ("arch-lbr",)),
    Case(
        "unsupported configuration: CPU mode 'host-passthrough' for x86_64 qemu domain on x86_64 host is not supported "
        "by hypervisor", "PASSTHROUGH", "host is not supported by hypervisor",
    ),
    Case("unsupported configuration: CPU mode 'host-passthrough' requires KVM", "PASSTHROUGH"),
    Case("qemu-system-x86_64: CPU model 'host' requires KVM or HVF", "PASSTHROUGH", "' requires KVM or HVF"),
    Case(
        "unsupported configuration: CPU mode 'host-model' for aarch64 kvm domain on aarch64 host is not supported by "
        "hypervisor", "CPU_MODE", "host is not supported by hypervisor",
    ),
    Case(
        "unsupported configuration: Target CPU model qemu64 does not match source Westmere", "DEFINITION_DIFFERS",
        "Target CPU model ",
    ),
    Case(
        "error: Requested operation is not valid: domain has 'invtsc' CPU feature but TSC frequency is not specified",
        "INVTSC", "domain has 'invtsc' CPU feature but TSC frequency is not specified",
    ),
    Case("Requested operation is not valid: domain has CPU feature: invtsc", "INVTSC"),
    Case(
        "internal error: unable to execute QEMU command 'migrate': State blocked by non-migratable CPU device "
        "(invtsc flag)", "INVTSC", "State blocked by non-migratable CPU device (invtsc flag)",
    ),
    Case("Error: non-migratable device: cpu", "INVTSC", "non-migratable device: "),
    Case(
        "the CPU is incompatible with host CPU: Requested TSC frequency 2100000000 Hz is outside tolerance range "
        "([2099475000, 2100525000] Hz) around host frequency 3000000000 Hz", "TSC_FREQUENCY",
        " Hz is outside tolerance range",
    ),
    Case(
        "qemu: Mismatch between user-specified TSC frequency and migrated TSC frequency", "TSC_FREQUENCY",
        "Mismatch between user-specified TSC frequency and migrated TSC frequency",
    ),
    Case(
        "Guest enabled re-enlightenment notifications, 'tsc-frequency=' has to be specified", "HYPERV_TSC",
        "Guest enabled re-enlightenment notifications, 'tsc-frequency=' has to be",
    ),
    Case(
        "qemu-system-x86_64: warning: host doesn't support requested feature: CPUID.07H:EBX.hle [bit 4]",
        "HOST_DOES_NOT_SUPPORT", "host doesn't support requested feature", ("hle",),
    ),
    Case(
        "warning: host doesn't support requested feature: MSR(48BH).vmx-apicv-register [bit 8]",
        "HOST_DOES_NOT_SUPPORT",
        "host doesn't support requested feature", ("vmx-apicv-register",),
    ),
    Case("warning: host doesn't support requested feature: CPUID.0DH:EAX [bit 1]", "HOST_DOES_NOT_SUPPORT"),
    Case(
        "qemu-system-x86_64: warning: TCG doesn't support requested feature: CPUID.01H:ECX.tsc-deadline [bit 24]",
        "TCG_DOES_NOT_SUPPORT", "TCG doesn't support requested feature", ("tsc-deadline",),
    ),
    Case("qemu-system-x86_64: Host doesn't support requested features", "CPU_ENFORCED",
         "Host doesn't support requested features"),
    Case(
        "Unacceptable CPU info: CPU doesn't have compatibility.\n\n0\n\nRefer to "
        "http://libvirt.org/html/libvirt-libvirt-host.html#virCPUCompareResult", "NOVA_CPU",
    ),
    Case(
        "qemu-8.2: Features 0x1c0010130afffa7 unsupported. Allowed features: 0x179bfffe7", "VIRTIO_FEATURES",
        " unsupported. Allowed features: 0x",
    ),
    Case("qemu-system-x86_64: unsupported machine type\nUse -machine help to list supported machines", "MACHINE_TYPE",
         "unsupported machine type"),
    Case("Unsupported machine type 'pc-q35-9.0'", "MACHINE_TYPE"),
    Case(
        "invalid argument: Emulator '/usr/bin/qemu-system-x86_64' does not support machine type 'pc-q35-9.0'",
        "MACHINE_TYPE", "' does not support machine type '",
    ),
    Case("the machine 'pc-i440fx-9.0' is not supported by emulator '/usr/bin/kvm'", "MACHINE_TYPE",
         "' is not supported by emulator '"),
    Case("Could not access KVM kernel module: No such file or directory", "KVM", "Could not access KVM kernel module"),
    Case("Emulator '/usr/bin/qemu-system-x86_64' does not support virt type 'kvm'", "KVM",
    "' does not support virt type '"),
    Case("State blocked by non-migratable device '0000:00:05.0/nvme'", "NON_MIGRATABLE",
         "State blocked by non-migratable device '"),
    Case("Requested operation is not valid: migration with virtiofs device is not supported", "NON_MIGRATABLE",
         "migration with virtiofs device is not supported"),
    Case("cannot migrate domain: VFIO device doesn't support migration", "NON_MIGRATABLE"),
    Case("cannot migrate a domain with <hostdev mode='subsystem' type='pci'>", "HOSTDEV",
         "cannot migrate a domain with <hostdev mode='subsystem' type='"),
    Case("Requested operation is not valid: domain has assigned non-USB host devices", "HOSTDEV"),
    Case("Requested operation is not valid: cannot migrate domain with 2 snapshots", "SNAPSHOTS",
         "cannot migrate domain with "),
    Case("qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory", "MEMORY",
         "cannot set up guest memory '"),
    Case("unable to map backing store for guest RAM: Cannot allocate memory", "MEMORY",
         "unable to map backing store for guest RAM"),
    Case("internal error: Unable to find any usable hugetlbfs mount for 1048576 KiB", "MEMORY",
         "Unable to find any usable hugetlbfs mount for "),
    Case("cannot limit locked memory of process 4711 to 68719476736: Operation not permitted", "MEMORY_LOCK",
         "cannot limit locked memory of process "),
    Case("error: internal error: Unable to change max memlock limit", "MEMORY_LOCK",
    "Unable to change max memlock limit"),
    Case(
        "qemu-system-x86_64: -device virtio-blk: Failed to get \"write\" lock\nIs another process using the image "
        "[/srv/web1.qcow2]?", "DISK_IN_USE", "Failed to get \"",
    ),
    Case("qemu-kvm: error while loading state for instance 0x0 of device 'cpu'", "STATE_LOAD",
         "error while loading state for instance 0x"),
    Case("qemu-kvm: load of migration failed: Invalid argument", "STATE_LOAD", "load of migration failed: "),
    Case("error: internal error: qemu unexpectedly closed the monitor", "QEMU_CLOSED",
         "qemu unexpectedly closed the monitor"),
    Case(
        "error: Requested operation is not valid: another migration job is already running for domain 'web1'",
        "JOB_ACTIVE", "another migration job is already running for domain '",
    ),
    Case("There's a migration process in progress", "JOB_ACTIVE", "There's a migration process in progress"),
    Case("Migration failed: migration of web1 is already in progress", "JOB_ACTIVE"),
    Case(
        "error: operation failed: domain 'test' already exists with uuid 6695eb01-f6a4-8304-79aa-97f2502e193f",
        "NAME_TAKEN", "' already exists with uuid ",
    ),
    Case("Requested operation is not valid: domain 'test' is already active", "NAME_TAKEN", "' is already active"),
    Case("error: Domain not found: no domain with matching name 'web1'", "NO_DOMAIN", "no domain with matching name '"),
    Case("internal error: Attempt to migrate guest to the same host 6f7fe6a5-8a52", "SAME_HOST",
         "Attempt to migrate guest to the same host"),
    Case("error: Unsafe migration: Migration without shared storage is unsafe", "NO_SHARED_STORAGE",
         "Migration without shared storage is unsafe"),
    Case(
        "Unsafe migration: Migration may lead to data corruption if disks use cache other than none or directsync",
        "DISK_CACHE", "Migration may lead to data corruption if disks use cache",
    ),
    Case("Cannot access storage file '/srv/web1.qcow2' (as uid:64055, gid:64055): No such file or directory",
         "DISK_MISSING", "Cannot access storage file '"),
    Case("error: Cannot get interface MTU on 'br-data': No such device", "NETWORK", "Cannot get interface MTU on '"),
    Case("error: Cannot recv data: Host key verification failed.: Connection reset by peer", "HOST_KEY",
         "Cannot recv data: "),
    Case("Cannot recv data: root@h2: Permission denied (publickey,password).: Connection reset by peer", "AUTH"),
    Case("error: authentication failed: authentication failed", "AUTH", "authentication failed"),
    Case("error: access denied by policy", "AUTH", "access denied by policy"),
    Case("operation forbidden: read only access prevents virDomainDestroy", "READ_ONLY", "read only access"),
    Case("Cannot read CA certificate '/etc/pki/CA/cacert.pem': No such file or directory", "TLS"),
    Case(
        "internal error: unable to execute QEMU command 'object-add': Unable to access credentials "
        "/etc/pki/qemu/ca-cert.pem: No such file or directory", "TLS", "Unable to access credentials ",
    ),
    Case("qemu-system-x86_64: Verify failed: No certificate was found.", "TLS", "Verify failed: "),
    Case("operation failed: job 'migration out' failed: Certificate does not match the hostname h1", "TLS",
         "Certificate does not match the hostname "),
    Case("warning : virNetTLSContextCheckCertificate:1086 : Certificate check failed Certificate [session] owner does "
         "not match the hostname h2", "TLS", " owner does not match the hostname "),
    Case("The server certificate /etc/pki/libvirt/servercert.pem has expired", "TLS", "The server certificate "),
    Case("job 'migration out' failed: The certificate is not yet activated", "TLS",
         "The certificate is not yet activated"),
    Case(
        "Our own certificate /srv/pki/clientcert.pem failed validation against /srv/pki/cacert.pem: The certificate "
        "hasn't got a known issuer.", "TLS", "Our own certificate ",
    ),
    Case("authentication failed: Failed to verify peer's certificate", "TLS", "Failed to verify peer's certificate"),
    Case("operation failed: job 'migration out' failed: The certificate hasn't got a known issuer", "TLS",
         "The certificate hasn't got a known issuer"),
    Case("operation failed: job 'migration out' failed: Cannot write to TLS channel: Input/output error", "TLS",
         "Cannot write to TLS channel"),
    Case("error: Unable to read TLS confirmation: Input/output error", "TLS", "Unable to read TLS confirmation"),
    Case("internal error: Unable to find an unused port in range 'migration' (49152-49215)", "PORT",
         "Unable to find an unused port in range '"),
    Case("qemu-system-x86_64: Failed to bind socket to 0.0.0.0:49152: Address already in use", "PORT",
         "Failed to bind socket"),
    Case("error: unable to connect to server at 'h2:49152': No route to host", "PORT",
    "unable to connect to server at '"),
    Case("error: unable to connect to server at '10.0.0.2:16509': Connection refused", "CONNECT",
         "unable to connect to server at '"),
    Case("Failed to connect socket to '/run/libvirt/libvirt-sock': No such file or directory", "CONNECT",
         "Failed to connect socket to '"),
    Case("Cannot recv data: ssh: connect to host h2 port 22: Connection timed out: Connection reset by peer",
    "CONNECT"),
    Case("Unable to resolve address 'newyork' service '49155': Name or service not known", "NAME_RESOLUTION",
         "Unable to resolve address '"),
    Case("internal error: connection closed due to keepalive timeout", "CONNECTION_LOST",
         "connection closed due to keepalive timeout"),
    Case("error: End of file while reading data: Input/output error", "CONNECTION_LOST",
    "End of file while reading data"),
    Case(
        "error: Timed out during operation: cannot acquire state change lock (held by "
        "monitor=remoteDispatchDomainMigratePerform3Params)", "TIMEOUT", "cannot acquire state change lock",
    ),
    Case("operation aborted: migration out job: canceled by client", "ABORTED"),
    Case("error: operation aborted: job 'migration out' canceled by client", "ABORTED", "' canceled by client"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.kind}-{c.text[:40]}")
def test_a_wording_is_known_by_its_kind_features_cause_and_remedy(case: Case) -> None:
    found = explain_error(case.text)
    assert (found.kind, found.features) == (case.kind, case.features)
    assert found.cause
    assert found.remedy
    assert not re.search(r"\{\w*\}", found.cause + found.remedy), "a placeholder was left"
    assert found.problems[0].text in " ".join(case.text.split())


def test_every_wording_has_a_case_in_which_it_is_the_answer() -> None:
    assert {w.kind for w in WORDINGS} == {case.kind for case in CASES}
    silent = [w.pattern.pattern for w in WORDINGS if not any(w.pattern.search(" ".join(c.text.split())) for c in CASES)]
    assert silent == []


# ---- the wordings are those of the real programs


@pytest.fixture(scope="module")
def programs() -> bytes:
    """All that the installed libvirt and QEMU can print."""
    libvirt: Any = pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    if libvirt.getVersion() // 1_000_000 != 9:
        pytest.skip("the wordings were taken from libvirt 9, and another is installed")
    qemu = shutil.which("qemu-system-x86_64")
    drivers = [*Path("/usr/lib").glob("*/libvirt.so.0"), *Path("/usr/lib").glob("*/libvirt/**/libvirt_driver_qemu.so")]
    if qemu is None or len(drivers) != 2:
        pytest.skip("libvirt's QEMU driver or qemu-system-x86_64 is not installed: no texts to compare with")
    if "version 7." not in subprocess.check_output([qemu, "--version"], text=True):
        pytest.skip("the wordings were taken from QEMU 7, and another is installed")
    return b"".join(path.read_bytes() for path in (*drivers, Path(qemu)))


@pytest.mark.parametrize("held", sorted({case.held for case in CASES if case.held}))
def test_the_installed_libvirt_or_qemu_has_the_wording(programs: bytes, held: str) -> None:
    assert held.encode() in programs


def said_by(call: Callable[[], object]) -> str:
    """What libvirt says when it refuses."""
    with pytest.raises(Exception, match=r".") as refused:
        call()
    return str(refused.value)


def test_what_libvirt_itself_says_is_understood() -> None:
    libvirt: Any = pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    libvirt.registerErrorHandler(lambda context, error: None, None)
    connection = libvirt.open("test:///default")
    domain = connection.lookupByName("test")
    copy = domain.XMLDesc().replace(domain.UUIDString(), "6f7fe6a5-8a52-4b5c-9c0c-2f1d6f4c4b11")
    intel, amd, strange = (
        f"<cpu><arch>x86_64</arch><model>{model}</model><vendor>{vendor}</vendor></cpu>"
        for model, vendor in (("Westmere", "Intel"), ("EPYC", "AMD"), ("Nope", "Intel"))
    )
    said = {
        said_by(lambda: connection.baselineCPU([intel, amd], 0)): "CPU_VENDOR",
        said_by(lambda: connection.baselineCPU([strange], 0)): "UNKNOWN_MODEL",
        said_by(lambda: connection.defineXML(copy)): "NAME_TAKEN",
        said_by(lambda: connection.createXML(domain.XMLDesc())): "NAME_TAKEN",
        said_by(lambda: connection.lookupByName("nobody")): "NO_DOMAIN",
        said_by(lambda: libvirt.openReadOnly("test:///default").lookupByName("test").destroy()): "READ_ONLY",
        said_by(lambda: libvirt.open("qemu+unix:///system?socket=/nonexistent")): "CONNECT",
        said_by(lambda: libvirt.open("qemu+tcp://127.0.0.1:1/system")): "CONNECT",
    }
    assert {text: explain_error(text).kind for text in said} == said


@pytest.mark.parametrize(
    ("arguments", "kind", "features"),
    [
        ("-cpu Nope", "UNKNOWN_MODEL", ()),
        ("-machine nope", "MACHINE_TYPE", ()),
        ("-accel tcg -cpu SandyBridge,enforce", "CPU_ENFORCED", ("x2apic", "tsc-deadline")),
        ("-accel tcg -cpu host", "PASSTHROUGH", ()),
        ("-accel tcg -cpu SandyBridge,+zzz", "UNKNOWN_FEATURE", ("zzz",)),
        ("-accel tcg -m 900T", "MEMORY", ()),
    ],
)
def test_what_qemu_itself_says_is_understood(arguments: str, kind: str, features: tuple[str, ...]) -> None:
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        pytest.skip("no qemu-system-x86_64 to ask")
    ran = subprocess.run(
        [qemu, "-display", "none", "-nodefaults", "-S", *arguments.split()],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode != 0
    found = explain_error(ran.stderr)
    assert (found.kind, found.features) == (kind, features)


# ---- what surrounds a text does not matter

MESSAGE = f"{SPEC}: missing features: avx2,hle,rtm"


@pytest.mark.parametrize(
    "around",
    [
        lambda m: m,
        lambda m: f"\n\n  error: {m}\n",
        lambda m: f"\x1b[31merror:\x1b[0m {m}",
        lambda m: m.replace("specification: ", "specification:\n    ").replace(",", ",\n    "),
        lambda m: f"2026-11-24 20:18:40.590+0000: 4711: error : qemuProcessVerifyGuestCPU:4321 : {m}",
        lambda m: f"Nov 24 20:18:40 h2 libvirtd[4711]: {m}",
        lambda m: json.dumps({"error": {"message": f"live migration failed: {m}\nsee the log"}}),
        lambda m: json.dumps({"message": m}).replace("'", r"\u0027"),
        lambda m: f"Message='{m.replace(chr(39), chr(39) * 2)}')",
        lambda m: f"virError(Code=9, Domain=31, Message='{m}')",
        lambda m: f"<td class='error'>{html.escape(m)}</td>",
        lambda m: html.escape(f"<pre>{html.escape(m)}</pre>"),
        lambda m: m.replace("specification", "<b>specification</b>").replace("avx2", "<code>avx2</code>"),
        lambda m: m.replace("doesn't", "doesn\N{RIGHT SINGLE QUOTATION MARK}t").replace(" ", "\N{NO-BREAK SPACE}"),
        lambda m: f"libvirt.libvirtError: {m}\r\n",
        lambda m: f"\x00\x07{m}\x1b]0;",
    ],
)
def test_what_is_around_a_message_makes_no_difference(around: Callable[[str], str]) -> None:
    found = explain_error(around(MESSAGE))
    assert (found.kind, found.features) == ("CPU_MISSING_FEATURES", ("avx2", "hle", "rtm"))
    assert [p.kind for p in found.problems] == ["CPU_MISSING_FEATURES"]


def test_a_list_ends_where_the_next_sentence_begins() -> None:
    said = f"{SPEC}: extra features: ht, missing features: avx,hle. Refer to the log, please wait"
    found = explain_error(said)
    assert {p.kind: p.features for p in found.problems} == {
        "CPU_EXTRA_FEATURES": ("ht",),
        "CPU_MISSING_FEATURES": ("avx", "hle"),
    }


def test_features_have_libvirts_names_whoever_wrote_them() -> None:
    names = ("pclmulqdq", "sse4_1", "sse4.2", "lahf-lm", "tsc-adjust", "arch_capabilities", "xd", "vmx-frobnicate")
    said = "\n".join(f"warning: host doesn't support requested feature: CPUID.01H:ECX.{n} [bit 1]" for n in names)
    assert explain_error(said).features == (
        "pclmuldq", "sse4.1", "sse4.2", "lahf_lm", "tsc_adjust", "arch-capabilities", "nx", "vmx-frobnicate",
    )  # fmt: skip
    assert set(explain_error(said).features) - {"vmx-frobnicate"} <= set(vc.CpuMap.load().features)


def test_a_bit_without_a_name_is_in_the_cause_and_is_no_feature() -> None:
    found = explain_error("warning: host doesn't support requested feature: CPUID.0DH:EAX [bit 1]")
    assert found.features == ()
    assert "CPUID.0DH:EAX [bit 1]" in found.cause


@pytest.mark.parametrize(
    ("answer", "told"),
    [("-1", "the comparison itself failed"), ("0", "is no:"), ("1", "identical"), ("2", "can give more")],
)
@pytest.mark.parametrize(
    "prefix", ["", "2026-04-07 13:24:20.590 8 ERROR oslo_messaging.rpc.server [req-e0754632 - -] "]
)
def test_novas_number_is_put_into_words_also_where_each_line_has_its_prefix(
    answer: str, told: str, prefix: str
) -> None:
    lines = [
        "Unacceptable CPU info: CPU doesn't have compatibility.",
        "",
        answer,
        "",
        "Refer to http://libvirt.org/html/",
    ]
    found = explain_error("\n".join(prefix + line for line in lines))
    assert found.kind == "NOVA_CPU"
    assert told in found.cause


def test_novas_text_without_a_number_leaves_the_answer_open() -> None:
    found = explain_error("Unacceptable CPU info: CPU doesn't have compatibility.")
    assert "does not hold libvirt's answer" in found.cause


def test_the_cause_stands_before_what_followed_from_it_and_before_warnings() -> None:
    found = explain_error("""error: internal error: qemu unexpectedly closed the monitor:
2026-09-23T07:06:13Z qemu-8.2: warning: host doesn't support requested feature: CPUID.07H:EBX.hle [bit 4]
2026-09-23T07:06:14Z qemu-8.2: Features 0x1c0010130afffa7 unsupported. Allowed features: 0x179bfffe7
2026-09-23T07:06:14Z qemu-8.2: error while loading state for instance 0x0 of device '0000:00:02.0/virtio-net'
2026-09-23T07:06:14Z qemu-8.2: load of migration failed: Operation not permitted""")
    assert [(p.kind, p.weight, p.line) for p in found.problems] == [
        ("VIRTIO_FEATURES", "cause", 3),
        ("QEMU_CLOSED", "symptom", 1),
        ("STATE_LOAD", "symptom", 4),
        ("HOST_DOES_NOT_SUPPORT", "warning", 2),
    ]
    assert "bits 40, 54, 55, 56" in found.cause  # of the virtio device: worked out by hand from the two numbers
    assert "0000:00:02.0/virtio-net" in found.problems[2].cause


def test_what_breaks_an_encrypted_transfer_off_stands_before_the_stream_that_broke() -> None:
    found = explain_error("""internal error: qemu unexpectedly closed the monitor:
2026-11-29T15:22:11.445723Z qemu-system-x86_64: Cannot read from TLS channel: Input/output error
2026-11-29T15:22:11.446161Z qemu-system-x86_64: Cannot read from TLS channel: Input/output error
2026-11-29T15:22:11.446174Z qemu-system-x86_64: Not a migration stream
2026-11-29T15:22:11.446181Z qemu-system-x86_64: load of migration failed: Invalid argument""")
    assert [(p.kind, p.line) for p in found.problems] == [("TLS", 2), ("QEMU_CLOSED", 1), ("STATE_LOAD", 4)]


@pytest.mark.parametrize(
    ("text", "cause", "remedy"),
    [
        ("Certificate does not match the hostname h1", "called as h1", "subjectAltName has h1 "),
        ("Certificate check failed Certificate [session] owner does not match the hostname h2", "called as h2",
         "subjectAltName has h2 "),
        ("Unable to access credentials /etc/pki/qemu/ca-cert.pem: No such file", "(/etc/pki/qemu/ca-cert.pem)",
         "client-key.pem"),
        ("Cannot read certificate '/srv/pki/clientcert.pem'", "(/srv/pki/clientcert.pem)", "?pkipath="),
        ("The CA certificate /etc/pki/CA/cacert.pem has expired", "(/etc/pki/CA/cacert.pem)", "renew"),
        ("The certificate has expired", "not valid today, or", "renew"),
        ("authentication failed: Failed to verify peer's certificate", "another authority", "one authority"),
        ("Our own certificate /a/clientcert.pem failed validation against /a/cacert.pem: The certificate hasn't got a "
         "known issuer.", "/a/clientcert.pem, which this end shows, is not signed", "put a certificate of that"),
    ],
)  # fmt: skip
def test_of_a_certificate_it_is_said_what_is_wrong_with_it(text: str, cause: str, remedy: str) -> None:
    found = explain_error(text)
    assert [p.kind for p in found.problems] == ["TLS"]
    assert cause in found.cause
    assert remedy in found.remedy


def test_what_a_log_repeats_is_said_once() -> None:
    found = explain_error("\n".join([MESSAGE] * 50))
    assert len(found.problems) == 1
    assert len(explain_error(f"{MESSAGE}\n{SPEC}: missing features: avx2").problems) == 2


def test_a_name_from_the_text_is_quoted_where_it_is_to_be_typed() -> None:
    said = "operation failed: domain '$(rm -rf x); y' already exists with uuid 6695eb01-f6a4-8304-79aa-97f2502e193f"
    assert "virsh -c TARGET undefine --domain '$(rm -rf x); y'" in explain_error(said).remedy


def test_placeholders_in_the_text_stay_what_they_are() -> None:
    found = explain_error("another migration job is already running for domain '{guest} {0} %s {features}'")
    assert "virsh -c SOURCE domjobabort --domain '{guest} {0} %s {features}'" in found.remedy


# ---- nothing is guessed


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "error: Failed to start domain 'web1'",
        "migration succeeded",
        "the guest CPU matches its specification and no features are missing",
        "internal error: something that nobody has ever seen",
        "<html><body><h1>502 Bad Gateway</h1></body></html>",
        "\x00\x01",
    ],
)
def test_an_unknown_text_is_unknown_and_says_where_to_look(text: str) -> None:
    found = explain_error(text)
    assert (found.kind, found.features, len(found.problems)) == ("unknown", (), 1)
    assert "/var/log/libvirt/qemu/GUEST.log on the target" in found.remedy
    assert "nova-compute.log" in found.remedy


@pytest.mark.parametrize("text", ["", " \n\t ", "x" * (MAX_CHARACTERS + 1)])
def test_no_text_and_too_much_text_are_one_clear_error(text: str) -> None:
    with pytest.raises(DocumentError, match=r"^error text: .*(paste|cut it down)"):
        explain_error(text)


# ---- with a fleet


def test_the_fleet_is_divided_by_who_has_the_features() -> None:
    fleet = hosts(poor=WESTMERE, rich=SANDYBRIDGE) + vc.read_fleet(
        {"gone": "<x/>"}, view="hypervisor", errors="collect"
    )
    found = explain_error(f"{SPEC}: missing features: avx,xsave", fleet=fleet)
    row = found.frame.iloc[0]
    assert (row["have"], row["lack"], row["cannot_tell"]) == (("rich",), ("poor",), ("gone",))
    assert found.explain()[0].endswith(
        "In the fleet rich has all of these features, poor lacks some of them, and of gone it cannot be told"
    )


def test_what_a_hosts_libvirt_has_no_name_for_is_not_called_missing() -> None:
    old = vc.read_fleet(host("old", f"{SANDYBRIDGE}", libvirt="9.0.0"), view="hypervisor")
    strange = explain_error(f"{SPEC}: missing features: frobnicate", fleet=old).problems[0]
    assert (strange.lack, strange.have, strange.cannot_tell) == ((), (), ("old",))


def test_a_text_without_features_divides_no_fleet() -> None:
    found = explain_error("Domain not found", fleet=hosts(a=WESTMERE)).problems[0]
    assert (found.lack, found.have, found.cannot_tell) == ((), (), ())


def test_the_answer_is_a_frame_a_repr_and_sentences() -> None:
    found = vc.explain_error(MESSAGE)
    assert list(found.frame.columns) == list(ERRORS_EXPLAINED)
    assert {c: str(t) for c, t in found.frame.dtypes.items()} == ERRORS_EXPLAINED
    assert repr(found).startswith(
        "<Explanation CPU_MISSING_FEATURES: QEMU on the target host does not give the guest avx2"
    )
    assert found.explain() == [f"CPU_MISSING_FEATURES (line 1): {found.cause}. To do: {found.remedy}"]


# ---- strangers' texts


def test_markup_in_a_text_is_shown_as_text() -> None:
    said = "cannot migrate a domain with <script>alert(1)</script>: domain 'x<img src=x>' is already active"
    shown = explain_error(said)._repr_html_()
    assert "<script" not in shown
    assert "<img" not in shown
    assert "&lt;img" in shown


@pytest.mark.parametrize(
    "piece",
    [
        "a", " ", "'", "<", "<a ", "[", "&lt;", "\\u0027", "\x1b[0", "missing features: a,", "missing features: ", "a,",
        "domain '", "Target ", "migration ", "Features 0x", "CPU mode 'host-passthrough' ",
        "unable to connect to server ",
        "2026-04-07 13:24:20.590 8 ERROR ", "Permission denied (", "non-migratable device: ", "job 'migration ",
        "host doesn't support requested feature: CPUID.", "CPU doesn't have compatibility. ", "x\n", "bind socket ",
        "Certificate check failed Certificate ", "certificate ", "Certificate a owner does not match the hostname ",
    ],
)  # fmt: skip
def test_a_megabyte_made_to_be_slow_is_read_in_seconds(piece: str) -> None:
    text = ("missing features: avx " + piece * (MAX_CHARACTERS // len(piece)))[:MAX_CHARACTERS]
    began = time.process_time()
    found = explain_error(text)
    assert time.process_time() - began < 10  # measured: at most 1.5
    assert found.kind == "CPU_MISSING_FEATURES"
    assert all(len(p.text) <= 300 and len(p.cause) < 30_000 for p in found.problems)


@given(st.lists(st.one_of(st.sampled_from([c.text for c in CASES]), st.text(max_size=30)), max_size=4))
def test_any_text_gives_an_answer_or_the_one_error(pieces: list[str]) -> None:
    text = "\n".join(pieces)
    try:
        found = explain_error(text)
    except DocumentError:
        assert not text.strip()
    else:
        assert isinstance(found, Explanation)
        assert found.problems
        assert all(1 <= p.line <= len(text.splitlines()) for p in found.problems)
        assert len(found.frame) == len(found.explain()) == len(found.problems)
