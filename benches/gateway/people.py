"""Who writes to whom, with which keys; mails that are sealed ahead."""
import glob
import os

from .machine import ROOT, WAXWING, run

OURS, THEIRS = "example.org", "partner.example"


class People:
    """A folder of `waxwing load people`: our first one writes to their first one, and gets sealed mail from him."""

    def __init__(self, folder, keys):
        self.folder = os.path.join(folder, f"people-{keys}")
        run(WAXWING, "load", "people", self.folder, "--made", "4", "--keys", keys, "--ours", OURS, "--theirs", THEIRS)
        self.ours, self.theirs = self.first("ours"), self.first("theirs")

    def first(self, side):
        return sorted(os.path.basename(path)[: -len(".p12")] for path in glob.glob(os.path.join(self.folder, side, "*.p12")))[0]

    def file(self, side, ending):
        return os.path.join(self.folder, side, f"{getattr(self, side)}.{ending}")

    def key(self, side):
        """The private key as PEM, for other programs."""
        path = self.file(side, "key")
        if not os.path.exists(path):
            run("openssl", "pkcs12", "-in", self.file(side, "p12"), "-nodes", "-nocerts", "-passin", "pass:load", "-out", path)
        return path

    def sealed(self, octets):
        """A mail of so many octets of text from them to us, signed and encrypted; with the line ends that smtp-source wants."""
        path = os.path.join(self.folder, f"sealed-{octets}")
        if os.path.exists(path):
            return path
        line = "X" * 79 + "\n"
        with open(path + ".plain", "w") as plain:
            plain.write(f"From: {self.theirs}\nTo: {self.ours}\nSubject: bench\nMIME-Version: 1.0\nContent-Type: text/plain\n\n")
            plain.write(line * (octets // len(line)))
        run(WAXWING, "message", "seal", "--sign", "--encrypt", "--key", self.file("theirs", "p12"), "--password", "load",
            "--cert", self.file("ours", "pem"), "--to", self.ours, path + ".plain", "--output", path)
        with open(path, "rb") as sealed:
            content = sealed.read()
        with open(path, "wb") as sealed:
            sealed.write(content.replace(b"\r\n", b"\n"))
        return path


def primitives():
    """Seconds of one operation each, by name (benches/primitives.rs)."""
    out = run("cargo", "bench", "--quiet", "--bench", "primitives", cwd=ROOT)
    return {name: float(seconds) for name, seconds in (line.split() for line in out.splitlines() if line.count(" ") == 1)}
