"""What is no rate: a thousand recipients, big mails beside small ones, memory, cores."""
import json
import os
import re
import smtplib
import statistics
import subprocess
import sys
import time

from .machine import WAXWING, Sink, cpu, peak, run, source
from .people import THEIRS
from .runs import Field, once
from .servers import Waxwing

RECIPIENTS = 1_000
SEVERAL = 5
ROOMY = '[limits]\nmessage_size = "80 MiB"\nbytes_in_flight = "6 GiB"\nrecipients = 1000\n'
BIG, BIGS = 50 << 20, "big.example"


def primary(folder, name, people, sink, more="", **how):
    return Waxwing(folder, name, people, sink.port, config=ROOMY + more, **how)


def certificates(folder, name, count, domain=THEIRS):
    """Files: a CA, and certificates of so many recipients, all of one key: what is encrypted to each is another RSA operation all the same."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    import datetime

    key, now = rsa.generate_private_key(65537, 2048), datetime.datetime.utcnow()
    files = [os.path.join(folder, f"{name}{part}.pem") for part in ("-ca", "")]
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Bench CA")])
    usage = lambda sign, encipher, ca: x509.KeyUsage(sign, False, encipher, False, False, ca, ca, False, False)
    day = datetime.timedelta(days=1)
    ca = (x509.CertificateBuilder().subject_name(issuer).issuer_name(issuer).public_key(key.public_key()).serial_number(1).not_valid_before(now - day)
          .not_valid_after(now + 30 * day).add_extension(x509.BasicConstraints(True, None), True).add_extension(usage(False, False, True), True)
          .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False).sign(key, hashes.SHA256()))
    pem = lambda one: one.public_bytes(serialization.Encoding.PEM)
    with open(files[0], "wb") as out:
        out.write(pem(ca))
    theirs = rsa.generate_private_key(65537, 2048)
    mailboxes = [f"r{number}@{domain}" for number in range(count)]
    with open(files[1], "wb") as out:
        for number, mailbox in enumerate(mailboxes):
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, mailbox)])
            out.write(pem(
                x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(theirs.public_key()).serial_number(number + 2)
                .not_valid_before(now - day).not_valid_after(now + 30 * day).add_extension(x509.BasicConstraints(False, None), True)
                .add_extension(usage(True, True, False), True)
                .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
                .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(mailbox)]), False)
                .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), False).sign(key, hashes.SHA256())))
    return mailboxes, files


def add(gateway, ca, certificates):
    """Other recipients of a gateway that serves: known from its next start."""
    run(*gateway.base, "trust", "add", ca)
    run(*gateway.base, "cert", "import", certificates)
    gateway.stop()
    gateway.start()


def envelope_at_once(client, sender, mailboxes, mail):
    """As mail servers send: the whole envelope in one go (RFC 2920), then its replies."""
    client.send("".join([f"MAIL FROM:<{sender}>\r\n", *(f"RCPT TO:<{mailbox}>\r\n" for mailbox in mailboxes), "DATA\r\n"]))
    codes = [client.getreply()[0] for _ in range(len(mailboxes) + 2)]
    client.send(mail + ".\r\n")
    codes.append(client.getreply()[0])
    if codes != [250] * (len(mailboxes) + 1) + [354, 250]:
        sys.exit(f"one mail to {len(mailboxes)} recipients was answered with {sorted(set(codes))}")


def thousand(folder, people, sink, P, rounds):
    """CPU of the gateway for one mail to a thousand recipients who all stand in To, beside one signature and a thousand key transports. From a
    client that pipelines; and from one that waits for the answer to each RCPT, whose thousand round trips on either side count as ours."""
    mailboxes, files = certificates(folder, "thousand", RECIPIENTS)
    gateway = primary(folder, "thousand", people, sink)
    try:
        add(gateway, *files)
        mail = f"From: {people.ours}\r\nTo: " + ",\r\n ".join(mailboxes) + "\r\nSubject: bench\r\n\r\n" + ("X" * 78 + "\r\n") * 51
        used = {envelope_at_once: [], smtplib.SMTP.sendmail: []}
        with smtplib.SMTP("127.0.0.1", gateway.ports["seal"], timeout=60) as client:
            client.ehlo()
            for number in range(rounds + 1):
                for send, seconds in used.items():
                    # Processor time is told in hundredths of a second: several mails between two looks at it.
                    mails = SEVERAL if number else 1
                    before, taken = cpu(gateway.pid), sink.taken()
                    for _ in range(mails):
                        send(client, people.ours, mailboxes, mail)
                    if sink.taken() != taken + mails:
                        sys.exit(f"{mails} mails to {RECIPIENTS} recipients came as {sink.taken() - taken}")
                    seconds.append((cpu(gateway.pid) - before) / mails)
    finally:
        gateway.stop()
    bare = P["rsa-sign"] + RECIPIENTS * P["rsa-encrypt"]
    # The first finds a thousand paths.
    first = used[envelope_at_once].pop(0)
    middle, one_by_one = (statistics.median(seconds) for seconds in used.values())
    return {"recipients": RECIPIENTS, "seconds": middle, "one_by_one": one_by_one, "first": first, "bare": bare, "ratio": middle / bare, "goal": 1.3}


def p99(gateway, people, rate, seconds):
    done = subprocess.run([WAXWING, "load", "--target", f"127.0.0.1:{gateway.ports['seal']}", "--scenario", "quick", "--people", people.folder, "--mix", "to-seal",
                           "--rate", f"{rate:.0f}", "--time", f"{seconds} s", "--size", "4096", "--connections", "50", "--json"], capture_output=True, text=True)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        sys.exit(f"the lab ended with status {done.returncode}: {done.stderr[-500:]}")
    return report["latency"]["answer"]["p99_us"] / 1000


def polled(log, began):
    """Polls that took over 2 ms, told from there on: us of the thread's, and the line."""
    with open(log, errors="replace") as lines:
        lines.seek(began)
        told = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in lines if "polled for long" in line]
    return [(int(re.search(r"cpu_us=(\d+)", line)[1]), line) for line in told]


