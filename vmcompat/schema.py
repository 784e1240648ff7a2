"""Index, columns and dtypes of every public frame, in one place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import pandas as pd

CPU_STATUS: Final[Mapping[str, str]] = {
    "ok": "the CPU is known",
    "no_model": "libvirt did not recognise the CPU",
    "unknown_model": "the CPU map does not know the model or a feature",
    "no_view": "there is no document of the fleet's view",
    "tcg_only": "the domain capabilities are those of emulation, not of KVM",
    "other_arch": "not an x86 CPU",
    "unreadable": "the document could not be read",
}
"""What ``fleet.hosts["cpu_status"]`` may say; only ``ok`` hosts have a row in ``fleet.features``."""

HOSTS: Final[Mapping[str, str]] = {
    "cpu_status": "str",
    "arch": "str",
    "model": "str",
    "vendor": "str",
    "microcode": "Int64",
    "family": "Int64",
    "model_number": "Int64",
    "stepping": "Int64",
    "sockets": "Int64",
    "dies": "Int64",
    "cores": "Int64",
    "threads": "Int64",
    "numa_cells": "Int64",
    "memory": "Int64",
    "page_sizes": "object",
    "tsc_frequency": "Int64",
    "tsc_scaling": "boolean",
    "maxphysaddr": "Int64",
    "transports": "object",
    "emulators": "object",
    "machines": "object",
    "security_models": "object",
    "uuid": "str",
    "libvirt": "str",
    "qemu": "str",
    "source": "str",
    "sha256": "str",
}
"""``fleet.hosts``, index ``host``. Counts are totals of the host; memory and page sizes [KiB], ``tsc_frequency`` [Hz],
``maxphysaddr`` [bits]. ``model`` and ``vendor`` are those of the fleet's view, ``source`` and ``sha256`` the document
they come from. Columns of dtype object hold tuples. The other columns of ``hosts.csv`` follow."""

DOCUMENTS: Final[Mapping[str, str]] = {
    "host": "str",
    "kind": "str",
    "source": "str",
    "sha256": "str",
    "arch": "str",
    "emulator": "str",
    "machine": "str",
    "virttype": "str",
    "used": "bool",
}
"""``fleet.documents``: one row a document that was read; ``used`` where the view's CPU comes from it."""

FINDINGS: Final[Mapping[str, str]] = {
    "host": "str",
    "code": "str",
    "severity": "str",
    "message": "str",
    "remedy": "str",
}
"""``fleet.findings``: what was noticed while reading, in input order; severity is error, warning or info."""

COMPARISON: Final[Mapping[str, str]] = {"result": "str", "reason": "str", "features": "object"}
"""``fleet.compare``, index ``host``: incompatible, identical, superset or unknown; the features are a tuple."""

BASELINES: Final[Mapping[str, str]] = {
    "n_hosts": "int64",
    "n_unknown": "int64",
    "model": "str",
    "level": "str",
    "n_features": "Int64",
    "capabilities_lost": "Int64",
    "controls_lost": "Int64",
    "immunities_lost": "Int64",
    "hazards_lost": "Int64",
    "reason": "str",
    "xml": "str",
    "hosts": "object",
}
"""``fleet.baselines``, one row a group: the baseline that all its hosts share, and how many distinct features of each
polarity some host of the group has and the baseline lacks, since another host is known to lack them; controls and
immunities only those of the group's vendor. Without an answer ``reason`` says why and ``model``,
``level`` and ``xml`` are missing. ``level`` is missing too where the baseline has not even x86-64-v1."""

MAXIMAL: Final[Mapping[str, str]] = {
    "arch": "str",
    "vendor": "str",
    "n_hosts": "int64",
    "capacity": "Float64",
    "n_features": "int64",
    "value": "float64",
    "level": "str",
    "hosts": "set",
    "features": "set",
    "step_cost": "Int64",
    "step_unreported": "Int64",
    "step_hosts": "set",
    "step_features": "set",
}
"""``maximal_baselines().frame``: ``hosts`` and all features that they share and that can be migrated, of which
libvirt's baseline may leave some out (``.baseline(row).dropped``); ``capacity`` is missing where that of a
host is not known, ``level`` where the features are not even x86-64-v1. The next step up would win ``step_features``
and lose ``step_hosts``, ``step_cost`` of them, ``step_unreported`` of these only because their libvirt has no name for
what is won; numbers missing and sets empty where no host of the group has more than all of them. With ``within`` that
column's value follows ``vendor``, as column ``within``. Columns of dtype set hold sets of names that are unpacked when
they are looked at."""

