"""What libvirt, QEMU and nova write when a guest does not move, what each of these texts means, and what to do.

The wordings are those of libvirt 9.0 and QEMU 7.2, and where they differed before or since, of both. Each is looked for
in text whose white space is single blanks. No pattern holds one unbounded repetition inside or beside another, so that
the time to search is linear in the text.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple, TypeAlias

Weight: TypeAlias = Literal["cause", "symptom", "warning"]


class Wording(NamedTuple):
    """One way in which a failure is told.

    Attributes
    ----------
    kind : str
        Stable id of the failure.
    pattern : Pattern
        Its group ``feature`` names one CPU feature, ``why`` the reason; the others what the sentences call ``{name}``.
    cause, remedy : str
        GUEST, SOURCE, TARGET stand for the guest and the URIs of both hosts.
    weight : {"cause", "symptom", "warning"}
        A symptom is what follows from a cause that may be in the text too; a warning stops nothing by itself.
    lists : bool
        Whether the names of CPU features follow.
    """

    kind: str
    pattern: re.Pattern[str]
    cause: str
    remedy: str
    weight: Weight = "cause"
    lists: bool = False


UNKNOWN: Final = "unknown"
UNKNOWN_CAUSE: Final = "nothing in the text is a failure that is known here"
LOGS: Final = (
    "look into /var/log/libvirt/qemu/GUEST.log on the target, then on the source (the last lines are QEMU's own "
    "words), "
    "and at journalctl -u libvirtd -u virtqemud --since '-15 min' on both; with nova at nova-compute.log of both; then "
    "paste what is there. vc.plan_migration('GUEST', SOURCE, TARGET).findings says what is in the way beforehand"
)

_FITS: Final = (
    "vc.plan_migration('GUEST', SOURCE, TARGET).findings; then move it to a host that has them, or give it a CPU of "
    "both hosts and power it off and on: vc.plan_migration('GUEST', SOURCE, TARGET, baseline=fleet.baseline(), "
    "restart=True)"
)
_ASK: Final = "virsh -c TARGET hypervisor-cpu-compare GUEST.xml --error names what is missing"
_NEWER: Final = "upgrade libvirt and QEMU there, or store a baseline that it can write: fleet.baseline(cpu_map=...)"
_BY_HAND: Final = "vc.plan_migration('GUEST', SOURCE, TARGET).findings, and mend what it names"
_QUOTED: Final = "'(?P<name>[^']{1,200})'"


def _wording(
    kind: str, pattern: str, cause: str, remedy: str, weight: Weight = "cause", *, lists: bool = False
) -> Wording:
    return Wording(kind, re.compile(pattern, re.ASCII), cause, remedy, weight, lists)


_CPU: Final = (
    _wording(
        "CPU_MISSING_FEATURES", r"missing features: ?",
        "QEMU on the target host does not give the guest {features}, which it has now or is defined to have",
        _FITS, lists=True,
    ),
    _wording(
        "CPU_EXTRA_FEATURES", r"extra features: ?",
        "QEMU on the target host gives the guest {features} beyond its definition, and check='full' or a running guest "
        "takes no more than it has",
        "upgrade libvirt on the target to at least that of the source (libvirts that know QEMU 10 cope with ht); for a "
        "guest that is off, write check='partial' into its <cpu>: virsh edit GUEST", lists=True,
    ),
    _wording(
        "CPU_EXTRA_FEATURES", r"Host CPU does not strictly match guest CPU: Extra features(?:: ?)?",
        "the guest's <cpu> says match='strict', and the host's CPU has more than it names: {features}",
        "write match='exact' into its <cpu>, and power it off and on: virsh edit GUEST", lists=True,
    ),
    _wording(
        "CPU_FORBIDDEN_FEATURES",
        r"Host CPU provides forbidden features?(?:: ?| '(?P<feature>[\w.-]{1,40})')?",
        "the host's CPU has {features}, which the guest's <cpu> has with policy='forbid'",
        "write policy='disable' for it, which hides it from the guest and refuses no host: virsh edit GUEST",
        lists=True,
    ),
    _wording(
        "CPU_INCOMPATIBLE",
        r"Host CPU does not provide required features(?:: ?)?",
        "libvirt compared the guest's CPU with the host's before it started anything, and the host lacks {features}",
        _FITS, lists=True,
    ),
    _wording(
        "CPU_VENDOR",
        r"[Hh]ost CPU (?:model|vendor) does not match required CPU vendor(?: (?P<name>[\w ()-]{1,60}))?|"
        r"CPU vendors do not match",
        "the CPUs are of different makers, and no guest moves live between these",
        "choose a target with a CPU of the same vendor: fleet.select(\"vendor == '...'\"); or power the guest off, and "
        "start it there with a <cpu> that names no vendor",
    ),
    _wording(
        "CPU_ARCH", r"CPU arch (?P<name>[\w]{1,30}) does not match host arch",
        "the guest's CPU is of architecture {name}, and the host's is of another",
        "choose a host of that architecture: fleet.select(\"arch == '...'\")",
    ),
    _wording(
        "CPU_INCOMPATIBLE",
        r"the CPU is incompatible with host CPU|guest CPU doesn't match specification|"
        r"guest and host CPU are not compatible|guest CPU is not compatible with host CPU",
        "the host cannot give the guest its CPU; the text does not say what is missing", f"{_ASK}; {_FITS}",
        "symptom",
    ),
    _wording(
        "NOVA_CPU",
        r"CPU doesn't have compatibility\.?(?: (?P<answer>-?[0-9]{1,3})(?= |$))?",
        "nova asked libvirt on the target host whether its CPU covers the one of the guest or of the source; {verdict}",
        "see nova-compute.log on the target for the CPU that was compared, and ask libvirt yourself: "
        + _ASK + ". With "
        "QEMU from 2.9 and libvirt from 4.4 the migration checks by itself: [workarounds] skip_cpu_compare_on_dest = "
        "True in nova.conf of the target leaves nova's check out. For good: [libvirt] cpu_mode = custom, and as "
        "cpu_models what fleet.baseline() says, on all of them",
    ),
    _wording(
        "UNKNOWN_MODEL",
        r"[Uu]nknown CPU model:? '?(?P<name>[\w.-]{1,60})|unable to find CPU model '(?P<qemu>[^']{1,60})'|"
        r"CPU model '?(?P<model>[\w.-]{1,60})'? (?:is )?(?:not supported by hypervisor|unknown)",
        "the libvirt or QEMU of the host has no CPU model {name}", _NEWER,
    ),
    _wording(
        "UNKNOWN_FEATURE", r"[Uu]nknown CPU feature:? '?(?P<feature>[\w.-]{1,40})",
        "the libvirt of the host has no CPU feature {features}", _NEWER,
    ),
    _wording(
        "UNKNOWN_FEATURE", r"Property '[\w.-]{1,60}-cpu\.(?P<feature>[\w.-]{1,40})' not found",
        "the QEMU of the host has no CPU feature {features}", _NEWER,
    ),
    _wording(
        "UNKNOWN_FEATURE", r"CPU flag '?(?P<feature>[\w.-]{1,40})'? not found",
        "the hypervisor of the host has no CPU feature {features}", _NEWER,
    ),
    _wording(
        "PASSTHROUGH",
        r"CPU mode '(?P<name>host-passthrough|maximum)' [\w ]{1,80} is not supported by hypervisor|"
        r"CPU mode '(?P<mode>host-passthrough|maximum)'[\w ]{0,40} requires|CPU model 'host' requires KVM",
        "the guest wants the host's own CPU, and the host has no KVM, or its guests are emulated",
        "switch virtualization on in the BIOS of the host and modprobe kvm_intel or kvm_amd; or store a baseline: "
        "vc.apply_baseline('GUEST', base, source=SOURCE, targets=[TARGET])",
    ),
    _wording(
        "CPU_MODE", r"CPU mode '(?P<name>host-model|custom)' [\w ]{1,80} is not supported by hypervisor",
        "the hypervisor of the host has no CPU mode {name} for such a guest",
        "virsh -c TARGET domcapabilities has its modes; store one that both hosts support: virsh edit GUEST",
    ),
    _wording(
        "DEFINITION_DIFFERS",
        r"Target (?P<name>[\w -]{1,60}?) (?P<new>[^ ]{1,80}) does not match source (?P<old>[^ ]{1,80})",
        "the definition that was handed to the target differs from the guest's own in {name}: {new} instead of {old}",
        "hand over the guest's own: virsh -c SOURCE dumpxml --migratable GUEST; only what it does not see may differ",
    ),
    _wording(
        "INVTSC",
        r"State blocked by non-migratable CPU device \(invtsc flag\)|"
        r"domain has '?(?:CPU feature: )?invtsc'?(?: CPU feature but TSC frequency is not specified)?",
        "the guest counts on a TSC that never changes (invtsc), and nothing fixes its frequency",
        "give it <timer name='tsc' frequency='...'/> in <clock> (virsh capabilities has the number), or take invtsc "
        "out (with host-passthrough: migratable='on'), and power it off and on: virsh edit GUEST",
    ),
    _wording(
        "INVTSC", r"non-migratable device:? '?(?:[\w/.-]{0,60}/)?cpu(?:_common)?\b'?",
        "QEMU does not move this CPU: it has invtsc without a fixed TSC frequency, or was started with migratable=off",
        "give it <timer name='tsc' frequency='...'/> in <clock>, or take invtsc out (with host-passthrough: "
        "migratable='on'), and power it off and on: virsh edit GUEST",
    ),
    _wording(
        "TSC_FREQUENCY",
        r"Requested TSC frequency (?P<name>[0-9]{1,15}) Hz is outside tolerance range|"
        r"Mismatch between user-specified TSC frequency and migrated TSC frequency|"
        r"Host CPU does not support invariant TSC|Host TSC frequency could not be probed",
        "the TSC of the host does not run as the guest's must, and cannot be scaled to it",
        "choose a host within 250 ppm of it, or one that scales: fleet.hosts[['tsc_frequency', 'tsc_scaling']]",
    ),
    _wording(
        "HYPERV_TSC", r"Guest enabled re-enlightenment notifications, 'tsc-frequency=' has to be",
        "the guest uses Hyper-V's re-enlightenment, with which QEMU moves it only at a fixed TSC frequency",
        "add <timer name='tsc' frequency='...'/> to its <clock>, and power it off and on: virsh edit GUEST",
    ),
    _wording(
        "HOST_DOES_NOT_SUPPORT",
        r"host doesn't support requested feature: (?P<register>(?:CPUID|MSR)[\w.:()]{1,24}?)"
        r"(?:\.(?P<feature>\w[\w.-]{0,39}))? (?P<bit>\[bit [0-9]{1,2}\])",
        "the CPU of the host, or its KVM, does not give {features}; after this warning QEMU goes on without",
        _FITS, "warning",
    ),
    _wording(
        "CPU_ENFORCED", r"(?:Host|TCG) doesn't support requested features",
        "QEMU was told to give the CPU as a whole or not to start (enforce), and ended; its warnings before name what "
        "is "
        "missing",
        _FITS,
    ),
    _wording(
        "TCG_DOES_NOT_SUPPORT",
        r"TCG doesn't support requested feature: (?P<register>(?:CPUID|MSR)[\w.:()]{1,24}?)"
        r"(?:\.(?P<feature>\w[\w.-]{0,39}))? (?P<bit>\[bit [0-9]{1,2}\])",
        "the guest is emulated (TCG, not KVM), and QEMU cannot emulate {features}; after this warning it goes on "
        "without",
        "if it should run on KVM: modprobe kvm_intel or kvm_amd there, and <domain type='kvm'>; else take them out of "
        "its <cpu>: virsh edit GUEST", "warning",
    ),
)  # fmt: skip

_QEMU: Final = (
    _wording(
        "VIRTIO_FEATURES",
        r"Features (?P<name>0x[0-9a-f]{1,16}) unsupported\. Allowed features: (?P<allowed>0x[0-9a-f]{1,16})",
        "a virtio device of the guest uses features that QEMU or the kernel of the target does not have: {beyond}; "
        "these are bits of the device, not of the CPU",
        "move it to a host with as new a QEMU and kernel; or start it anew on the older one: machine type and device "
        "features are settled at the power cycle",
    ),
    _wording(
        "MACHINE_TYPE",
        r"[Uu]nsupported machine type(?: '?(?P<name>[\w.-]{1,60}))?|does not support machine type "
        r"'(?P<type>[^']{1,60})'|"
        r"the machine '(?P<machine>[^']{1,60})' is not supported by emulator",
        "QEMU on the host has no such machine type: it is older than the guest's, or its maker has removed the type",
        "virsh -c TARGET capabilities lists those it has; upgrade QEMU there, or change machine= to one of both hosts "
        "and power the guest off and on: virsh edit GUEST",
    ),
    _wording(
        "KVM",
        r"Could not access KVM kernel module|does not support virt type 'kvm'|failed to initialize kvm|"
        r"KVM is not (?:supported|available)",
        "the host runs no guests with KVM now",
        "virt-host-validate qemu there; switch virtualization on in the BIOS, and modprobe kvm_intel or kvm_amd",
    ),
    _wording(
        "NON_MIGRATABLE",
        r"State blocked by non-migratable device '(?P<name>[^']{1,120})'|non-migratable device: "
        r"(?P<device>[\w/.:-]{1,99})|"
        r"migration with (?P<what>virtiofs|legacy shmem|shmem|transient disk)[\w ]{0,20} is not supported|"
        r"Migration is disabled when|VFIO migration is not supported|VFIO device doesn't support migration",
        "the guest has a device that QEMU does not move{which}",
        "detach it, move, attach it again: virsh detach-device GUEST DEVICE.xml --live; or power the guest off",
    ),
    _wording(
        "HOSTDEV",
        r"cannot migrate a domain with <(?P<name>[^>]{1,80})>|domain has assigned non-USB host devices",
        "the guest was given a device of its host, which does not go along",
        "virsh detach-device GUEST DEVICE.xml --live, and attach one of the target after the move",
    ),
    _wording(
        "SNAPSHOTS", r"cannot migrate domain with (?P<name>[0-9]{1,6}) snapshots",
        "the guest has snapshots, which libvirt does not take along",
        "virsh snapshot-list GUEST; virsh snapshot-delete GUEST NAME; with --metadata only libvirt forgets them",
    ),
    _wording(
        "MEMORY",
        r"cannot set up guest memory '(?P<name>[^']{1,80})'|unable to map backing store for guest RAM|"
        r"can't open backing store [\w/.-]{1,99} for guest RAM|Insufficient free host memory pages|"
        r"hugetlbfs filesystem is not mounted|Unable to find any usable hugetlbfs mount",
        "the host has not enough free memory, or not enough huge pages, for the guest",
        "virsh -c TARGET freepages --all and nodememstats; free memory there, or reserve pages: virsh allocpages",
    ),
    _wording(
        "MEMORY_LOCK",
        r"Unable to change max memlock limit|cannot limit locked memory of process|Failed to adjust locked memory "
        r"limit|"
        r"mlock\(\) limits may be too low|locking memory failed|mlockall?: Cannot allocate memory",
        "the memory of the guest must be locked on the host (huge pages, host devices, RDMA, <locked/>), and may not "
        "be",
        "raise LimitMEMLOCK of the daemon (systemctl edit libvirtd), or <hard_limit> in <memtune>: virsh edit GUEST",
    ),
    _wording(
        "DISK_IN_USE",
        r"Failed to get (?:shared )?\"(?P<name>[\w -]{1,30})\" lock|Is another process using the image",
        "another process holds the disk of the guest, perhaps the very same guest on another host",
        "find out who before anything else: virsh -c SOURCE domstate GUEST; virsh -c TARGET domstate GUEST; lslocks",
    ),
    _wording(
        "STATE_LOAD",
        r"error while loading state(?: for instance 0x[0-9a-f]{1,8} of device '(?P<name>[^']{1,120})'| section id)?|"
        r"load of migration failed|Missing section footer|Unknown savevm section|Not a migration stream",
        "QEMU on the target could not take over the state that the source sent{which}: both ends differ in a device, "
        "a machine type, a firmware or a QEMU version",
        "read the lines before it in /var/log/libvirt/qemu/GUEST.log on the target; compare virsh version and the "
        "<devices> of both: an older QEMU does not take over from a newer one",
        "symptom",
    ),
    _wording(
        "QEMU_CLOSED", r"qemu unexpectedly closed the monitor|End of file from qemu monitor",
        "QEMU ended by itself; why, it wrote into its log",
        "read the end of /var/log/libvirt/qemu/GUEST.log on the host where it was starting, and of dmesg there",
        "symptom",
    ),
)  # fmt: skip

_LIBVIRT: Final = (
    _wording(
        "JOB_ACTIVE",
        r"another migration job is already running(?: for domain '(?P<name>[^']{1,200})')?|"
        r"There's a migration process in progress|migration[\w ' -]{0,60} is already in progress",
        "a migration of the guest is under way, or one that broke off has left its job behind",
        "virsh -c SOURCE domjobinfo --domain {guest}; wait for it, or end it: "
        "virsh -c SOURCE domjobabort --domain {guest}",
    ),
    _wording(
        "NAME_TAKEN",
        rf"domain {_QUOTED} (?:already exists with uuid (?P<uuid>[0-9a-f-]{{36}})|is already defined with uuid)|"
        r"domain '(?P<active>[^']{1,200})' is already (?:active|being started)|domain already exists",
        "the host has a domain of that name or UUID already: one that is left over, or the guest itself",
        "virsh -c TARGET domstate --domain {guest}; if it runs there and on the source, stop and find out which is the "
        "right one; "
        "if it is shut off and left over: virsh -c TARGET undefine --domain {guest}",
    ),
    _wording(
        "NO_DOMAIN",
        r"no domain with matching (?:name|uuid|id) '?(?P<name>[^' ]{1,200})|Domain not found",
        "the host that was asked has no such domain: another host has it, or it was transient and has ended",
        "virsh -c SOURCE list --all; virsh -c TARGET list --all; nobody has it: look into "
        "/var/log/libvirt/qemu/GUEST.log "
        "of both",
    ),
    _wording(
        "SAME_HOST", r"Attempt to migrate guest to the same host",
        "source and target are one host, or two with the same host UUID",
        "virsh -c SOURCE capabilities and TARGET: if <uuid> is equal on two machines, set host_uuid in libvirtd.conf "
        "of "
        "one (virtqemud.conf), and restart it",
    ),
    _wording(
        "NO_SHARED_STORAGE", r"Migration without shared storage is unsafe",
        "a disk of the guest lies on storage that libvirt does not know to be shared",
        "put it on shared storage, or copy it along: virsh migrate --copy-storage-all; only if it is the same file on "
        "both hosts: --unsafe",
    ),
    _wording(
        "DISK_CACHE", r"Migration may lead to data corruption if disks use cache",
        "a disk of the guest has a cache mode with which the target may read old data",
        "write cache='none' or 'directsync' into its <driver>, and power it off and on: virsh edit GUEST",
    ),
    _wording(
        "DISK_MISSING", r"Cannot access (?:storage|backing) file '(?P<name>[^']{1,300})'",
        "the host does not see or may not read {name}",
        "mount its storage on the target, and look at owner, SELinux label or AppArmor profile: ls -lZ",
    ),
    _wording(
        "NETWORK",
        r"Cannot get interface MTU on '(?P<name>[^']{1,60})'|Network not found(?:: no network with matching name "
        r"'(?P<network>[^']{1,80})')?",
        "the host has no such bridge or network",
        "virsh -c TARGET net-list --all; ip link on the target; create it, or point the guest to one of both hosts",
    ),
    _wording(
        "HOST_KEY", r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED",
        "ssh does not know the key of the host; peer-to-peer it is root on the source who logs in, not you",
        "on the machine that connects, as the user that does (the source, root): ssh TARGET once, and compare the key",
    ),
    # before AUTH: libvirt calls a refused certificate a failed authentication too
    _wording(
        "TLS",
        r"Certificate does not match the hostname (?P<name>[^ ]{1,200})|"
        r"(?:Certificate check failed )?Certificate [^ ]{1,99} owner does not match the hostname (?P<host>[^ ]{1,200})",
        "the certificate shown by the host that was called as {name} is made out to other names",
        "make it one whose subjectAltName has {name} (DNS: for a name, IP: for an address), or call the host by a name "
        "that it has: peer_uri=, migrate_uri=. There: openssl x509 -noout -ext subjectAltName -in "
        "/etc/pki/qemu/server-cert.pem (what QEMU sends), /etc/pki/libvirt/servercert.pem (qemu+tls)",
    ),
    _wording(
        "TLS",
        r"[Cc]ertificate (?:(?P<name>[^ ]{1,200}) )?(?:has expired|is not yet activ(?:e|ated))",
        "a certificate is not valid today{which}, or the clock of a host is wrong",
        "openssl x509 -noout -dates -in FILE, and date, on both hosts; renew it, and restart the daemon there",
    ),
    _wording(
        "TLS",
        r"Unable to access credentials (?P<name>[^ :]{1,200})|"
        r"Cannot read (?:(?:CA )?certificate|private key|CA revocation list) '(?P<file>[^']{1,300})'|"
        r"(?:Verify failed|Unable to verify TLS peer): No certificate was found",
        "one end has no certificate where it looks for it{which}, or none of the authority that the other end wants",
        "what QEMU sends takes ca-cert.pem, server-cert.pem, server-key.pem, client-cert.pem and client-key.pem in "
        "/etc/pki/qemu of both hosts (qemu.conf: migrate_tls_x509_cert_dir); qemu+tls takes what virt-pki-validate "
        "finds on both, and a client has its own in a folder: ?pkipath=FOLDER",
    ),
    _wording(
        "TLS",
        r"Our own certificate (?P<name>[^ ]{1,200}) failed validation against (?P<authority>[^ ]{1,200}):"
        r"(?: The certificate hasn't got a known issuer)?",
        "{name}, which this end shows, is not signed by the authority beside it, {authority}",
        "put a certificate of that authority there, or the authority that has signed it, which the other end must have "
        "too",
    ),
    _wording(
        "TLS",
        r"(?:authentication failed: )?Failed to verify peer's certificate|certificate hasn't got a known issuer|"
        r"[Cc]ertificate (?:is not trusted|failed validation|check failed|has been revoked)|"
        r"Unable to verify (?:server|client) certificate|"
        r"Certificate [^ ]{1,99} (?:purpose|usage)|client is not in the list|"
        r"Distinguished Name is not on the list of allowed clients",
        "one end does not trust the certificate of the other: another authority has signed it, it is made out to "
        "other names or for another use, or its owner is not on the list of clients",
        "one authority for both hosts: compare ca-cert.pem in /etc/pki/qemu (what QEMU sends) or "
        "/etc/pki/CA/cacert.pem (qemu+tls); virt-pki-validate on both; for qemu+tls the machine that connects says "
        "which of it: virsh -c with the same URI, or journalctl -u libvirtd -u virtqemud; restart the daemon after a "
        "change",
    ),
    _wording(
        "TLS",
        r"Cannot (?:read from|write to) TLS channel|Unable to read TLS confirmation|TLS handshake failed",
        "the other end broke the encrypted connection off: it refused the certificate that it was shown or did not "
        "get, or the link failed",
        "the end that refused says why, what QEMU sends in the last lines of /var/log/libvirt/qemu/GUEST.log of both "
        "hosts, qemu+tls in journalctl -u libvirtd -u virtqemud there",
    ),
    _wording(
        "AUTH",
        r"[Pp]ermission denied \([\w,-]{1,80}\)|authentication (?:failed|unavailable|cancelled)|access denied(?: by "
        r"policy)?|"
        r"Missing authentication credentials|polkit: |keyboard interactive authentication failed",
        "the host was reached and refused the login",
        "log in by hand, from the machine and as the user that connects (peer-to-peer: the source, root): virsh -c "
        "TARGET "
        "list; for qemu+ssh set up keys: ssh-copy-id; on the host itself: group libvirt or a polkit rule",
    ),
    _wording(
        "READ_ONLY", r"operation forbidden|read only access",
        "the connection may only look", "open it without -r (--readonly): what changes something needs write access",
    ),
    _wording(
        "PORT", r"Unable to find an unused port in range '[\w-]{1,40}' \((?P<name>[0-9]{1,5}-[0-9]{1,5})\)",
        "all ports for incoming guests are taken on the target: as many migrations run, or something else holds them",
        "wait for one to end (ss -ltnp on the target), or widen migration_port_min and migration_port_max in qemu.conf",
    ),
    _wording(
        "PORT", r"Failed to (?:find an available port: Address already in use|bind socket.{0,120}?: Address "
        r"already in use)",
        "the port is taken on the host", "ss -ltnp there says by whom; leave the port to libvirt, or give a free one",
    ),
    _wording(
        "PORT",
        r"unable to connect to server at '(?P<name>[^']{1,200}:49(?:15[2-9]|1[6-9][0-9]|20[0-9]|21[0-5]))'(?:: (?P<why>"
        r"[\w ]{1,40}))?",
        "QEMU on the source does not reach {name}, where QEMU on the target waits for the guest{reason}",
        "open ports 49152-49215 on the target for the source, or take another network: migrate_uri='tcp://ADDRESS', or "
        "migration_host in qemu.conf of the target",
    ),
    _wording(
        "CONNECT",
        r"unable to connect to server at '(?P<name>[^']{1,200})'|Failed to connect socket to '(?P<socket>[^']{1,200})'|"
        r"ssh: connect to host (?P<host>[^ ]{1,200}) port [0-9]{1,5}",
        "nothing that answers was reached at {name}",
        "from the machine that connects (peer-to-peer: the source): virsh -c TARGET list; there: systemctl status "
        "libvirtd virtqemud, and the firewall (22 for qemu+ssh, 16514 for qemu+tls, 16509 for qemu+tcp)",
    ),
    _wording(
        "NAME_RESOLUTION", r"(?:Unable to resolve address|[Cc]ould not resolve hostname) '?(?P<name>[^' :]{1,200})",
        "the machine that connects does not know the name {name}; peer-to-peer that is the source",
        "enter it into DNS or /etc/hosts there; or say where: migrate_uri='tcp://ADDRESS', and migration_host in "
        "qemu.conf "
        "of the target",
    ),
    _wording(
        "CONNECTION_LOST",
        r"connection closed due to keepalive timeout|End of file while reading data|Cannot recv data|client socket is "
        r"closed",
        "the connection to the other host broke off",
        "look at both before another try: virsh -c SOURCE domstate GUEST; virsh -c TARGET domstate GUEST; then "
        "systemctl "
        "status libvirtd virtqemud there", "symptom",
    ),
    _wording(
        "TIMEOUT",
        r"cannot acquire state change lock(?: \(held by (?P<name>[^)]{1,120})\))?",
        "another call has held the guest for half a minute{which}; with Migrate in its name it is a migration",
        "virsh -c SOURCE domjobinfo GUEST; a migration: wait, or virsh domjobabort GUEST; nothing there: QEMU hangs or "
        "waits for its disk (virsh domstate --reason GUEST, dmesg)",
    ),
    _wording(
        "ABORTED", r"migration[\w ' :]{0,30} canceled(?: by client)?|job '[\w ]{1,40}' canceled by client",
        "somebody ended the migration, a deadline or a person; the guest runs on at the source",
        "virsh -c SOURCE domstate GUEST; then try again, with more time or bandwidth",
    ),
)  # fmt: skip

WORDINGS: Final = (*_CPU, *_QEMU, *_LIBVIRT)
