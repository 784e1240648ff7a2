"""The main job from end to end, for ``make demo``: read a fleet, find its baselines, and move a guest by one.

Prints what a planner would ask for, runs ``01_fleet.ipynb`` and ``02_baselines.ipynb`` into one HTML file each, and
where this machine can run two libvirt hosts it runs ``04_migrate.ipynb`` on them for real. The audit report comes last.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
from nbclient import NotebookClient
from nbconvert import HTMLExporter

import vmcompat as vc

HERE = Path(__file__).parent
ROOT = HERE.parent
OUTPUT = Path("build/demo")
FLEET = Path("sample_caps/mixed")


def main() -> None:
    """Runs every step; one that this machine cannot do is named, not hidden."""
    started = time.monotonic()
    os.chdir(ROOT)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    fleet = read()
    twins(fleet)
    baselines(fleet)
    cross_check()
    heading("The same as a notebook, with pictures")
    run_notebook("01_fleet", {})
    decide()
    migrate()
    path = audit(fleet)
    print(f"\nDone in {time.monotonic() - started:.0f} s. The audit: {path}")


def heading(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def read() -> vc.Fleet:
    heading(f"Reading {FLEET}")
    fleet = vc.read_fleet(FLEET)
    print(repr(fleet)[1:-1])
    kinds = fleet.hosts.groupby(["rack", "vendor", "model"], dropna=False, sort=False).size().rename("hosts")
    print(kinds.reset_index().fillna("(not known)").to_string(index=False))
    heading("Findings: what could not be used, and what to do")
    for f in fleet.findings.itertuples():
        print(f"{f.severity:8} {f.host}: {f.message}. {f.remedy[0].upper()}{f.remedy[1:]}.")
    return fleet


def twins(fleet: vc.Fleet) -> None:
    heading("Twins that differ: hosts bought together that are no longer identical")
    for sentence in vc.twins(fleet, by=["server", "purchased"]).explain():
        print(f"- {sentence}")


def baselines(fleet: vc.Fleet) -> None:
    heading("One baseline for each rack, and what it costs (features that some hosts have and the rack gives up)")
    print(table(fleet.baselines(by="rack")))
    heading("And the whole fleet in one: a warning, not a plan")
    print(table(fleet.baselines(allow_missing=True).dropna(subset="model")))
    print("A single baseline drags every host down to the oldest one: retire or set apart what costs so much.")


def table(baselines: pd.DataFrame) -> str:
    columns = {
        "n_hosts": "hosts",
        "model": "model",
        "level": "level",
        "n_features": "features",
        "capabilities_lost": "capabilities lost",
        "controls_lost": "controls lost",
        "immunities_lost": "immunities lost",
    }
    answered = baselines[baselines["model"].notna()]
    shown = answered[list(columns)].rename(columns=columns).reset_index().to_string(index=False)
    remarks = baselines[baselines["reason"].notna()]
    refused = [
        f"{'no answer for ' if pd.isna(row['model']) else ''}{' '.join(str(k) for k in key if pd.notna(k))}: "
        f"{row['reason'].partition('. See')[0]}"
        for key, row in remarks.iterrows()
    ]
    return "\n".join([shown, *refused])


def cross_check() -> None:
    heading("The host view against libvirt itself (its embedded test driver)")
    from vmcompat import connect

    try:
        conn = connect.open_host("test:///default")
    except vc.VmcompatError as e:
        print(f"left out: {e}")
        return
    with conn:
        version = connect.describe(conn).libvirt
        try:
            fleet = vc.read_fleet(FLEET, view="host", strict=True, cpu_map="system")
        except vc.VmcompatError as e:
            print(f"left out: {e}")
            return
        results: dict[str, int] = {}
        for rack, names in fleet.hosts[fleet.hosts["cpu_status"] == "ok"].groupby("rack", sort=False).groups.items():
            for row in fleet[names].baselines()["hosts"]:
                base = fleet.baseline(row, driver="test", migratable=False)
                answer = conn.ask("a baseline", base.verify)
                results[answer.result] = results.get(answer.result, 0) + 1
                if answer.result != "identical":
                    print(f"{rack}: {answer.result}: {answer.reason}{answer.diff}")
        print(f"libvirt {version}: " + ", ".join(f"{n} groups {result}" for result, n in results.items()))
        left = fleet.hosts.loc[fleet.unknown, "cpu_status"].value_counts()
        why = ", ".join(f"{n} {status}" for status, n in left.items())
        print(f"not checked: {len(fleet.unknown)} hosts ({why}); models of a newer libvirt are unknown to this one")


def run_notebook(name: str, parameters: dict[str, object]) -> nbformat.NotebookNode:
    """Executes a notebook with other parameters into one HTML file, and says where it is."""
    notebook = nbformat.read(HERE / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source += "".join(f"\n{key} = {value!r}" for key, value in parameters.items())
    quiet = ["--IPKernelApp.log_level=40"]  # it warns of the loopback ports that its client asked for
    NotebookClient(notebook, timeout=300, extra_arguments=quiet, resources={"metadata": {"path": str(HERE)}}).execute()
    # empty URLs: the file must not ask anybody for scripts
    exporter = HTMLExporter(embed_images=True, require_js_url="", mathjax_url="", jquery_url="", mermaid_js_url="")
    body, _ = exporter.from_notebook_node(notebook)
    path = OUTPUT / f"{name}.html"
    path.write_text(body, encoding="utf-8")
    print(path)
    return notebook


def decide() -> None:
    heading("A planning session: what to mend, move, buy and deploy")
    print(run_notebook("02_baselines", {"take_away": f"../{OUTPUT}/plan"}).cells[-1].outputs[0].text.rstrip())


def migrate() -> None:
    heading("A guest that moves, for real: two libvirt hosts in namespaces of this machine, removed at the end")
    sys.path.insert(0, str(ROOT))
    from tests.rig import RigUnavailable
    from tests.rig.supplies import require_machine

    try:
        require_machine()
    except RigUnavailable as e:
        print(f"left out: {e}")
        return
    print(run_notebook("04_migrate", {}).cells[-1].outputs[0].text.rstrip())


def audit(fleet: vc.Fleet) -> Path:
    heading("The audit of the fleet, for somebody who has no Python: one file that opens without a network")
    path = vc.report(
        fleet, OUTPUT / "audit.html", title="Audit of the sample fleet", domains=FLEET / "domains", progress=False
    )
    for row in pd.read_csv(OUTPUT / "audit.tables" / "verdict.csv").itertuples():
        print(f"- {row.told}")
    return path.resolve()


if __name__ == "__main__":
    main()