SPLIT: Final[Mapping[str, str]] = {
    "arch": "str",
    "vendor": "str",
    "n_hosts": "int64",
    "n_classes": "int64",
    "n_baselines": "int64",
    "complete_from": "int64",
    "truncated": "bool",
}
"""``maximal_baselines().split``, a row for the hosts that were compared with one another: how many different hosts
(``n_classes``) and maximal baselines there are among them. All of at least ``complete_from`` hosts are in the answer;
with ``delta`` all of which every further feature would cost at least so many."""

FRONTIER: Final[Mapping[str, str]] = {
    "arch": "str",
    "vendor": "str",
    "n_hosts": "int64",
    "capacity": "Float64",
    "n_features": "int64",
    "value": "float64",
    "level": "str",
    "hosts": "set",
    "features": "set",
}
"""``frontier().frame``: groups of which no other covers at least as much and keeps at least as much value, with one of
them more; per architecture and vendor the largest cover first. Columns as in ``MAXIMAL``. What is covered is
``n_hosts``, or with ``capacity=`` the sum of that column, which ``capacity`` then holds and which is known of every
host; without it ``capacity`` holds the cores, as beside maximal baselines, and decides nothing."""

POOLS: Final[Mapping[str, str]] = {
    "arch": "str",
    "vendor": "str",
    "n_hosts": "int64",
    "capacity": "Float64",
    "n_features": "int64",
    "value": "float64",
    "level": "str",
    "n_moved": "int64",
    "hosts": "object",
    "features": "object",
    "given_up": "object",
}
"""``pools().frame``, index ``pool``: the hosts (tuple) of each pool, the features that all of them offer, their value,
and what the pool gives up: features that some of its hosts offer and another is known to lack. A pool that goes on
from one of today's has its name; ``n_moved`` hosts come from elsewhere."""

PLACEMENT: Final[Mapping[str, str]] = {
    "pool": "str",
    "today": "str",
    "moved": "bool",
    "restarts": "bool",
    "value": "float64",
    "own_value": "float64",
    "gives_up": "object",
}
"""``pools().placement``, index ``host``, in the order of the fleet: its pool, that of today (missing without
``current``), whether it changes, whether its guests have to restart since the new pool lacks a feature of today's, the
value that its pool keeps and that it would have alone, and the features (tuple) that it offers and its pool lacks."""

CONFORMS: Final[Mapping[str, str]] = {
    "conforms": "str",
    "baseline": "str",
    "reason": "str",
    "missing": "object",
    "unreported": "object",
}
"""``conforms().frame``, index ``host``: yes, no or unknown; which of the baselines is the host's (its model where there
is one for all, missing where there is none for it); the features (tuples) that are asked and known to be missing there,
and those that are asked and that the host's libvirt has no name for."""

BREACHES: Final[Mapping[str, str]] = {
    "baseline": "str",
    "feature": "str",
    "group": "str",
    "polarity": "str",
    "n_missing": "int64",
    "n_unreported": "int64",
    "missing_on": "object",
    "unreported_on": "object",
}
"""``conforms().features``, one row a feature that a baseline asks and a host does not offer for sure, in map order: on
which hosts (tuples) it is known to be missing, and on which it cannot be known."""

VETO: Final[Mapping[str, str]] = {
    "arch": "str",
    "vendor": "str",
    "feature": "str",
    "group": "str",
    "polarity": "str",
    "value": "float64",
    "n_hosts": "int64",
    "n_offering": "int64",
    "n_vetoing": "int64",
    "n_unreported": "int64",
    "vetoed_by": "set",
    "unreported_by": "set",
}
"""``veto().frame``, one row a feature that some of the ``n_hosts`` hosts of an architecture and vendor offer and others
do not: ``vetoed_by`` are known to lack it, the libvirt of ``unreported_by`` has no name for it. In map order."""

LEAVERS: Final[Mapping[str, str]] = {
    "arch": "str",
    "vendor": "str",
    "features": "object",
    "unreported": "object",
    "value": "float64",
    "level": "str",
}
"""``veto().hosts``, index ``host``, in the order of the fleet: the features (tuple) that the others of its architecture
and vendor would gain without it, those of them that it merely cannot report, their value, and the level of the others
then, missing below x86-64-v1 and where there are no others."""

