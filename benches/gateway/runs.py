"""Repetitions: mails through a gateway, what they cost, and whether each came once."""
import json
import os
import statistics
import subprocess
import sys
import time

from .machine import Sink, WAXWING, busy, cpu, source
from .modes import MODES
from .people import People, primitives
from .servers import Postfix, Proxy, Samotop, Waxwing

SESSIONS = 20
# Above this share of the cores used by others a repetition is done again, so often at most.
FOREIGN, AGAIN = 0.05, 3
LONGEST = 180.0
# Mails of the lab's account after a repetition.
ACCOUNTED = {4096: 200, 1 << 20: 10}


class Field:
    """All that is running: people, sink, gateways."""

    def __init__(self, folder, names, pin=None):
        os.chmod(folder, 0o755)
        # samotop hands on by LMTP alone.
        self.sink, self.lmtp = Sink(folder), None
        self.rsa, self.ec = People(folder, "rsa2048"), None
        self.servers, self.made = {}, {}
        wanted = {name: MODES[name] for name in names}
        for name, mode in wanted.items():
            key = mode.server if mode.server in ("", "waxwing", "waxwing-ec", "queue", "postfix", "filter") else f"{mode.server}-{mode.way}"
            if mode.server and key not in self.servers:
                self.servers[key] = self.started(folder, key, mode)
            self.made[name] = self.servers.get(key)

    def started(self, folder, key, mode):
        hop = self.sink.port
        if mode.server == "waxwing-ec":
            self.ec = self.ec or People(folder, "p256")
            return Waxwing(folder, key, self.ec, hop)
        if mode.server in ("waxwing", "queue"):
            return Waxwing(folder, key, self.rsa, hop, "queue" if key == "queue" else "cut-through")
        if mode.server in ("postfix", "filter"):
            return Postfix(folder, key, hop, self.rsa if mode.server == "filter" else None)
        if mode.server == "samotop":
            self.lmtp = Sink(folder, lmtp=True)
            return Samotop(folder, self.rsa, self.lmtp.port)
        return Proxy(folder, mode.server, mode.way, self.rsa, hop)

    def sink_of(self, name):
        return self.lmtp if MODES[name].server == "samotop" else self.sink

    def people(self, name):
        return self.ec if MODES[name].server == "waxwing-ec" else self.rsa

    def port(self, name):
        server, mode = self.made[name], MODES[name]
        if server is None:
            return self.sink.port
        return server.ports[mode.way] if isinstance(server, Waxwing) else server.port

    def arguments(self, name):
        """What smtp-source is told to send."""
        mode, people = MODES[name], self.people(name)
        if mode.way == "open":
            return ["-F", people.sealed(mode.octets), "-f", people.theirs, "-t", people.ours]
        return ["-l", str(mode.octets), "-f", people.ours, "-t", people.theirs]

    def stop(self):
        for server in self.servers.values():
            server.stop()
        for sink in filter(None, (self.sink, self.lmtp)):
            sink.stop()


class Failed(Exception):
    """A generator did not get its mails through."""


def once(field, name, mails):
    """One run: over with the last delivery. Per mail: seconds, CPU seconds of generator, sink and gateway; others' share of the cores; and
    how many mails did not come, and how many came too often."""
    server, sink = field.made[name], field.sink_of(name)
    pids = [sink.process.pid] + ([server.pid] if server else [])
    before, others, began, goal = [cpu(pid) for pid in pids], busy(), time.monotonic(), sink.taken() + mails
    generator = source(field.port(name), mails, SESSIONS if MODES[name].octets < 1 << 20 else 8, field.arguments(name))
    _, status, used = os.wait4(generator.pid, 0)
    generator.returncode = status
    accepted = time.monotonic()
    if status:
        raise Failed(f"{name}: smtp-source ended with status {status}")
    while sink.taken() < goal and time.monotonic() - began < LONGEST:
        time.sleep(0.002)
    ended = time.monotonic()
    # What is left to be written down belongs to these mails too.
    time.sleep(0.1)
    took = [cpu(pid) - then for pid, then in zip(pids, before)]
    wall, own = time.monotonic() - began, used.ru_utime + used.ru_stime
    foreign = max((busy() - others - own - sum(took)) / (wall * os.cpu_count()), 0.0)
    came = sink.taken() - goal
    return {"rate": mails / (ended - began), "accepted": mails / (accepted - began), "source": own / mails, "sink": took[0] / mails,
            "gateway": took[1] / mails if server else 0.0, "foreign": foreign, "lost": max(-came, 0), "doubled": max(came, 0), "mails": mails}


def measure(field, name, mails):
    """A run, done again while others take too much of the cores; the quietest counts."""
    tries = []
    while len(tries) < AGAIN and (not tries or tries[-1]["foreign"] > FOREIGN):
        tries.append(once(field, name, mails))
    best = min(tries, key=lambda one: one["foreign"])
    return best | {"lost": sum(one["lost"] for one in tries), "doubled": sum(one["doubled"] for one in tries), "tries": len(tries)}


def account(field, names):
    """The lab's account of each of these modes: mails through the same gateways into the lab's sink, which has the other's place."""
    field.sink.stop()
    found = {}
    for name in names:
        mode, mails = MODES[name], ACCOUNTED[MODES[name].octets]
        command = [WAXWING, "load", "--target", f"127.0.0.1:{field.port(name)}", "--sink", str(field.sink.port), "--people", field.people(name).folder,
                   "--mix", mode.kind, "--mails", str(mails), "--size", str(mode.octets), "--connections", "8", "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
        try:
            report = json.loads(done.stdout)
        except ValueError:
            sys.exit(f"{name}: the lab's account: {done.stderr or done.stdout}")
        kinds = report["faults"]["kinds"]
        found[name] = {"mails": mails, "faults": report["faults"]["count"], "lost": kinds.get("lost", 0), "doubled": kinds.get("doubled", 0),
                       "in_clear": kinds.get("in-clear", 0), "listed": report["faults"]["listed"][:3], "good": report["good"]}
    field.sink.start()
    return found


def repetitions(field, names, rounds, share, say):
    """All modes and the bare primitives in turn in each round, and the account of Waxwing's after each."""
    found, accounts, bare = {name: [] for name in names}, {name: [] for name in names}, []
    ours = [name for name in names if MODES[name].kind]
    mails = {name: max(int(MODES[name].mails * share), 10) for name in names}

    def tried(name, work):
        """Where another program does not get mails through, it is left out, and said; ours and no gateway must."""
        try:
            return work()
        except Failed as failure:
            if MODES[name].kind or not MODES[name].server:
                raise
            say(f"left out from here on: {failure}")
            found.pop(name, None)
            return None

    for name in names:
        tried(name, lambda: once(field, name, max(mails[name] // 10, 2)))
    for number in range(rounds):
        bare.append(primitives())
        for name in list(found):
            if one := tried(name, lambda: measure(field, name, mails[name])):
                found[name].append(one)
        for name, one in account(field, ours).items():
            accounts[name].append(one)
        say(f"round {number + 1}: " + ", ".join(f"{name} {runs[-1]['rate']:,.0f}/s" for name, runs in found.items()))
    return found, accounts, {name: statistics.median(one[name] for one in bare) for name in bare[0]}
