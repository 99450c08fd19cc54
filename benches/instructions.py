"""Instructions of our own functions for one mail of 4 KB, beside the figures that were kept last (benches/instructions.json).

scripts/bench instructions [--keep]

Runs benches/instructions.rs under callgrind. Counted is what runs between entry and return of four functions, less what the C code of the
primitives takes; answers of private keys are given. The figures hold for one toolchain, which is kept with them. --keep writes them down.
Exit status 2 when something is missing. Debian: valgrind.
"""
import argparse
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
KEPT = os.path.join(ROOT, "benches", "instructions.json")
TIMES = 100
FUNCTIONS = {"seal_prepare": "seal", "seal_finish": "seal", "open_prepare": "open", "open_finish": "open"}


def executable():
    out = subprocess.run(["cargo", "bench", "--bench", "instructions", "--no-run", "--message-format=json"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    built = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return next(one["executable"] for one in built if one.get("target", {}).get("name") == "instructions" and one.get("executable"))


def ours(path, program):
    """Instructions in callgrind's file that are not the primitives': C functions within our program."""
    names, objects, total = {}, {}, 0
    counts, skip = False, False

    def name(of, text):
        # "(7) name" the first time, "(7)" from then on.
        number, _, rest = text.partition(" ")
        return of.setdefault(number, rest)

    here, function = "", ""
    with open(path) as lines:
        for line in lines:
            line = line.rstrip("\n")
            if line.startswith("ob="):
                here = name(objects, line[3:])
            elif line.startswith("fn="):
                function = name(names, line[3:])
                counts = here != program or "::" in function or "<" in function
            elif line.startswith("cob="):
                name(objects, line[4:])
            elif line.startswith("cfn="):
                name(names, line[4:])
            elif line.startswith("calls="):
                skip = True
            elif re.match(r"[+\-*\d]", line):
                if not skip and counts:
                    total += int(line.split()[1])
                skip = False
    return total


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--keep", action="store_true", help="write the figures down as those to compare with")
    arguments.add_argument("--json", metavar="FILE")
    arguments = arguments.parse_args()
    if not shutil.which("valgrind"):
        print("missing: valgrind; on Debian: apt-get install valgrind", file=sys.stderr)
        sys.exit(2)
    program, found = executable(), {}
    for function, which in FUNCTIONS.items():
        with tempfile.TemporaryDirectory(prefix="waxwing-bench-") as folder:
            done = subprocess.run(["valgrind", "--tool=callgrind", f"--toggle-collect=*::{function}", f"--callgrind-out-file={folder}/out", program, which],
                                  capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"callgrind: {done.stderr[-800:]}")
            found[function] = sum(ours(path, os.path.realpath(program)) for path in glob.glob(f"{folder}/out*")) / TIMES
            if not found[function]:
                sys.exit(f"callgrind counted nothing in {function}")
    toolchain = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
    kept = {"toolchain": "", "instructions": {}}
    if os.path.exists(KEPT):
        with open(KEPT) as file:
            kept = json.load(file)
    print(f"{toolchain}; kept: {kept['toolchain'] or 'nothing'}")
    for function, count in found.items():
        before = kept["instructions"].get(function)
        print(f"{function:16}{count:12,.0f}{f'{before:12,.0f}{count / before - 1:+9.1%}' if before else ''}")
    new = {"toolchain": toolchain, "instructions": {function: round(count) for function, count in found.items()}}
    for file in filter(None, (KEPT if arguments.keep else None, arguments.json)):
        with open(file, "w") as out:
            json.dump(new, out, indent=1)
            out.write("\n")


if __name__ == "__main__":
    main()
