"""Processes, ports, processor time: what every measurement stands on."""
import os
import shutil
import socket
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Another build than this tree's, if that is wanted.
BINARY = os.environ.get("WAXWING_BENCH_BINARY")
# What ships.
PROFILE = "dist"
WAXWING = BINARY or os.path.join(ROOT, "target", PROFILE, "waxwing")
os.environ["PATH"] += ":/usr/sbin:/sbin"
TICKS = os.sysconf("SC_CLK_TCK")
# smtp-sink and smtp-source refuse to be root.
USER = ["-u", "nobody"] if os.getuid() == 0 else []


def need(programs, hint):
    missing = [name for name in programs if not shutil.which(name)]
    if missing:
        print(f"missing: {', '.join(missing)}; {hint}", file=sys.stderr)
        sys.exit(2)


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process=None, seconds=20):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process is not None and process.poll() is not None:
            sys.exit(f"{' '.join(map(str, getattr(process, 'args', ['a server'])))} ended with status {process.poll()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


def end(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def cpu(*processes):
    """CPU seconds (user + system) of processes and their children's children so far, those that have ended too."""
    ticks = 0
    for process in processes:
        pids = [process]
        while pids:
            pid = pids.pop()
            try:
                with open(f"/proc/{pid}/stat") as stat:
                    ticks += sum(int(number) for number in stat.read().rpartition(")")[2].split()[11:15])
                with open(f"/proc/{pid}/task/{pid}/children") as children:
                    pids += [int(child) for child in children.read().split()]
            except (FileNotFoundError, ProcessLookupError):
                # A child that ended meanwhile counts with its parent.
                continue
    return ticks / TICKS


def busy():
    """CPU seconds of the whole machine."""
    with open("/proc/stat") as stat:
        user, nice, system, _, _, irq, softirq = (int(number) for number in stat.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS


def peak(process):
    """Octets of the most resident memory a process has had."""
    with open(f"/proc/{process}/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM:")).split()[1]) * 1024


class Sink:
    """smtp-sink, which counts what it takes; the lab's sink may have its port in between."""

    def __init__(self, folder, lmtp=False):
        self.port, self.file = free_port(), os.path.join(folder, "counter-lmtp" if lmtp else "counter")
        self.kind = ["-L"] if lmtp else []
        self.start()

    def start(self):
        with open(self.file, "w") as out:
            self.process = subprocess.Popen(["smtp-sink", "-c", "-t", "3600", *self.kind, *USER, f"127.0.0.1:{self.port}", "500"], stdout=out, stderr=subprocess.DEVNULL)
        wait_for(self.port, self.process)

    def stop(self):
        end(self.process)

    def taken(self):
        with open(self.file, "rb") as numbers:
            numbers.seek(max(numbers.seek(0, os.SEEK_END) - 200, 0))
            last = numbers.read().rpartition(b"mesg=")[2].split()
        return int(last[0]) if last else 0


def source(port, mails, sessions, arguments):
    """smtp-source, started."""
    command = ["smtp-source", "-d", "-s", str(sessions), "-m", str(mails), *arguments, f"127.0.0.1:{port}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)