LEAVING_PAIRS: Final[Mapping[str, str]] = {
    "arch": "str",
    "vendor": "str",
    "hosts": "object",
    "features": "object",
    "unreported": "object",
    "value": "float64",
    "level": "str",
}
"""``veto().pairs``, one row for two hosts (tuple) without which the others would gain features that neither alone is in
the way of; ``unreported`` of these neither is known to lack. The most valuable first; ``level`` that of the others."""

WHAT_IF: Final[Mapping[str, str]] = {
    "arch": "str",
    "vendor": "str",
    "n_hosts_before": "int64",
    "n_hosts_after": "int64",
    "model_before": "str",
    "model_after": "str",
    "level_before": "str",
    "level_after": "str",
    "n_features_before": "Int64",
    "n_features_after": "Int64",
    "value_before": "Float64",
    "value_after": "Float64",
    "gained": "object",
    "lost": "object",
    "unreported": "object",
    "reason": "str",
}
"""``what_if().frame``, one row an architecture and vendor that there is before or after: its baseline in both, counted
by what a guest is given. ``gained`` and ``lost`` (tuples, in map order) are empty where there is only one of the two;
``unreported`` are those of them that no host was, or is, known to lack. ``reason`` says why there is no baseline."""

CHANGES: Final[Mapping[str, str]] = {
    "arch": "str",
    "vendor": "str",
    "feature": "str",
    "group": "str",
    "polarity": "str",
    "value": "float64",
    "change": "str",
    "unreported": "bool",
}
"""``what_if().features``, one row a feature that is gained or lost (``change``), in map order; ``unreported`` where no
host was, or is, known to lack it."""

CHANGE_SUMS: Final[Mapping[str, str]] = {
    "arch": "str",
    "vendor": "str",
    "polarity": "str",
    "group": "str",
    "n_gained": "int64",
    "n_lost": "int64",
    "value_gained": "float64",
    "value_lost": "float64",
}
"""``what_if().summary``: the changes by polarity and group, since no sum over polarities means anything."""

ADMISSION: Final[Mapping[str, str]] = {
    "n_hosts": "int64",
    "arch": "str",
    "vendor": "str",
    "model": "str",
    "verdict": "str",
    "reason": "str",
    "lost": "object",
    "unreported": "object",
    "value_lost": "Float64",
    "level_after": "str",
    "model_after": "str",
    "n_back": "Int64",
    "n_back_unknown": "Int64",
    "hosts": "object",
}
"""``admit().frame``, one row a kind of new hosts: ``verdict`` is joins, lowers, cannot meet or unknown; what the pool's
baseline would lose for sure (tuple) and what it would lose since the newcomer's libvirt has no name for it, the value
of both, and what the baseline would be; to how many hosts of the pool a guest started on the newcomer with host-model
can come back, and of how many that cannot be known."""

COMING_BACK: Final[Mapping[str, str]] = {
    "new_hosts": "object",
    "pool_hosts": "object",
    "back": "str",
    "missing": "object",
    "unreported": "object",
}
"""``admit().back``, one row for each kind of new hosts and kind of the pool's (tuples): whether a guest that was
started on the first with host-model can come back to the second (yes, no, unknown), the features that are known to be
missing there, and those that its libvirt has no name for."""

RETIREMENT: Final[Mapping[str, str]] = {
    "arch": "str",
    "vendor": "str",
    "n_hosts_before": "int64",
    "n_hosts_after": "int64",
    "model_before": "str",
    "model_after": "str",
    "level_before": "str",
    "level_after": "str",
    "value_gained": "Float64",
    "gained": "object",
    "reason": "str",
}
"""``retire().frame``, one row an architecture and vendor (and value of ``by``, as column ``by``) of which hosts leave;
columns as in ``WHAT_IF``, over the hosts whose CPU is known."""

PAYOFF: Final[Mapping[str, str]] = {
    "arch": "str",
    "vendor": "str",
    "features": "object",
    "unreported": "object",
    "value": "float64",
    "held_back_by": "object",
}
"""``retire().bundles``: the gained features (tuple) that the same leaving hosts (tuple) were in the way of, all of
which must leave; ``unreported`` of these none of the hosts is known to lack. The most valuable first."""

