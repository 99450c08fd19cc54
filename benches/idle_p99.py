"""What idle and slow clients cost others: p99 of good mail beside them and without them, in turn, over loopback only (A20).

scripts/bench idle-p99 [--clients N] [--rounds N]

A gateway that hands on plain mail of 4 KB at a fixed rate; beside it N clients (2,000): a third has not greeted, a third has greeted, a third
dribbles a command, an octet a second. Latency is from due to answered, by the load lab. Goal: a ratio under 2 (median of the rounds).
Exit status 1 where it is missed. Debian: nothing beside Python.
"""
import argparse
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from spool_start import CONFIG, ROOT, WAXWING, free_port, greeted

MORE = """[limits]
connections = 5000
connections_per_client = 5000
"""


def p99(port, sink, rate):
    load = [WAXWING, "load", "--target", f"127.0.0.1:{port}", "--sink", str(sink), "--scenario", "quick", "--rate", str(rate), "--time", "8 s", "--size", "4096", "--json"]
    done = subprocess.run(load, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the lab ended with status {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}")
    report = json.loads(done.stdout)
    return report["latency"]["answer"]["p99_us"] / 1000


class Crowd:
    def __init__(self, port, count):
        self.sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
        self.over = threading.Event()
        for client in self.sockets:
            client.recv(100)
        for client in self.sockets[1::3]:
            client.sendall(b"EHLO idle.example\r\n")
        self.thread = threading.Thread(target=self.dribble, daemon=True)
        self.thread.start()

    def dribble(self):
        while not self.over.wait(1):
            for client in self.sockets[2::3]:
                try:
                    client.sendall(b"X")
                except OSError:
                    pass

    def leave(self):
        self.over.set()
        self.thread.join()
        for client in self.sockets:
            client.close()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--clients", type=int, default=2_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--rate", type=int, default=500)
    arguments = arguments.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(10_000, most), most))
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory(prefix="waxwing-bench-") as folder:
        port, sink, config = free_port(), free_port(), os.path.join(folder, "waxwing.toml")
        with open(config, "w") as out:
            out.write(CONFIG.format(folder=folder, port=port, hop=sink).replace('delivery = "queue"\n', "") + MORE)
        base = [WAXWING, "--config", config]
        subprocess.run([*base, "kek", "init", f"{folder}/kek", "--store", f"{folder}/store"], check=True, capture_output=True)
        with open(f"{folder}/log", "w") as log:
            gateway = subprocess.Popen([*base, "serve"], stderr=log, env=os.environ | {"RUST_LOG": "error"})
        try:
            greeted(port, gateway)
            p99(port, sink, arguments.rate)
            ratios = []
            for number in range(arguments.rounds):
                alone = p99(port, sink, arguments.rate)
                crowd = Crowd(port, arguments.clients)
                beside = p99(port, sink, arguments.rate)
                crowd.leave()
                time.sleep(1)
                ratios.append(beside / alone)
                print(f"round {number + 1}: p99 {alone:.2f} ms without, {beside:.2f} ms beside {arguments.clients:,} clients, {ratios[-1]:.2f} x", flush=True)
        finally:
            gateway.kill()
            gateway.wait()
    ratio = statistics.median(ratios)
    print(f"median {ratio:.2f} x (goal 2)")
    sys.exit(0 if ratio < 2 else 1)


if __name__ == "__main__":
    main()
