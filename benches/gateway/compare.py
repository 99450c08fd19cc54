"""Two builds of the gateway in turn in each round: what a change gained."""
import argparse
import os
import shutil
import statistics
import tempfile

from . import people, servers
from .modes import MODES
from .runs import Field, once


def main(words):
    arguments = argparse.ArgumentParser(prog="scripts/bench compare", description=__doc__)
    arguments.add_argument("before")
    arguments.add_argument("after")
    arguments.add_argument("--modes", default="seal,open,pass,queue", help=f"of {', '.join(name for name, mode in MODES.items() if mode.kind)}")
    arguments.add_argument("--rounds", type=int, default=6)
    chosen = arguments.parse_args(words)
    names, folder = chosen.modes.split(","), tempfile.mkdtemp(prefix="waxwing-bench-")
    fields, found = [], {name: ([], []) for name in names}
    try:
        for number, binary in enumerate((chosen.before, chosen.after)):
            part = os.path.join(folder, str(number))
            os.mkdir(part)
            os.chmod(folder, 0o755)
            servers.WAXWING = people.WAXWING = os.path.abspath(binary)
            fields.append(Field(part, names))
        for field in fields:
            for name in names:
                once(field, name, max(MODES[name].mails // 10, 2))
        for _ in range(chosen.rounds):
            for name in names:
                for runs, field in zip(found[name], fields):
                    runs.append(once(field, name, MODES[name].mails))
    finally:
        for field in fields:
            field.stop()
        shutil.rmtree(folder, ignore_errors=True)
    median = statistics.median
    print(f"{'CPU us a mail':40}{'gateway':>9}{'then':>9}{'all':>9}{'then':>9}{'mails/s':>10}{'then':>9}{'foreign':>9}")
    for name, (before, after) in found.items():
        total = lambda one: one["source"] + one["sink"] + one["gateway"]
        pair = lambda of, scale: "".join(f"{median(map(of, runs)) * scale:9,.0f}" for runs in (before, after))
        print(f"{MODES[name].title:40}{pair(lambda one: one['gateway'], 1e6)}{pair(total, 1e6)} {pair(lambda one: one['rate'], 1)}"
              f"{median([one['foreign'] for one in before + after]):9.0%}")
        lost = sum(one["lost"] + one["doubled"] for one in before + after)
        if lost:
            print(f"{name}: {lost} mails lost or doubled")