CANDIDATES: Final[Mapping[str, str]] = {
    "vendor": "str",
    "verdict": "str",
    "level": "str",
    "deprecated": "boolean",
    "value_lacking": "float64",
    "capabilities": "object",
    "controls": "object",
    "immunities": "object",
    "hazards": "object",
    "host_facts": "object",
    "unnamed": "object",
}
"""``candidates().frame``, index ``model``, in map order: ``verdict`` is joins, cannot tell (its name lacks only facts
of the host, or what no model of the vendor names) or lacks; what the name does not stand for and the baseline gives, by
polarity (tuples), the value of these, and ``unnamed``, which no name of the vendor stands for; ``level`` of what the
name stands for of the baseline. ``deprecated`` where a host's emulator says so, missing where none says anything."""

MOVES: Final[Mapping[str, str]] = {"today": "str", "pool": "str", "restarts": "bool", "value_after": "float64"}
"""``pools().moves``, index ``host``: from which pool of today to which, whether the host's guests have to restart, and
the value that all hosts that are in a pool today keep after this move and those before it."""

POOL_CURVE: Final[Mapping[str, str]] = {
    "n_pools": "int64",
    "value": "float64",
    "bound": "float64",
    "gap": "float64",
    "optimal": "bool",
    "n_moved": "int64",
}
"""``pool_curve().frame``, index ``k``: see the attributes of ``Pools``."""

DROPPED: Final[Mapping[str, str]] = {"feature": "str", "group": "str", "polarity": "str", "reason": "str"}
"""``base.dropped``: features that the hosts share and the baseline leaves out, and why."""

LOST: Final[Mapping[str, str]] = {"host": "str", "feature": "str", "group": "str", "polarity": "str"}
"""``base.lost``: what each host offers, another lacks, and a guest with this baseline does not get."""

TWINS: Final[Mapping[str, str]] = {
    "group": "str",
    "n_hosts": "int64",
    "what": "str",
    "features": "object",
    "polarities": "object",
    "hosts": "object",
    "value": "str",
    "others": "str",
    "explained_by": "object",
}
"""``twins().frame``: ``hosts`` (tuple) of the group differ from its others in ``what``: features, maxphysaddr [bits] or
tsc_frequency [Hz]; ``explained_by`` are the columns that tell the two apart without exception."""

IDENTICAL: Final[Mapping[str, str]] = {
    "n_hosts": "int64",
    "is_known": "bool",
    "arch": "str",
    "vendor": "str",
    "model": "str",
    "cpu_status": "str",
    "hosts": "object",
    "unknown": "object",
    "perhaps": "object",
    "unreported": "object",
    "microcode": "object",
    "maxphysaddr": "object",
    "qemu": "object",
    "libvirt": "object",
    "kernel": "object",
    "bios_date": "object",
}
"""``identical().frame``, index ``class``, one row for hosts (tuple) alike in all that is known of them. They are
identical where ``is_known``; else ``unknown`` says what is not known (tuple). ``perhaps`` are the classes that nothing
known tells them from, ``unreported`` the features that one of these offers and the libvirt of another has no name for,
or that none offers and not all libvirts have a name for.
From ``microcode`` on it is evidence: the different values among the hosts (tuple), [bits] of ``maxphysaddr``; empty
where none is known or ``hosts.csv`` has no such column. ``arch``, ``vendor`` and ``model`` are missing where hosts
differ in them."""

ONE_APART: Final[Mapping[str, str]] = {
    "class": "str",
    "other": "str",
    "what": "str",
    "here": "str",
    "there": "str",
    "adds": "object",
    "lacks": "object",
}
"""``identical().apart``: what alone keeps a class from a larger one, the ``other``: its value here and there, or the
features (tuple) that only the hosts of the class offer or lack."""

MODELS: Final[Mapping[str, str]] = {
    "usable": "str",
    "blockers": "object",
    "deprecated": "boolean",
    "canonical": "str",
    "told": "str",
    "refused": "object",
}
"""``models().frame``, index ``host``, ``model``: whether the host can give a guest the named model (yes, no, unknown)
and which features keep it from that (tuple); where it is unknown, those that decide. ``told`` says by what: "document"
(the domain capabilities), "map" (these say at most whether, and the blockers are computed from the CPU map),
"not listed" (the host's libvirt or emulator knows no such name); missing where nothing is known.
``canonical`` is the versioned name of the same model; ``deprecated`` is missing where no document says it. Libvirt
before 11.3 does not start a guest with a usable model if its own map counts features in that the host lacks: these are
``refused`` (tuple), and a domain has to disable them beside the name."""

