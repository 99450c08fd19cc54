"""Tables for people, JSON for programs, `docs/performance.md`."""
import json
import os
import statistics

from . import plot
from .machine import ROOT
from .modes import MODES, loops

DOCUMENT = os.path.join(ROOT, "docs", "performance.md")
BEGIN, END = "<!-- scripts/bench writes from here -->", "<!-- scripts/bench writes to here -->"


def median(values):
    return statistics.median(list(values))


def total(one):
    return one["source"] + one["sink"] + one["gateway"]


def judged(found, accounts, P):
    """For each mode its figures beside the limit and its goals."""
    cores, modes = os.cpu_count(), []
    loop = {name: median(total(one) for one in runs) for name, runs in found.items() if name.startswith("direct")}
    for name, runs in found.items():
        mode, rates = MODES[name], [one["rate"] for one in runs]
        line = {"name": name, "mode": mode.title, "rate": median(rates), "rates": rates, "accepted": median(one["accepted"] for one in runs),
                "cpu_total": median(map(total, runs)), "cpu_gateway": median(one["gateway"] for one in runs), "foreign": median(one["foreign"] for one in runs),
                "limit": None, "ratio": None, "goal": mode.goal, "best_proxy": None, "postfix": None}
        # Of the cores that others left: how much of what that CPU per mail allows was reached.
        line["reached"] = median(one["rate"] * total(one) / (cores * max(1 - one["foreign"], 0.01)) for one in runs)
        came_in, went_out = loops(mode)
        if mode.server and came_in in loop and went_out in loop:
            operations = mode.operations or MODES["seal" if mode.way == "seal" else "open"].operations if mode.way != "pass" else {}
            p = sum(P[operation] * times for operation, times in operations.items())
            bare = loop[came_in] + loop[went_out] + p
            line |= {"loop": loop[came_in] + loop[went_out], "primitives": p, "limit": cores / bare, "ratio": bare / line["cpu_total"],
                     "own": line["cpu_total"] - bare}
            # What the gateway does beside the primitives and its half of the loopback, measured in the gateway alone.
            line["gateway_own"] = line["cpu_gateway"] - p
        rivals = [(rival, median(ours["rate"] / theirs["rate"] for ours, theirs in zip(runs, found[rival]))) for rival in mode.proxies if rival in found]
        if rivals:
            rival, times = min(rivals, key=lambda one: one[1])
            line |= {"best_proxy": median(one["rate"] for one in found[rival]), "best_proxy_name": MODES[rival].title, "ratio_to_proxy": times,
                     "goal_to_proxy": mode.goal_proxy}
        if mode.goal_postfix and "postfix" in found:
            line |= {"postfix": median(one["rate"] for one in found["postfix"]), "goal_to_postfix": mode.goal_postfix,
                     "ratio_to_postfix": median(ours["rate"] / theirs["rate"] for ours, theirs in zip(runs, found["postfix"]))}
        if mode.kind:
            counted = {what: sum(one[what] for one in runs) for what in ("mails", "lost", "doubled")}
            by_lab = {what: sum(one[what] for one in accounts[name]) for what in ("mails", "faults", "lost", "doubled", "in_clear")}
            line |= {"counted": counted, "account": by_lab, "goal_own": mode.goal_own}
        modes.append(line)
    return modes


def mark(good):
    return "" if good else " (missed)"


def table(modes):
    """Markdown."""
    us = lambda seconds: f"{seconds * 1e6:,.0f}"
    out = ["| 4 KB unless said | mails/s | spread | CPU us | gateway | loop | P | own | ratio | limit/s | reached | foreign |", "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"]
    for one in modes:
        has = one["ratio"] is not None
        cells = [us(one["loop"]), us(one["primitives"]), us(one["own"]), f"{one['ratio']:.2f}", f"{one['limit']:,.0f}"] if has else [""] * 5
        name = one["mode"] if not one.get("counted") else f"**{one['mode']}**"
        out.append("| " + " | ".join([name, f"{one['rate']:,.0f}", f"{min(one['rates']):,.0f}-{max(one['rates']):,.0f}", us(one["cpu_total"]),
                                      us(one["cpu_gateway"]) if one["cpu_gateway"] else "", *cells, f"{one['reached']:.2f}", f"{one['foreign']:.0%}"]) + " |")
    return out


