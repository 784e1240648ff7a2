"""Random CPUs built from a CPU map: plausible mostly, and wrong in every way that libvirt looks at."""

from __future__ import annotations

from random import Random

from vmcompat.fleet.cpu_map import CpuMap

POLICIES = ("force", "require", "optional", "disable", "forbid")


def host_group(rnd: Random, cpu_map: CpuMap) -> list[str]:
    """XML of one to twelve host CPUs; three groups in four are of one vendor and without fault."""
    spoilt = rnd.random() < 0.25
    vendor = rnd.choice(["Intel", "Intel", "AMD", None] if spoilt else ["Intel", "Intel", "AMD"])
    count = rnd.choice([1, 1, 2, 2, 2, 3, 3, 4, 6, 12])
    shared = rnd.sample(cpu_map.features, rnd.randint(0, 25))
    group = [host_cpu(rnd, cpu_map, vendor=vendor, shared=shared, spoilt=spoilt) for _ in range(count)]
    if count > 1 and rnd.random() < 0.2:
        group.append(rnd.choice(group))
    return group


def host_cpu(rnd: Random, cpu_map: CpuMap, *, vendor: str | None, shared: list[str], spoilt: bool) -> str:
    """XML of a host CPU: every listed feature is present, whatever its policy says.

    Of x86, or of no architecture at all: libvirt looks only at the first host's and takes x86 models of an s390x, which
    a fleet refuses.
    """
    arch = rnd.choices(["x86_64", "i686", "sun4v"], [96, 3, 0.5 * spoilt])[0]
    model = _model(rnd, cpu_map, vendor, spoilt=spoilt)
    parts = [f"<arch>{arch}</arch>", f"<model>{model}</model>" if model is not None else ""]
    parts.append(_vendor(rnd, cpu_map, model, spoilt=spoilt))
    if rnd.random() < 0.2:
        parts.append("<signature family='6' model='85' stepping='4'/><microcode version='17'/>")
    if rnd.random() < 0.1:
        parts.append(f"<topology sockets='{rnd.choice([0, 1, 1, 2]) if spoilt else 2}' cores='4' threads='2'/>")
    names = [name for name in shared if rnd.random() < 0.8] + rnd.sample(cpu_map.features, rnd.randint(0, 12))
    names = _with_strangers(rnd, list(dict.fromkeys(names)), spoilt=spoilt)
    parts += [f"<feature name='{name}'{_ignored_policy(rnd)}/>" for name in names]
    attribute = rnd.choices(["", " match='exact'", " mode='custom'"], [97, 2, spoilt])[0]
    return f"<cpu{attribute}>{''.join(parts)}</cpu>"


def guest_cpu(rnd: Random, cpu_map: CpuMap, *, vendor: str | None = None) -> str:
    """XML of a guest CPU with features of every policy, seldom with a fault."""
    spoilt = rnd.random() < 0.25
    model = _model(rnd, cpu_map, vendor, spoilt=spoilt)
    names = rnd.sample(cpu_map.features, rnd.randint(0, 12))
    if model and model in cpu_map.models:
        implied = cpu_map.names(cpu_map.models[model].data)
        names += rnd.sample(implied, min(len(implied), rnd.randint(0, 6)))
    names = _with_strangers(rnd, list(dict.fromkeys(names)), spoilt=spoilt)
    policies = rnd.choice([POLICIES, ("require", "disable")])
    named = "" if model is None else f"<model fallback='{rnd.choice(['allow', 'forbid'])}'>{model}</model>"
    parts = [named, _vendor(rnd, cpu_map, model, spoilt=spoilt) if named else ""]
    return _guest(rnd, parts, [(name, rnd.choice(policies)) for name in names])


def guest_cpu_near(rnd: Random, cpu_map: CpuMap, *, offered: int) -> str:
    """XML of a guest CPU that a host with these features can run, or that one feature keeps from it."""
    model = rnd.choice(list(cpu_map.models.values()))
    extra, missing = cpu_map.names(offered & ~model.data), cpu_map.names(model.data & ~offered)
    if rnd.random() < 0.5:
        extra = rnd.sample(extra, rnd.randint(0, len(extra)))
    policies = {name: rnd.choice(["require", "optional", "disable", "force"]) for name in extra}
    policies |= {name: rnd.choice(["optional", "disable", "force"]) for name in missing}
    if rnd.random() < 0.4:
        policies[rnd.choice(cpu_map.features)] = rnd.choice(POLICIES)
    listed = list(policies.items())
    rnd.shuffle(listed)
    return _guest(rnd, [f"<model>{model.name}</model>"], listed)


def _guest(rnd: Random, parts: list[str], features: list[tuple[str, str]]) -> str:
    match = rnd.choice(["", " match='exact'", " match='minimum'", " match='strict'"])
    listed = [f"<feature policy='{policy}' name='{name}'/>" for name, policy in features]
    return f"<cpu{match}>{''.join([*parts, *listed])}</cpu>"


def _model(rnd: Random, cpu_map: CpuMap, vendor: str | None, *, spoilt: bool) -> str | None:
    if spoilt and rnd.random() < 0.08:
        return rnd.choice(["NoSuchModel", " Haswell ", "haswell", "", None])
    fitting = [m.name for m in cpu_map.models.values() if vendor is None or m.vendor in (None, vendor)]
    return rnd.choice(fitting)


def _vendor(rnd: Random, cpu_map: CpuMap, model: str | None, *, spoilt: bool) -> str:
    known = cpu_map.models.get(model) if model else None
    own = known.vendor if known else None
    vendor = rnd.choices([own, None, rnd.choice(cpu_map.vendors), "NoSuchVendor"], [75, 15, 8 * spoilt, 2 * spoilt])[0]
    return f"<vendor>{vendor}</vendor>" if vendor else ""


def _ignored_policy(rnd: Random) -> str:
    return f" policy='{rnd.choice([*POLICIES, 'whatever'])}'" if rnd.random() < 0.05 else ""


def _with_strangers(rnd: Random, names: list[str], *, spoilt: bool) -> list[str]:
    """Now and then a name that no map has, the same one twice, or an alias."""
    if spoilt and rnd.random() < 0.1:
        return [*names, rnd.choice(["no-such-feature", "sse4_1", "kvm_pv_eoi", *names[:1]])]
    return names
