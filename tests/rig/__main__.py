"""Start the rig by hand: ``python -m tests.rig [HOST=CPU ...]``, as root, until interrupted."""

import signal
import sys

from tests.rig import Rig, RigError

_DEFAULT = ("h1=SandyBridge", "h2=Westmere")


def main(arguments: list[str]) -> None:
    """Start the hosts, print how to reach them and wait."""
    cpus = {}
    for argument in arguments or _DEFAULT:
        host, equals, cpu = argument.partition("=")
        if not equals:
            raise SystemExit(f"usage: python -m tests.rig [HOST=CPU ...]   (by default {' '.join(_DEFAULT)})")
        cpus[host] = cpu
    try:
        with Rig(cpus) as rig:
            for host, cpu in cpus.items():
                print(f"{host}  {cpu}  {rig.address(host)}")
                print(f"  client:       {rig.uri(host)}")
                print(f"  client, ssh:  {rig.ssh_uri(host)}")
                print(f"  other hosts:  {rig.peer_uri(host)}  {rig.migrate_uri(host)}")
            print("a guest's XML: python -c 'from tests.rig import Rig; print(Rig.domain_xml(\"g1\"))'")
            print(f"consoles: {rig.shared_dir}\nCtrl-C removes everything.", flush=True)
            signal.pause()
    except RigError as e:
        raise SystemExit(f"rig: {e}") from None
    except KeyboardInterrupt:
        print("removed")


if __name__ == "__main__":
    main(sys.argv[1:])