def beside(folder, people, sink, rate, rounds, seconds):
    """Small mail's p99 at a fixed rate without and with 50 MB mails sealed all the time, two at once; and the polls over 2 ms meanwhile. The
    big ones have a next hop of their own: one smtp-sink, which does one thing at a time, would keep the small ones waiting by itself."""
    mailboxes, files = certificates(folder, "beside", 1, BIGS)
    os.makedirs(os.path.join(folder, "beside-sink"))
    big_sink = Sink(os.path.join(folder, "beside-sink"))
    route = f'[[route]]\ndomain = "{BIGS}"\ndirection = "outbound"\nhost = "127.0.0.1"\nport = {big_sink.port}\ntls = "off"\n'
    os.environ["RUST_LOG"] = "warn,waxwing::polls=debug"
    try:
        gateway = primary(folder, "beside", people, sink, more=route)
        add(gateway, *files)
    finally:
        del os.environ["RUST_LOG"]
    ratios, pairs, polls, log = [], [], {"without": [], "within": []}, os.path.join(gateway.folder, "log")
    try:
        # The first mails find their paths.
        p99(gateway, people, rate, 2)
        arguments = ["-l", str(BIG), "-f", people.ours, "-t", mailboxes[0]]
        for _ in range(rounds):
            began = os.path.getsize(log)
            without = p99(gateway, people, rate, seconds)
            polls["without"] += polled(log, began)
            began = os.path.getsize(log)
            big = source(gateway.ports["seal"], 100_000, 2, arguments)
            time.sleep(1)
            within = p99(gateway, people, rate, seconds)
            big.terminate()
            big.wait()
            time.sleep(2)
            polls["within"] += polled(log, began)
            pairs.append((without, within))
            ratios.append(within / without)
        if not big_sink.taken():
            sys.exit("beside: no big mail came")
    finally:
        gateway.stop()
        big_sink.stop()
    # Of the time that passes in a poll the machine takes some for other processes: what the thread used counts.
    long = {when: sorted((one for one in told if one[0] > 2_000), reverse=True) for when, told in polls.items()}
    return {"rate": rate, "pairs_ms": pairs, "ratio": statistics.median(ratios), "goal": 3.0, "long_polls": len(long["within"]), "longest": long["within"][:5],
            "long_polls_without": len(long["without"]), "interrupted": len(polls["within"]) - len(long["within"])}


def memory(folder, people, sink):
    """Peak of resident memory: 100 sessions with 4 KB; 32 with 25 MB, beside what is in flight."""
    found = {}
    for name, sessions, octets, mails in (("small", 100, 4096, 5_000), ("large", 32, 25 << 20, 64)):
        gateway = primary(folder, f"memory-{name}", people, sink)
        try:
            # smtp-source writes one big mail after the other, whatever its sessions: one for each session.
            many = (1, sessions) if name == "small" else (sessions, 1)
            arguments = ["-l", str(octets), "-f", people.ours, "-t", people.theirs]
            generators = [source(gateway.ports["seal"], mails // many[0], many[1], arguments) for _ in range(many[0])]
            if any([generator.wait() for generator in generators]):
                sys.exit(f"memory, {name}: a smtp-source did not get its mails through")
            found[name] = {"peak": peak(gateway.pid), "in_flight": sessions * octets}
        finally:
            gateway.stop()
    small, large = found["small"], found["large"]
    small |= {"goal": 64 << 20}
    large |= {"ratio": large["peak"] / large["in_flight"], "goal": 2.5}
    return found


def bare_rsa(cores):
    """RSA signatures a second by so many processes on so many cores (openssl speed)."""
    each = [subprocess.Popen(["taskset", "-c", str(core), "openssl", "speed", "-seconds", "2", "-mr", "rsa2048"], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, text=True) for core in range(cores)]
    total = 0.0
    for process in each:
        line = next(line for line in process.communicate()[0].splitlines() if line.startswith("+F2:"))
        total += float(line.split(":")[3])
    return total


def cores(folder, rounds, mails):
    """sign + encrypt pinned to one core and to two, everything on them; beside RSA alone."""
    if (os.cpu_count() or 1) < 2 or not {0, 1} <= os.sched_getaffinity(0):
        return None
    rates, bare, before = {1: [], 2: []}, {1: [], 2: []}, os.sched_getaffinity(0)
    try:
        for number in range(rounds):
            for count in (1, 2):
                bare[count].append(bare_rsa(count))
                os.sched_setaffinity(0, set(range(count)))
                part = os.path.join(folder, f"cores-{count}-{number}")
                os.mkdir(part)
                field = Field(part, ["seal"])
                try:
                    once(field, "seal", max(mails // 10, 10))
                    rates[count].append(once(field, "seal", mails)["rate"])
                finally:
                    field.stop()
                    os.sched_setaffinity(0, before)
    finally:
        os.sched_setaffinity(0, before)
    median = {count: statistics.median(rates[count]) for count in rates}
    alone = {count: statistics.median(bare[count]) for count in bare}
    scale, rsa = median[2] / median[1], alone[2] / alone[1]
    return {"rates": rates, "bare": bare, "scale": scale, "rsa": rsa, "ratio": scale / rsa, "goal": 0.95}
