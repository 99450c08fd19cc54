"""Several runs side by side: each goal, and what each run found."""
import argparse
import json
import re
import sys

from . import report


def table(runs):
    """Markdown; a line for each goal that a run has, in the order of the first run that has it."""
    # Some lines name a rate that is another one in each run.
    alike = lambda what: re.sub(r" at \d+/s", " at a fixed rate", what)
    found = [{alike(what): (value, goal, good) for what, value, goal, good in report.goals(run["modes"], run["extra"])} for run in runs]
    lines = list(dict.fromkeys(what for one in found for what in one))
    out = ["| Goal | " + " | ".join(str(number + 1) for number in range(len(runs))) + " | wanted |", "|---|" + "--:|" * (len(runs) + 1)]
    for what in lines:
        values = [one.get(what) for one in found]
        cells = [f"{value[0]}{report.mark(value[2])}" if value else "" for value in values]
        wanted = next(value[1] for value in values if value)
        out.append(f"| {what} | " + " | ".join(cells) + f" | {wanted} |")
    return "\n".join(out)


def main(words):
    arguments = argparse.ArgumentParser(prog="scripts/bench spread", description=__doc__)
    arguments.add_argument("files", nargs="+", metavar="FILE", help="what --json wrote")
    runs = []
    for file in arguments.parse_args(words).files:
        try:
            with open(file) as text:
                run = json.load(text)
            runs.append((f"{run['setting']}\n   {report.accounts(run['modes'])}", run))
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"{file}: not what `scripts/bench --json {file}` writes: {error!r}", file=sys.stderr)
            sys.exit(2)
    for number, (about, _) in enumerate(runs, 1):
        print(f"{number}: {about}")
    print("\n" + table([run for _, run in runs]))
