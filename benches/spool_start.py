"""How soon a gateway with a long spool takes mail again after kill -9, and what memory that takes; over loopback only.

scripts/bench spool-start [--mails N] [--json FILE] [--folder FOLDER]

N mails of 4 KB (100,000) are taken in while the next hop is away; the gateway is killed; it is started again, to its greeting; then the
next hop comes back, and every mail has to arrive. Memory is the resident set's peak (VmHWM). Goals: 5 s, 200 MB. Exit status 1 where
mail is lost or a goal is missed, 2 when something is missing. Debian: postfix (smtp-source, smtp-sink).
"""
import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WAXWING = os.path.join(ROOT, "target", "release", "waxwing")
os.environ["PATH"] += ":/usr/sbin:/sbin"
SECONDS, OCTETS = 5.0, 200e6

CONFIG = """hostname = "gw.example.org"
domains = ["example.org"]
store = "{folder}/store"
kek = "{folder}/kek"
spool = "{folder}/spool"
delivery = "queue"
[[listener]]
name = "queue"
address = "127.0.0.1:{port}"
direction = "outbound"
trusted_networks = ["127.0.0.0/8"]
[next_hop.outbound]
host = "127.0.0.1"
port = {hop}
tls = "off"
[next_hop.inbound]
host = "127.0.0.1"
port = {hop}
tls = "off"
[retry]
first = "2 s"
longest = "5 s"
[default]
pass = true
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def greeted(port, process):
    """Waits for the greeting."""
    for _ in range(6_000):
        if process.poll() is not None:
            sys.exit(f"a server ended with status {process.returncode}")
        with socket.socket() as client:
            client.settimeout(60)
            if client.connect_ex(("127.0.0.1", port)) == 0 and client.recv(4) == b"220 ":
                return
        time.sleep(0.01)
    sys.exit(f"no greeting on port {port}")


def memory(process, what):
    with open(f"/proc/{process.pid}/status") as status:
        return int(next(line for line in status if line.startswith(what + ":")).split()[1]) * 1024


def counted(counter):
    """Mails that smtp-sink -c has taken."""
    with open(counter, "rb") as numbers:
        numbers.seek(max(numbers.seek(0, os.SEEK_END) - 200, 0))
        last = numbers.read().rpartition(b"mesg=")[2].split()
    return int(last[0]) if last else 0


def measure(folder, mails, running):
    port, hop = free_port(), free_port()
    config = os.path.join(folder, "waxwing.toml")
    with open(config, "w") as out:
        out.write(CONFIG.format(folder=folder, port=port, hop=hop))
    base = [WAXWING, "--config", config]
    subprocess.run([*base, "kek", "init", f"{folder}/kek", "--store", f"{folder}/store"], check=True, capture_output=True)

    def serve():
        with open(f"{folder}/log", "a") as log:
            running.append(subprocess.Popen([*base, "serve"], stderr=log, env=os.environ | {"RUST_LOG": "error"}))
        return running[-1]

    gateway = serve()
    greeted(port, gateway)
    began = time.monotonic()
    subprocess.run(["smtp-source", "-d", "-s", "50", "-m", str(mails), "-l", "4096", "-f", "anna@example.org", "-t", "bert@else.example", f"127.0.0.1:{port}"], check=True)
    found = {"mails": mails, "taken_per_second": mails / (time.monotonic() - began), "memory_taking": memory(gateway, "VmHWM")}
    gateway.kill()
    gateway.wait()
    began = time.monotonic()
    gateway = serve()
    greeted(port, gateway)
    found["start_seconds"] = time.monotonic() - began
    time.sleep(5)
    found["memory_after_start"] = memory(gateway, "VmHWM")
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    with open(f"{folder}/counter", "w") as counter:
        running.append(subprocess.Popen(["smtp-sink", "-c", *user, f"127.0.0.1:{hop}", "500"], stdout=counter))
    began = time.monotonic()
    while counted(f"{folder}/counter") < mails and time.monotonic() - began < 300:
        time.sleep(0.05)
    found |= {"drained_seconds": time.monotonic() - began, "missing": mails - counted(f"{folder}/counter"), "memory_drained": memory(gateway, "VmHWM")}
    return found


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--mails", type=int, default=100_000)
    arguments.add_argument("--json", metavar="FILE")
    arguments.add_argument("--folder", help="where the spool lies; the default is the system's folder for temporary files")
    arguments = arguments.parse_args()
    missing = [program for program in ("smtp-source", "smtp-sink", "cargo") if not shutil.which(program)]
    if missing:
        print(f"missing: {', '.join(missing)}; on Debian: apt-get install postfix", file=sys.stderr)
        sys.exit(2)
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
    folder, running = tempfile.mkdtemp(prefix="waxwing-bench-", dir=arguments.folder), []
    try:
        found = measure(folder, arguments.mails, running)
    finally:
        for process in running:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)
    mb = lambda octets: f"{octets / 1e6:,.0f} MB"
    print(f"{found['mails']:,} mails of 4 KB taken at {found['taken_per_second']:,.0f}/s, {mb(found['memory_taking'])}; killed")
    print(f"started again: greeting after {found['start_seconds']:.2f} s (goal {SECONDS:.0f} s), {mb(found['memory_after_start'])} after 5 s (goal {mb(OCTETS)})")
    print(f"drained in {found['drained_seconds']:.1f} s, {found['missing']:,} missing, {mb(found['memory_drained'])}")
    if arguments.json:
        with open(arguments.json, "w") as out:
            json.dump(found, out, indent=1)
    good = found["missing"] == 0 and found["start_seconds"] < SECONDS and found["memory_after_start"] < OCTETS
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
