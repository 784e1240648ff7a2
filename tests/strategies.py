"""Random CPUs built from a CPU map: plausible mostly, and wrong in every way that libvirt looks at."""

from __future__ import annotations

from random import Random

from vmcompat.fleet.cpu_map import CpuMap

POLICIES = ("force", "require", "optional", "disable", "forbid")


def host_group(rnd: Random, cpu_map: CpuMap) -> list[str]:
    """XML of one to twelve host CPUs, mostly of one vendor."""
    vendor = rnd.choice(["Intel", "Intel", "AMD", None])
    count = rnd.choice([1, 1, 2, 2, 2, 3, 3, 4, 6, 12])
    shared = rnd.sample(cpu_map.features, rnd.randint(0, 25))
    group = [host_cpu(rnd, cpu_map, vendor=vendor, shared=shared) for _ in range(count)]
    if count > 1 and rnd.random() < 0.2:
        group.append(rnd.choice(group))
    return group


def host_cpu(rnd: Random, cpu_map: CpuMap, *, vendor: str | None, shared: list[str]) -> str:
    """XML of a host CPU: every listed feature is present, whatever its policy says.

    Of x86, or of no architecture at all: libvirt looks only at the first host's and takes x86 models of an s390x, which
    a fleet refuses.
    """
    arch = rnd.choices(["x86_64", "i686", "sun4v"], [96, 3, 0.5])[0]
    model = _model(rnd, cpu_map, vendor)
    parts = [f"<arch>{arch}</arch>", f"<model>{model}</model>" if model is not None else ""]
    parts.append(_vendor(rnd, cpu_map, model))
    if rnd.random() < 0.2:
        parts.append("<signature family='6' model='85' stepping='4'/><microcode version='17'/>")
    if rnd.random() < 0.1:
        parts.append(f"<topology sockets='{rnd.choice([0, 1, 1, 2])}' cores='4' threads='2'/>")
    names = [name for name in shared if rnd.random() < 0.8] + rnd.sample(cpu_map.features, rnd.randint(0, 12))
    names = list(dict.fromkeys(names))
    parts += [f"<feature name='{name}'{_ignored_policy(rnd)}/>" for name in _spoilt(rnd, names)]
    attribute = rnd.choices(["", " match='exact'", " mode='custom'"], [97, 2, 1])[0]
    return f"<cpu{attribute}>{''.join(parts)}</cpu>"


def guest_cpu(rnd: Random, cpu_map: CpuMap, *, vendor: str | None = None, spoilt: bool = True) -> str:
    """XML of a guest CPU with features of every policy."""
    model = _model(rnd, cpu_map, vendor)
    names = rnd.sample(cpu_map.features, rnd.randint(0, 12))
    if model and model in cpu_map.models:
        implied = cpu_map.names(cpu_map.models[model].data)
        names += rnd.sample(implied, min(len(implied), rnd.randint(0, 6)))
    names = list(dict.fromkeys(names))
    policies = rnd.choice([POLICIES, ("require", "disable")])
    listed = [f"<feature policy='{rnd.choice(policies)}' name='{name}'/>" for name in names]
    if spoilt:
        listed = [f"<feature policy='{rnd.choice(policies)}' name='{name}'/>" for name in _spoilt(rnd, names)]
    match = rnd.choice(["", " match='exact'", " match='minimum'", " match='strict'"])
    named = "" if model is None else f"<model fallback='{rnd.choice(['allow', 'forbid'])}'>{model}</model>"
    return f"<cpu{match}>{named}{_vendor(rnd, cpu_map, model) if named else ''}{''.join(listed)}</cpu>"


def _model(rnd: Random, cpu_map: CpuMap, vendor: str | None) -> str | None:
    if rnd.random() < 0.02:
        return rnd.choice(["NoSuchModel", " Haswell ", "haswell", "", None])
    fitting = [m.name for m in cpu_map.models.values() if vendor is None or m.vendor in (None, vendor)]
    return rnd.choice(fitting)


def _vendor(rnd: Random, cpu_map: CpuMap, model: str | None) -> str:
    known = cpu_map.models.get(model) if model else None
    own = known.vendor if known else None
    vendor = rnd.choices([own, None, rnd.choice(cpu_map.vendors), "NoSuchVendor"], [70, 20, 8, 1])[0]
    return f"<vendor>{vendor}</vendor>" if vendor else ""


def _ignored_policy(rnd: Random) -> str:
    return f" policy='{rnd.choice([*POLICIES, 'whatever'])}'" if rnd.random() < 0.05 else ""


def _spoilt(rnd: Random, names: list[str]) -> list[str]:
    """Now and then a name that no map has, the same one twice, or an alias."""
    if rnd.random() < 0.03:
        return [*names, rnd.choice(["no-such-feature", "sse4_1", "kvm_pv_eoi", *names[:1]])]
    return names