BEST_MODELS: Final[Mapping[str, str]] = {
    "n_hosts": "int64",
    "n_unknown": "int64",
    "model": "str",
    "deprecated": "boolean",
    "n_features": "Int64",
    "value": "Float64",
    "level": "str",
    "runner_up": "str",
    "runner_up_value": "Float64",
    "runner_up_adds": "object",
    "baseline": "str",
    "baseline_features": "Int64",
    "baseline_level": "str",
    "given_up": "object",
    "value_given_up": "Float64",
    "controls_given_up": "object",
    "closest": "str",
    "blocking_hosts": "object",
    "blocking_features": "object",
    "blocked_by": "str",
    "reason": "str",
}
"""``models().best``, one row a group: the most valuable named ``model`` that every host whose CPU is known can use and
does not refuse, what it gives, and what it gives up against the exact baseline of the group, which libvirt writes as
the model ``baseline`` and features beside it; ``given_up`` most valuable first, ``controls_given_up`` without those
that an immunity of the hosts makes needless. ``runner_up`` is the next best name of another model. ``closest`` means
more than ``model`` and fails on the fewest hosts, ``blocking_hosts``: ``blocked_by`` says whether by "lacking"
``blocking_features``, "refused", "not listed" or "unknown"; missing where no host can use a better one. ``reason`` says
why there is no answer at all."""

DOMAINS: Final[Mapping[str, str]] = {
    "host": "str",
    "state": "str",
    "manager": "str",
    "arch": "str",
    "virttype": "str",
    "machine": "str",
    "emulator": "str",
    "cpu_mode": "str",
    "model": "str",
    "live": "bool",
    "stored": "bool",
    "memory": "Int64",
    "vcpus": "Int64",
    "uuid": "str",
    "source": "str",
    "sha256": "str",
    "source_stored": "str",
    "sha256_stored": "str",
}
"""``read_domains().frame``, index ``domain``. ``host`` and ``state`` are those of ``domains.csv`` or of the
live host, missing where nobody says. ``live`` and ``stored``: whether there is XML of how the guest runs and of its
next start; what follows from XML is of the former, else of the latter: ``memory`` [KiB], ``cpu_mode`` missing where the
XML has no ``<cpu>``. ``source`` and ``sha256`` are of that document, the last two of the stored definition."""

DOMAIN_FINDINGS: Final[Mapping[str, str]] = {
    "domain": "str",
    "code": "str",
    "severity": "str",
    "message": "str",
    "remedy": "str",
}
"""``read_domains().findings``, in the order of the domains; as ``FINDINGS``."""

DEMAND: Final[Mapping[str, str]] = {
    "arch": "str",
    "virttype": "str",
    "machine": "str",
    "emulator": "str",
    "mode": "str",
    "model": "str",
    "vendor": "str",
    "features": "object",
    "tsc_frequency": "Int64",
    "maxphysaddr": "Int64",
    "vcpus": "Int64",
    "memory": "Int64",
    "page_sizes": "object",
    "pins": "object",
    "nodes": "object",
    "hyperv": "object",
    "kvm": "object",
    "hostdevs": "object",
    "launch_security": "str",
    "unknown": "object",
}
"""``demand()``, index ``domain``: what a guest needs of a host, by the live XML of one that runs and the definition of
one that is off. ``features`` (tuple, in map order) must be offered; ``tsc_frequency`` [Hz], ``maxphysaddr`` [bits],
``memory`` [KiB]. Tuples: ``page_sizes`` [KiB] of huge pages, 0 for the default size; ``pins`` and ``nodes`` numbers of
host CPUs and NUMA nodes that the XML names; ``unknown`` what cannot be told: names of these columns, or "feature x"
where only one feature is in doubt."""

REACH: Final[Mapping[str, str]] = {
    "verdict": "str",
    "reasons": "object",
    "missing": "object",
    "evidence": "str",
}
"""``reachability().frame``, index ``domain``, ``host``, a row for each guest and each host but its own: ``verdict`` is
yes, no or unknown; ``reasons`` (tuple) the ids of the checks that say so, of ``vmcompat.migration.preflight``;
``missing`` (tuple, in map order) CPU features that the guest needs and the host is known to lack."""

