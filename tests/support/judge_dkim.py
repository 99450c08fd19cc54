"""Judges DKIM signatures and makes them, with dkimpy, asking one name server alone.

judge_dkim.py verify PORT < mail      prints pass or fail for each signature, from the top
judge_dkim.py sign ALGORITHM CANON SELECTOR DOMAIN KEY < mail     prints the signed mail
"""

import sys

import dkim
import dns.resolver


def text(name, timeout=5):
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], int(sys.argv[2])
    resolver.lifetime = 10
    name = name.decode() if isinstance(name, bytes) else name
    try:
        for answer in resolver.resolve(name, "TXT"):
            return b"".join(answer.strings)
    except dns.exception.DNSException:
        return None


def verified(mail, at):
    try:
        return dkim.DKIM(mail).verify(idx=at, dnsfunc=text)
    except dkim.DKIMException as error:
        print(error, file=sys.stderr)
        return False


def main():
    mail = sys.stdin.buffer.read()
    if sys.argv[1] == "verify":
        names = [name.lower() for name, _ in dkim.DKIM(mail).headers]
        count = names.count(b"dkim-signature")
        print(" ".join("pass" if verified(mail, at) else "fail" for at in range(count)))
        return
    algorithm, canon, selector, domain, key = (argument.encode() for argument in sys.argv[2:7])
    with open(key, "rb") as file:
        secret = file.read()
    canonicalize = tuple(canon.split(b"/"))
    signature = dkim.sign(mail, selector, domain, secret, canonicalize=canonicalize, signature_algorithm=algorithm)
    sys.stdout.buffer.write(signature + mail)


main()
