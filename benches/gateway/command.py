"""The command line."""
import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time

from . import extras, report
from .machine import BINARY, PROFILE, ROOT, need, run
from .modes import MODES, loops
from .runs import Field, repetitions
from .servers import Samotop

EXTRAS = ("thousand", "beside", "memory", "cores")
PACKAGES = "on Debian: apt-get install postfix openssl python3-m2crypto libbcmail-java default-jdk-headless"


def available(modes):
    """Those whose programs are there; says what is left out."""
    imports = lambda names: subprocess.run(["/usr/bin/python3", "-c", f"import {names}"], capture_output=True).returncode == 0
    there = {"python": imports("M2Crypto"), "aiosmtpd": imports("M2Crypto, aiosmtpd, uvloop"), "java": shutil.which("javac") and os.path.exists("/usr/share/java/bcpkix.jar"),
             "postfix": os.getuid() == 0, "filter": os.getuid() == 0, "samotop": "samotop" in modes and Samotop.build()}
    out = [name for name in modes if not there.get(MODES[name].server, True)]
    if out:
        print(f"left out, since what they need is not here: {', '.join(out)}; {PACKAGES}", file=sys.stderr)
    return [name for name in modes if name not in out]


def options(about):
    arguments = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="three rounds of half the mails, some modes left out: under three minutes when built")
    arguments.add_argument("--json", metavar="FILE")
    arguments.add_argument("--document", action="store_true", help="write the tables and plots into docs/performance.md")
    arguments.add_argument("--rounds", type=int)
    arguments.add_argument("--modes", help=f"of {', '.join(MODES)}; those without a gateway come along")
    arguments.add_argument("--extras", help=f"of {', '.join(EXTRAS)}; 'none'")
    arguments.add_argument("--folder", help="where spools and queues lie; the default is the system's folder for temporary files")
    chosen = arguments.parse_args()
    names = chosen.modes.split(",") if chosen.modes else [name for name, mode in MODES.items() if mode.quick or not chosen.quick]
    asked = [] if chosen.extras == "none" else (chosen.extras.split(",") if chosen.extras else [] if chosen.modes else list(EXTRAS))
    wrong = [name for name in names if name not in MODES] + [name for name in asked if name not in EXTRAS]
    if wrong:
        arguments.error(f"unknown: {', '.join(wrong)}")
    chosen.rounds = chosen.rounds or (3 if chosen.quick else 5)
    return chosen, names, asked


def setting(chosen, folder, took):
    with open("/proc/cpuinfo") as info:
        processor = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.machine())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout.strip()
    return (f"{time.strftime('%Y-%m-%d %H:%M')}, commit {commit or 'unknown'}, {os.cpu_count()} cores ({processor}), Linux {platform.release()}, {run('stat', '-f', '-c', '%T', folder).strip()}; "
            f"{'`--quick`, ' if chosen.quick else ''}medians of {chosen.rounds} rounds, {took / 60:.0f} min; load average at the end {os.getloadavg()[0]:.1f}.")


def main(about):
    chosen, names, asked = options(about)
    need(("smtp-source", "smtp-sink", "openssl", "cargo"), PACKAGES)
    if not BINARY:
        print("building", flush=True)
        subprocess.run(["cargo", "build", "--profile", PROFILE, "--bin", "waxwing", "--quiet"], cwd=ROOT, check=True)
    subprocess.run(["cargo", "bench", "--bench", "primitives", "--no-run", "--quiet"], cwd=ROOT, check=True)
    names = available(names)
    wanted = [loop for name in names for loop in loops(MODES[name])] + names
    names = [name for name in MODES if name in wanted]
    say = lambda text: print(text, flush=True)
    began = time.monotonic()
    folder = tempfile.mkdtemp(prefix="waxwing-bench-", dir=chosen.folder)
    extra = {}
    try:
        field = Field(folder, names)
        try:
            found, accounts, P = repetitions(field, names, chosen.rounds, 0.5 if chosen.quick else 1.0, say)
            modes = report.judged(found, accounts, P)
            few = 1 if chosen.quick else 5
            if "thousand" in asked:
                say("one mail to a thousand recipients")
                extra["thousand"] = extras.thousand(folder, field.rsa, field.sink, P, 5)
            if "beside" in asked:
                say("50 MB mails beside small ones")
                rate = 0.3 * next((one["rate"] for one in modes if one["name"] == "seal"), 2_000)
                extra["beside"] = extras.beside(folder, field.rsa, field.sink, rate, few, 4 if chosen.quick else 8)
            if "memory" in asked:
                say("memory")
                extra["memory"] = extras.memory(folder, field.rsa, field.sink)
        finally:
            field.stop()
        if "cores" in asked:
            say("one core, two cores")
            extra["cores"] = extras.cores(folder, few, 1_000 if chosen.quick else 3_000)
        told = setting(chosen, folder, time.monotonic() - began)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.write(modes, extra, P, told, chosen.json, chosen.document)
    sys.exit(0 if report.clean(modes) else 1)