REACH_DOMAINS: Final[Mapping[str, str]] = {
    "host": "str",
    "state": "str",
    "n_yes": "int64",
    "n_no": "int64",
    "n_unknown": "int64",
    "n_by_manager": "int64",
    "verdict": "str",
    "held_by": "object",
    "nearest": "str",
    "nearest_reasons": "object",
    "nearest_missing": "object",
    "evidence": "str",
    "remedy": "str",
}
"""``reachability().domains``, index ``domain``: to how many hosts a guest can go, cannot, and may. ``verdict`` is free
(to one at least), stuck (to none, for sure) or unknown. To ``n_by_manager`` hosts nothing is in its way but that its
manager has to move it. ``held_by`` (tuple): the fewest checks such that one of them is in the way to every candidate,
those that stop it at most hosts first. ``nearest`` is the host with the fewest obstacles, and ``evidence`` and
``remedy`` are about it; missing and empty where the guest is free."""

CANARY: Final[Mapping[str, str]] = {
    "host": "str",
    "verdict": "str",
    "one_way": "bool",
    "n_before": "int64",
    "n_after": "int64",
    "upgraded": "object",
    "missing": "object",
    "lost": "object",
    "evidence": "str",
    "remedy": "str",
}
"""``canary().frame``, index ``domain``: ``verdict`` is ok, no or unknown. ``one_way``: it could go to an upgraded host
and, after a power cycle there, not come back, since other hosts lack the ``missing`` features (tuple). ``upgraded``
(tuple) are the hosts it is about, ``lost`` (tuple) those that it could reach before and no longer can. ``n_before`` and
``n_after`` count the hosts that it can go to."""

EVACUATION: Final[Mapping[str, str]] = {
    "source": "str",
    "target": "str",
    "wave": "Int64",
    "memory": "Int64",
    "vcpus": "Int64",
    "n_places": "Int64",
    "verdict": "str",
    "reasons": "object",
    "evidence": "str",
    "remedy": "str",
}
"""``plan_evacuation().frame``, index ``domain``, in the order of the guests: ``verdict`` is moves, managed (only its
manager may move it), unknown (whether it has a place depends on what is not known), stuck (no host can take it), full
(hosts could, and have no room beside what is placed) or off (it stays). ``target`` and ``wave`` are missing where it
does not move; ``memory`` [KiB] and ``vcpus`` are what it takes; ``n_places`` counts the hosts that would have had room
for it alone, with those that it stays together with. ``reasons`` (tuple): ids of checks at the nearest host, or
memory, vcpus, apart, together, name, doubt."""

EVACUATION_TARGETS: Final[Mapping[str, str]] = {
    "n_domains": "int64",
    "memory_before": "int64",
    "memory_after": "int64",
    "memory": "int64",
    "memory_share": "float64",
    "vcpus_before": "int64",
    "vcpus_after": "int64",
}
"""``plan_evacuation().targets``, index ``host``, in the order of the fleet: what comes there, the memory that guests
have there before and after, that of the host [KiB], and which share of it they have then."""

LOSSES: Final[Mapping[str, str]] = {
    "hosts": "object",
    "n_like": "int64",
    "n_domains": "int64",
    "n_placed": "int64",
    "verdict": "str",
    "without_place": "object",
    "memory_borrowed": "int64",
    "vcpus_borrowed": "int64",
}
"""``survives_loss().frame``, one row for hosts (tuple) that are lost at once, and for the ``n_like`` sets of hosts that
are equal to them in all that matters, these included: how many guests ran there and how many can start elsewhere,
whether all can (yes, no, unknown), the guests without a place (tuple), and what would have to be borrowed for those
that only lack room: memory [KiB] and virtual CPUs."""

LOSSES_DOMAINS: Final[Mapping[str, str]] = {
    "hosts": "object",
    "domain": "str",
    "source": "str",
    "memory": "Int64",
    "vcpus": "Int64",
    "verdict": "str",
    "reasons": "object",
    "evidence": "str",
    "remedy": "str",
}
"""``survives_loss().domains``, one row for lost hosts (tuple) and a guest without a place then; columns as in
``EVACUATION``."""

LOSSES_BORROW: Final[Mapping[str, str]] = {
    "hosts": "object",
    "like": "str",
    "model": "str",
    "memory": "int64",
    "vcpus": "int64",
    "domains": "object",
}
"""``survives_loss().borrow``, one row for lost hosts (tuple) and a host that would have to be larger: ``memory`` [KiB]
and virtual CPUs that are short on a host ``like`` it, whose CPU's ``model`` is named, and the guests that it takes."""

