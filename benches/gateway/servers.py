"""The gateways that are measured: Waxwing in its ways of working, and others."""
import os
import shutil
import subprocess
import sys
import time

from .machine import ROOT, WAXWING, end, free_port, run, wait_for

HERE = os.path.join(ROOT, "benches")


class Waxwing:
    """A gateway with listeners that seal, hand on and open; `config` is added to what it is told."""

    def __init__(self, folder, name, people, hop, delivery="cut-through", config="", pin=None):
        self.folder = folder = os.path.join(folder, name)
        os.mkdir(folder)
        self.people, self.ports = people, {kind: free_port() for kind in ("seal", "pass", "open")}
        at = lambda file: os.path.join(folder, file)
        listeners = "".join(
            f'[[listener]]\nname = "{kind}"\naddress = "127.0.0.1:{port}"\ndirection = "{"inbound" if kind == "open" else "outbound"}"\n'
            'trusted_networks = ["127.0.0.0/8"]\n' for kind, port in self.ports.items())
        hops = "".join(f'[next_hop.{way}]\nhost = "127.0.0.1"\nport = {hop}\ntls = "off"\n' for way in ("outbound", "inbound"))
        with open(at("waxwing.toml"), "w") as out:
            out.write(f"""hostname = "gw.example.org"
domains = ["example.org"]
store = "{at('store')}"
kek = "{at('kek')}"
spool = "{at('spool')}"
delivery = "{delivery}"
{listeners}{hops}[[rule]]
name = "pass"
match = {{ listener = ["pass"] }}
pass = true
[default]
sign = "require"
encrypt = "require"
profile = "compatible"
{config}""")
        self.base = [WAXWING, "--config", at("waxwing.toml")]
        run(*self.base, "kek", "init", at("kek"), "--store", at("store"))
        run(*self.base, "trust", "add", os.path.join(people.folder, "ca.pem"))
        theirs = os.path.join(people.folder, "theirs")
        pems = [os.path.join(theirs, file) for file in os.listdir(theirs) if file.endswith(".pem")]
        run(*self.base, "cert", "import", "--password", "load", os.path.join(people.folder, "ours"), *pems)
        self.start(pin)

    def start(self, pin=None):
        on = ["taskset", "-c", pin] if pin else []
        with open(os.path.join(self.folder, "log"), "a") as log:
            self.process = subprocess.Popen([*on, *self.base, "serve"], stdout=log, stderr=subprocess.STDOUT)
        self.pid = self.process.pid
        wait_for(self.ports["open"], self.process)

    def stop(self):
        end(self.process)


class Proxy:
    """A small proxy of our own in another language: Python with M2Crypto, Java with Bouncy Castle."""

    def __init__(self, folder, kind, way, people, hop):
        self.port = free_port()
        # The key that is used; the signer's certificate; the recipient's, or the CA that vouches for signers.
        if way == "seal":
            files = [people.key("ours"), people.file("ours", "pem"), people.file("theirs", "pem")]
        else:
            files = [people.key("ours"), people.file("ours", "pem"), os.path.join(people.folder, "ca.pem")]
        if kind == "java":
            jars = ":".join(f"/usr/share/java/{jar}.jar" for jar in ("bcprov", "bcpkix", "bcutil", "bcmail"))
            classes = os.path.join(folder, "java")
            if not os.path.isdir(classes):
                run("javac", "-cp", jars, "-d", classes, os.path.join(HERE, "Proxy.java"))
            command = ["java", "-cp", f"{classes}:{jars}", "Proxy", str(self.port), str(hop), way, *files]
        else:
            command = ["/usr/bin/python3", os.path.join(HERE, "proxy.py"), str(self.port), str(hop), "2", way, *files]
            command += ["aiosmtpd"] if kind == "aiosmtpd" else []
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.pid = self.process.pid
        wait_for(self.port, self.process)

    def stop(self):
        end(self.process)


FILTER = """#!/bin/sh
# One mail on standard input: signed, encrypted, and given to the port that hands it on. FILTER sender recipient
set -e
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
awk 'body {{ print > "inner"; next }} /^$/ {{ print > "inner"; body = 1; next }} /^[^ \\t]/ {{ to = tolower($0) ~ /^(content-|mime-version)/ ? "inner" : "outer" }} {{ print > to }}'
{{ cat outer; openssl cms -sign -in inner -signer {certificate} -inkey {key} -md sha256 | openssl cms -encrypt -aes256 {recipient}; }} >sealed
exec smtp-source -f "$1" -t "$2" -F sealed 127.0.0.1:{port}
"""