def goals(modes, extra):
    """Lines of (what, found, goal, whether it is met)."""
    lines = []
    for one in modes:
        if one["goal"] and one["ratio"] is not None:
            lines.append((f"{one['mode']}: ratio", f"{one['ratio']:.2f}", f">= {one['goal']}", one["ratio"] >= one["goal"]))
        if one.get("ratio_to_proxy"):
            lines.append((f"{one['mode']}: beside {one['best_proxy_name']}", f"{one['ratio_to_proxy']:.2f} x", f">= {one['goal_to_proxy']} x", one["ratio_to_proxy"] >= one["goal_to_proxy"]))
        if one.get("ratio_to_postfix"):
            lines.append((f"{one['mode']}: beside Postfix relaying", f"{one['ratio_to_postfix']:.2f} x", f">= {one['goal_to_postfix']} x", one["ratio_to_postfix"] >= one["goal_to_postfix"]))
        if one.get("goal_own") and one["ratio"] is not None:
            # Pass-through: all that the gateway takes. Others: beside primitives and loopback.
            own = one["gateway_own"] if one["primitives"] == 0 else one["own"]
            lines.append((f"{one['mode']}: gateway's own CPU", f"{own * 1e6:.0f} us", f"<= {one['goal_own']} us", own * 1e6 <= one["goal_own"]))
        if one.get("counted"):
            lines.append((f"{one['mode']}: rate beside what its CPU allows", f"{one['reached']:.2f}", ">= 0.9", one["reached"] >= 0.9))
    if many := extra.get("thousand"):
        lines.append((f"one mail to {many['recipients']:,} recipients in To", f"{many['ratio']:.2f} x {many['bare'] * 1e3:.0f} ms", f"<= {many['goal']} x", many["ratio"] <= many["goal"]))
        lines.append(("the same, each RCPT after the answer to the one before", f"{many['one_by_one'] / many['bare']:.2f} x", "", True))
    if beside := extra.get("beside"):
        lines.append((f"small mail's p99 at {beside['rate']:.0f}/s beside 50 MB mails", f"{beside['ratio']:.2f} x", f"<= {beside['goal']} x", beside["ratio"] <= beside["goal"]))
        lines.append(("polls over 2 ms meanwhile; without big mails", f"{beside['long_polls']}; {beside['long_polls_without']}", "0", beside["long_polls"] == 0))
    if memory := extra.get("memory"):
        small, large = memory["small"], memory["large"]
        lines.append(("memory, 100 sessions with 4 KB", f"{small['peak'] / 2**20:.0f} MiB", "<= 64 MiB", small["peak"] <= small["goal"]))
        lines.append(("memory, 32 sessions with 25 MB", f"{large['ratio']:.2f} x what is in flight", f"<= {large['goal']} x", large["ratio"] <= large["goal"]))
    if cores := extra.get("cores"):
        lines.append(("two cores beside one, as RSA alone scales there", f"{cores['scale']:.2f} / {cores['rsa']:.2f} = {cores['ratio']:.2f}", f">= {cores['goal']}", cores["ratio"] >= cores["goal"]))
    return lines


def accounts(modes):
    ours = [one for one in modes if one.get("counted")]
    add = lambda part, what: sum(one[part][what] for one in ours)
    return (f"Accounts: of {add('counted', 'mails'):,} measured mails {add('counted', 'lost')} did not come and {add('counted', 'doubled')} came too often; "
            f"the lab's own {add('account', 'mails'):,} after each repetition: {add('account', 'lost')} lost, {add('account', 'doubled')} doubled, "
            f"{add('account', 'in_clear')} in clear, {add('account', 'faults')} faults in all.")


def clean(modes):
    """Whether every mail is accounted for."""
    return all(one["counted"]["lost"] + one["counted"]["doubled"] + one["account"]["faults"] == 0 for one in modes if one.get("counted"))


def markdown(modes, extra, setting):
    out = [setting, "", *table(modes), "", accounts(modes), "", "| Goal | found | wanted |", "|---|--:|--:|"]
    out += [f"| {what} | {value}{mark(good)} | {goal} |" for what, value, goal, good in goals(modes, extra)]
    return "\n".join(out) + "\n"


def as_json(modes, extra, P, setting):
    return {"modes": modes, "extra": extra, "primitives": P, "setting": setting, "clean": clean(modes)}


def write(modes, extra, P, setting, file=None, document=False):
    text = markdown(modes, extra, setting)
    print("\n" + text)
    if file:
        with open(file, "w") as out:
            json.dump(as_json(modes, extra, P, setting), out, indent=1)
    if document:
        pictures = plot.draw(modes, os.path.join(ROOT, "docs", "performance"))
        shown = "".join(f"\n![{what}](performance/{name})\n" for name, what in pictures)
        with open(DOCUMENT) as old:
            before, _, rest = old.read().partition(BEGIN)
        _, found, after = rest.partition(END)
        if not found:
            raise SystemExit(f"{DOCUMENT}: the lines {BEGIN} and {END} are not in it")
        with open(DOCUMENT, "w") as out:
            out.write(f"{before}{BEGIN}\n\n{text}{shown}\n{END}{after}")