LEDGER: Final[Mapping[str, str]] = {
    "host": "str",
    "state": "str",
    "manager": "str",
    "running": "str",
    "stored": "str",
    "on_it": "boolean",
    "written": "boolean",
    "beyond": "object",
    "missing": "object",
    "action": "str",
    "wave": "Int64",
    "n_hosts": "Int64",
    "moves_today": "boolean",
    "until": "str",
    "evidence": "str",
    "remedy": "str",
}
"""``restart_ledger().frame``, index ``domain``: ``running`` and ``stored`` are the models (or modes) of the CPU that a
guest has and of the one that it starts with next; ``on_it`` whether the former is the baseline, missing for a guest
that is off, ``written`` whether the latter is. ``beyond`` and ``missing`` (tuples) are features that the running CPU
has more and less than the baseline. ``action`` is none, write, cycle (power off and on), write and cycle, unknown, or
elsewhere for guests that the baseline is not for; ``wave`` counts from 1. Of the fleet, if given: ``n_hosts`` to which
the guest can go as it is, ``moves_today`` whether to one at least, ``until`` "power cycle" where what is stored brings
more than it runs with, so that its next start may end that."""

ROLLOUT: Final[Mapping[str, str]] = {
    "host": "str",
    "outcome": "str",
    "power_cycle": "boolean",
    "message": "str",
    "next": "str",
}
"""``restart_ledger().apply().frame``, index ``domain``: ``outcome`` is applied (written now), already there, refused (a
host cannot run the CPU, or somebody changed the definition; nothing was written), failed (a host did not answer), left
alone (not of the baseline's hosts, another manager's, or not known what is stored) or not begun. ``power_cycle``: it
has the baseline stored and does not run with it yet; missing where that is not known."""

ROLLOUT_UNDONE: Final[Mapping[str, str]] = {"host": "str", "outcome": "str", "message": "str"}
"""``restart_ledger().apply().undo()``, index ``domain``: ``outcome`` is undone, refused (somebody changed the
definition since; it stays) or failed (the host did not answer)."""

ERRORS_EXPLAINED: Final[Mapping[str, str]] = {
    "kind": "str",
    "weight": "str",
    "features": "object",
    "cause": "str",
    "remedy": "str",
    "lack": "object",
    "have": "object",
    "cannot_tell": "object",
    "text": "str",
    "line": "int64",
}
"""``explain_error().frame``, one row a problem, causes first: ``kind`` a stable id, "unknown" where the text says
nothing that is known; ``weight`` is cause, symptom or warning. ``features`` (tuple) are the CPU features that it names,
in libvirt's spelling; hosts of the fleet (tuples) ``lack`` at least one of them, ``have`` all, or neither can be told.
``text`` is what says so, ``line`` where it begins, from 1."""

PREFLIGHT: Final[Mapping[str, str]] = {
    "id": "str",
    "severity": "str",
    "evidence": "str",
    "remedy": "str",
    "forced": "bool",
}
"""``plan.findings``: severity is ok, warn, risk, block or unknown; ``forced`` where ``force=`` lets it pass."""

MIGRATION_CHECKS: Final[Mapping[str, str]] = {
    "asks": "str",
    "severities": "object",
    "proved_on": "str",
    "libvirt": "str",
}
"""``migration.checks()``, index ``id``: ``severities`` are those that the check can give (tuple of str)."""

PREFLIGHTS: Final[Mapping[str, str]] = {"domain": "str", "target": "str", **PREFLIGHT}
"""``preflight()`` of many moves, and ``plan_evacuation().preflight()`` of all that are left to do: every finding of
each; columns as in ``PREFLIGHT``."""

EVACUATION_RUN: Final[Mapping[str, str]] = {
    "wave": "Int64",
    "target": "str",
    "outcome": "str",
    "where": "str",
    "seconds": "float64",
    "downtime_ms": "Int64",
    "message": "str",
    "next": "str",
}
"""``plan_evacuation().run().frame``, index ``domain``, first those that move in the order of the waves: ``outcome`` is
moved, arrived before (the run found it there), failed, aborted, under way (not waited for any more), not begun, or
stays (the plan does not move it; ``wave`` and ``target`` are missing). ``where`` is the state of the guest on each
host that has it, looked up at the end. ``seconds`` [s] and ``downtime_ms`` [ms] are of its move, ``next`` what to type
or do."""