class Postfix:
    """A Postfix of our own that relays all mail; Debian's settings but for folders, ports and name service. With `people` each mail goes
    through openssl first (a simple filter of Postfix's FILTER_README, which gives it back by SMTP)."""

    def __init__(self, folder, name, hop, people=None):
        self.folder = folder = os.path.join(folder, name)
        self.port, back = free_port(), free_port()
        for part in ("etc", "queue", "data"):
            os.makedirs(os.path.join(folder, part))
        shutil.chown(os.path.join(folder, "data"), "postfix")
        with open(os.path.join(folder, "etc", "main.cf"), "w") as main:
            main.write(f"""compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = /
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.example.org
mydestination =
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{hop}
smtpd_relay_restrictions = permit_mynetworks, reject
local_recipient_maps =
alias_maps =
alias_database =
smtp_tls_security_level = none
smtpd_tls_security_level = none
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_peername_lookup = no
""")
        private = ["rewrite trivial-rewrite", "bounce bounce", "defer bounce", "trace bounce", "proxymap proxymap", "anvil anvil", "scache scache",
                   "smtp smtp", "error error", "retry error", "discard discard", "tlsmgr tlsmgr"]
        limits = {"anvil": 1, "scache": 1, "tlsmgr": 1, "bounce": 0, "defer": 0, "trace": 0}
        with open(os.path.join(folder, "etc", "master.cf"), "w") as master:
            master.write(f"127.0.0.1:{self.port} inet n - n - - smtpd{' -o content_filter=seal:' if people else ''}\n"
                         "postlog unix-dgram n - n - 1 postlogd\npickup unix n - n 60 1 pickup\n"
                         "cleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n")
            for service, program in map(str.split, private):
                master.write(f"{service} unix - - n - {limits.get(service, '-')} {program}\n")
            if people:
                script = os.path.join(folder, "seal")
                self.filter(script, people, back)
                master.write(f"127.0.0.1:{back} inet n - n - - smtpd\n"
                             f"seal unix - n n - 10 pipe flags=q user=nobody argv={script} ${{sender}} ${{recipient}}\n")
        run("postfix", "-c", os.path.join(folder, "etc"), "start")
        with open(os.path.join(folder, "queue", "pid", "master.pid")) as pid:
            self.pid = int(pid.read())
        wait_for(self.port)

    def filter(self, script, people, back):
        files = {}
        for what, path in (("certificate", people.file("ours", "pem")), ("key", people.key("ours")), ("recipient", people.file("theirs", "pem"))):
            files[what] = os.path.join(self.folder, what)
            shutil.copy(path, files[what])
            os.chmod(files[what], 0o644)
        with open(script, "w") as out:
            out.write(FILTER.format(port=back, **files))
        os.chmod(script, 0o755)

    def stop(self):
        subprocess.run(["postfix", "-c", os.path.join(self.folder, "etc"), "stop"], capture_output=True)
        for _ in range(100):
            if not os.path.exists(f"/proc/{self.pid}"):
                return
            time.sleep(0.1)


class Samotop:
    """A samotop server with samotop-smime, which runs openssl for each mail; a package and lock file of its own."""

    PACKAGE = os.path.join(HERE, "samotop")
    BINARY = os.path.join(PACKAGE, "target", "release", "samotop-bench")

    def __init__(self, folder, people, hop):
        self.port = free_port()
        files = [people.key("ours"), people.file("ours", "pem"), people.file("theirs", "pem")]
        self.process = subprocess.Popen([self.BINARY, str(self.port), str(hop), *files], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.pid = self.process.pid
        wait_for(self.port, self.process)

    @classmethod
    def build(cls):
        """Whether it is there."""
        if not os.path.isdir(cls.PACKAGE):
            return False
        done = subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=cls.PACKAGE, capture_output=True, text=True)
        if done.returncode:
            print(f"samotop is left out, it does not build: {done.stderr[-400:]}", file=sys.stderr)
        return done.returncode == 0

    def stop(self):
        end(self.process)
