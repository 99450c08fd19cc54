"""Measures `waxwing load` beside smtp-source and smtp-sink of Postfix, in one run on one machine, over loopback only.

scripts/bench load-lab [--rounds N] [--json FILE]

In turn in each round, 20 connections that are kept, mails of 4 KB and of 1 MB:

  source -> sink   smtp-source to smtp-sink
  lab -> sink      the lab's generator to smtp-sink, answers accounted for
  lab -> lab       generator and sink of the lab: every mail told apart, its content compared, accounted for

Rates are mails by wall clock of the whole program, its start and its end included. CPU is user + system of both sides per mail. Medians
of the rounds; ratios to source -> sink within each round. Debian: postfix (smtp-source, smtp-sink).
"""
import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WAXWING = os.path.join(ROOT, "target", "release", "waxwing")
os.environ["PATH"] += ":/usr/sbin:/sbin"
SIZES = {"4 KB": (4096, 40_000), "1 MB": (1 << 20, 1_000)}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


def timed(command, sink=None):
    """Wall seconds and CPU seconds of a command, and of its sink."""
    before = cpu(sink) if sink else 0.0
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = status
    took = time.monotonic() - began
    if status:
        sys.exit(f"{' '.join(command)} ended with status {status}")
    return took, used.ru_utime + used.ru_stime + (cpu(sink) - before if sink else 0.0)


def cpu(process):
    with open(f"/proc/{process.pid}/stat") as stat:
        ticks = sum(int(number) for number in stat.read().rpartition(")")[2].split()[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


def ways(octets, mails, port, own):
    lab = [WAXWING, "load", "--scenario", "quick", "--size", str(octets), "--mails", str(mails), "--connections", "20"]
    source = ["smtp-source", "-d", "-s", "20", "-m", str(mails), "-l", str(octets), "-f", "anna@example.org", "-t", "bert@example.org"]
    return {
        "source -> sink": (source + [f"127.0.0.1:{port}"], True),
        "lab -> sink": (lab + ["--target", f"127.0.0.1:{port}"], True),
        "lab -> lab": (lab + ["--target", f"127.0.0.1:{own}", "--sink", str(own)], False),
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--json", metavar="FILE")
    arguments = arguments.parse_args()
    for program in ("smtp-source", "smtp-sink", "cargo"):
        if not shutil.which(program):
            sys.exit(f"missing: {program}; on Debian: apt-get install postfix")
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
    port, own = free_port(), free_port()
    as_root = ["-u", "nobody"] if os.getuid() == 0 else []
    sink = subprocess.Popen(["smtp-sink", *as_root, f"127.0.0.1:{port}", "1000"])
    table = {}
    try:
        wait_for(port)
        print(f"{'':8}{'':18}{'mails/s':>10}{'min':>9}{'max':>9}{'CPU us':>9}{'ratio':>8}")
        for size, (octets, mails) in SIZES.items():
            found = {}
            for _ in range(arguments.rounds):
                for name, (command, outside) in ways(octets, mails, port, own).items():
                    took, used = timed(command, sink if outside else None)
                    found.setdefault(name, []).append((mails / took, used / mails))
            peer = [rate for rate, _ in found["source -> sink"]]
            for name, runs in found.items():
                rates = [rate for rate, _ in runs]
                ratio = statistics.median(rate / other for rate, other in zip(rates, peer))
                used = statistics.median(used for _, used in runs)
                table[f"{size}, {name}"] = {"rates": rates, "cpu": used, "ratio": ratio}
                print(f"{size:8}{name:18}{statistics.median(rates):10,.0f}{min(rates):9,.0f}{max(rates):9,.0f}{used * 1e6:9,.0f}{ratio:8.2f}", flush=True)
    finally:
        sink.terminate()
        sink.wait(10)
    if arguments.json:
        with open(arguments.json, "w") as out:
            json.dump(table, out, indent=1)


if __name__ == "__main__":
    main()