MIGRATION_RESULT: Final[Mapping[str, str]] = {
    "domain": "str",
    "source": "str",
    "target": "str",
    "outcome": "str",
    "phase": "str",
    "way": "str",
    "policy": "str",
    "policy_steps": "object",
    "started": "datetime64[us, UTC]",
    "seconds": "float64",
    "transfer_seconds": "float64",
    "downtime_ms": "Int64",
    "transferred": "Int64",
    "iterations": "Int64",
    "restarted": "bool",
    "baseline": "str",
    "not_given": "object",
    "forced": "object",
    "message": "str",
}
"""``plan.run().frame``, one row: ``outcome`` is migrated, restored, stayed, lost or unknown; ``phase`` how far it came;
``way`` peer to peer, managed or offline; ``policy_steps`` what was done by the ``policy``; ``seconds`` [s],
``transferred`` [bytes]; ``baseline`` its model; ``not_given`` features asked for at the start and not given."""

MIGRATION_LOG: Final[Mapping[str, str]] = {
    column: "boolean" if dtype == "bool" else dtype for column, dtype in MIGRATION_RESULT.items()
}
"""``vmcompat.migration.log()``, one row a run; columns as in ``MIGRATION_RESULT``, missing where the row has none."""

MIGRATION_PROGRESS: Final[Mapping[str, str]] = {
    "time_elapsed": "int64",
    "memory_total": "int64",
    "memory_remaining": "int64",
    "memory_bps": "Int64",
    "memory_dirty_rate": "Int64",
    "memory_page_size": "Int64",
    "memory_iteration": "Int64",
    "auto_converge_throttle": "Int64",
    "downtime": "Int64",
}
"""One row each time a running migration was looked at, by libvirt's names: ``time_elapsed`` and ``downtime`` [ms],
``memory_bps`` [bytes/s], ``memory_dirty_rate`` [pages/s], ``auto_converge_throttle`` [%], sizes [bytes]."""


DRIFT: Final[Mapping[str, str]] = {
    "host": "str",
    "what": "str",
    "before": "str",
    "after": "str",
    "gained": "object",
    "lost": "object",
    "unreported": "object",
    "polarities": "object",
    "cause": "str",
    "rank": "int64",
}
"""``drift().frame``, one row a change of a host, in the order of the later hosts, then those that are gone: ``what`` is
host (its two names; "there" and missing where it is new or gone), cpu_status, features, processor (vendor and
family/model/stepping), or another fact of ``fleet.hosts``, before and after as text; of machines what only one of the
two has. ``gained`` and ``lost`` (tuples, in map order) both documents could speak of; of ``unreported`` one has no
name, so that it is no sure change. ``polarities`` are those of gained and lost. ``cause`` is what most likely did it,
missing where nothing tells. ``rank`` is how bad it is: 0 a control lost, 1 a host gone or not readable any more, 2 an
immunity lost, 3 a hazard gained, 4 a capability or capacity lost, 5 something lost perhaps, 6 a gain, 7 neither."""

DRIFT_GROUPS: Final[Mapping[str, str]] = {
    "n_hosts": "int64",
    "hosts": "object",
    **{column: dtype for column, dtype in DRIFT.items() if column != "host"},
}
"""``drift().groups``, index ``group``, the name of the first of the ``hosts`` (tuple) with exactly the same changes;
one row a change, columns as in ``DRIFT``."""

AUDIT: Final[Mapping[str, str]] = {
    "kind": "str",
    "severity": "str",
    "subject": "str",
    "finding": "str",
    "remedy": "str",
    "status": "str",
    "owner": "str",
    "expiry": "str",
    "waived_because": "str",
    "is_new": "boolean",
    "sources": "object",
    "sha256": "object",
}
"""The findings of ``vc.report``, index ``id``: ``kind`` is coverage, security, performance or operation; ``severity``
red, amber, unknown or note; ``subject`` a host, a group of hosts or a domain; ``status`` open, waived or waiver
expired; ``is_new`` since the earlier report, missing without one. ``sources`` and ``sha256`` (tuples) are the documents
that bear it out."""


def frame(
    columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]], *, index: pd.Index | None = None
) -> pd.DataFrame:
    """A frame of exactly those columns and dtypes, also where there are no rows.

    Parameters
    ----------
    columns : mapping of str to str
        Name and dtype of each column.
    rows : iterable of mapping
        Values a row; what a row does not have is missing, an empty tuple in a column of dtype object.
    index : Index, optional
        As long as there are rows.

    Returns
    -------
    DataFrame
    """
    rows = list(rows)
    data = {}
    for name, dtype in columns.items():
        values = [row.get(name) for row in rows]
        if dtype == "object":
            values = [() if v is None else v for v in values]
        data[name] = pd.Series(values, dtype=dtype, index=index)
    return pd.DataFrame(data, columns=list(columns), index=index)
