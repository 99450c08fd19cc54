"""What is measured: each mode's mails, operations and goals."""
from dataclasses import dataclass, field

KB4, MB1 = 4096, 1 << 20

# Operations with keys for each mail, self-check included. Opening verifies the signature and the CA's on the signer's certificate: a path
# that was validated a moment ago is remembered, and counts as what it saves.
SEAL_RSA = {"rsa-sign": 1, "rsa-verify": 1, "rsa-encrypt": 1}
SEAL_EC = {"p256-sign": 1, "p256-verify": 1, "p256-generate": 1, "p256-agree": 1}
OPEN_RSA = {"rsa-decrypt": 1, "rsa-verify": 1}
SMALL_SEAL = {"sha256-4k": 2, "aes256cbc-encrypt-8k": 1, "aes256cbc-decrypt-8k": 1}
SMALL_OPEN = {"sha256-4k": 1, "aes256cbc-decrypt-8k": 1}
LARGE_SEAL = {"sha256-1m": 2, "aes256cbc-encrypt-1m": 1, "aes256cbc-decrypt-1m": 1}
LARGE_OPEN = {"sha256-1m": 1, "aes256cbc-decrypt-1m": 1}


@dataclass
class Mode:
    """One thing that is measured."""
    title: str
    # "waxwing", "queue", "waxwing-ec", "python", "aiosmtpd", "java", "postfix", "filter", "samotop"; "": no gateway.
    server: str
    # "seal", "pass", "open".
    way: str
    octets: int
    # In one repetition; `--quick` sends half.
    mails: int
    operations: dict = field(default_factory=dict)
    # Of the ratio; of the rate beside the best proxy, the same size both ways of working; beside Postfix; gateway's own CPU in us.
    goal: float | None = None
    proxies: tuple = ()
    goal_proxy: float | None = None
    goal_postfix: float | None = None
    goal_own: float | None = None
    quick: bool = True
    # The lab's kind of mail for the account.
    kind: str = ""


SEALERS = ("python", "aiosmtpd", "java", "samotop", "filter")
MODES = {
    "direct": Mode("no gateway, 4 KB", "", "pass", KB4, 12_000),
    "direct-sealed": Mode("no gateway, sealed 4 KB", "", "open", KB4, 8_000),
    "seal": Mode("sign + encrypt, RSA, cut-through", "waxwing", "seal", KB4, 2_000, SEAL_RSA | SMALL_SEAL, 0.85, SEALERS, 2.5, None, 100, True, "to-seal"),
    "python": Mode("Python, sign + encrypt", "python", "seal", KB4, 1_000),
    "open": Mode("decrypt + verify, RSA", "waxwing", "open", KB4, 1_500, OPEN_RSA | SMALL_OPEN, 0.85, ("python-open", "java-open"), 3.0, None, 100, True, "sealed"),
    "python-open": Mode("Python, decrypt + verify", "python", "open", KB4, 800),
    "java": Mode("Java, sign + encrypt", "java", "seal", KB4, 600),
    "java-open": Mode("Java, decrypt + verify", "java", "open", KB4, 600),
    "seal-ec": Mode("sign + encrypt, P-256, ECDH", "waxwing-ec", "seal", KB4, 3_000, SEAL_EC | SMALL_SEAL, 0.78, SEALERS, 3.5, None, 100, True, "to-seal"),
    "pass": Mode("pass-through", "waxwing", "pass", KB4, 6_000, {}, 0.75, (), None, 8.0, 70, True, "plain"),
    "postfix": Mode("Postfix, plain relay", "postfix", "pass", KB4, 1_200),
    "queue": Mode("sign + encrypt, RSA, durable queue", "queue", "seal", KB4, 1_500, SEAL_RSA | SMALL_SEAL, 0.75, (), None, 3.0, None, True, "to-seal"),
    "queue-pass": Mode("pass-through, durable queue", "queue", "pass", KB4, 4_000, {}, None, (), None, 5.0, None, False, "plain"),
    "aiosmtpd": Mode("Python, aiosmtpd, sign + encrypt", "aiosmtpd", "seal", KB4, 800, quick=False),
    "filter": Mode("Postfix + openssl, sign + encrypt", "filter", "seal", KB4, 100),
    "samotop": Mode("samotop, sign + encrypt", "samotop", "seal", KB4, 100, quick=False),
    "direct-1m": Mode("no gateway, 1 MB", "", "pass", MB1, 150),
    "direct-sealed-1m": Mode("no gateway, sealed 1 MB", "", "open", MB1, 100),
    "seal-1m": Mode("1 MB, sign + encrypt", "waxwing", "seal", MB1, 80, SEAL_RSA | LARGE_SEAL, 0.75, ("python-1m", "java-1m"), 1.6, None, None, True, "to-seal"),
    "python-1m": Mode("Python, 1 MB, sign + encrypt", "python", "seal", MB1, 30),
    "java-1m": Mode("Java, 1 MB, sign + encrypt", "java", "seal", MB1, 30, quick=False),
    "open-1m": Mode("1 MB, decrypt + verify", "waxwing", "open", MB1, 80, OPEN_RSA | LARGE_OPEN, 0.75, ("python-open-1m", "java-open-1m"), 1.6, None, None, True, "sealed"),
    "python-open-1m": Mode("Python, 1 MB, decrypt + verify", "python", "open", MB1, 30),
    "java-open-1m": Mode("Java, 1 MB, decrypt + verify", "java", "open", MB1, 30, quick=False),
}


def loops(mode):
    """Which runs without a gateway stand for what comes in and what goes out."""
    plain, sealed = ("direct-1m", "direct-sealed-1m") if mode.octets == MB1 else ("direct", "direct-sealed")
    return (plain, plain) if mode.way == "pass" else (plain, sealed)
