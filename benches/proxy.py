#!/usr/bin/python3
"""A small S/MIME proxy to measure against: signs (detached, SHA-256) and encrypts (AES-256-CBC) with M2Crypto, or decrypts and verifies; no queue.

proxy.py LISTEN_PORT NEXT_HOP_PORT PROCESSES seal SIGNER.key SIGNER.pem RECIPIENT.pem [aiosmtpd]
proxy.py LISTEN_PORT NEXT_HOP_PORT PROCESSES open RECIPIENT.key RECIPIENT.pem CA.pem [aiosmtpd]
Answers the final dot after the next hop did. Without `aiosmtpd` the server is the least that smtp-source can talk to: it checks
nothing. With it, a complete SMTP server on uvloop. Debian: python3-m2crypto; python3-aiosmtpd, python3-uvloop.
"""
import asyncio
import os
import signal
import socket
import sys

from M2Crypto import BIO, SMIME, X509


class Sealer:
    def __init__(self, key, certificate, recipient):
        self.smime = SMIME.SMIME()
        self.smime.load_key(key, certificate)
        stack = X509.X509_Stack()
        stack.push(X509.load_cert(recipient))
        self.smime.set_x509_stack(stack)
        self.smime.set_cipher(SMIME.Cipher("aes_256_cbc"))

    def work(self, message):
        header, _, body = message.partition(b"\r\n\r\n")
        outer, inner, now = [], [], []
        for line in header.split(b"\r\n"):
            if line[:1] not in (b" ", b"\t"):
                now = inner if line.lower().startswith((b"content-", b"mime-version")) else outer
            now.append(line)
        entity = b"\r\n".join(inner) + b"\r\n\r\n" + body
        signature = self.smime.sign(BIO.MemoryBuffer(entity), SMIME.PKCS7_DETACHED, algo="sha256")
        signed = BIO.MemoryBuffer()
        self.smime.write(signed, signature, BIO.MemoryBuffer(entity))
        envelope = self.smime.encrypt(BIO.MemoryBuffer(signed.read()))
        out = BIO.MemoryBuffer()
        self.smime.write(out, envelope)
        sealed = out.read().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        return b"\r\n".join(outer) + b"\r\n" + sealed


class Opener:
    def __init__(self, key, certificate, ca):
        self.decrypting, self.verifying = SMIME.SMIME(), SMIME.SMIME()
        self.decrypting.load_key(key, certificate)
        store = X509.X509_Store()
        store.add_x509(X509.load_cert(ca))
        self.verifying.set_x509_store(store)

    def work(self, message):
        header, _, _ = message.partition(b"\r\n\r\n")
        envelope, _ = SMIME.smime_load_pkcs7_bio(BIO.MemoryBuffer(message))
        signed = self.decrypting.decrypt(envelope)
        signature, content = SMIME.smime_load_pkcs7_bio(BIO.MemoryBuffer(signed))
        self.verifying.set_x509_stack(signature.get0_signers(X509.X509_Stack()))
        try:
            self.verifying.verify(signature, content)
            verdict = b"pass"
        except SMIME.PKCS7_Error:
            verdict = b"fail"
        kept, keep = [b"Authentication-Results: proxy; smime=" + verdict], True
        for line in header.split(b"\r\n"):
            if line[:1] not in (b" ", b"\t"):
                keep = not line.lower().startswith((b"content-", b"mime-version"))
            if keep:
                kept.append(line)
        return b"\r\n".join(kept) + b"\r\n" + signed


class NextHop:
    def __init__(self, port):
        self.port, self.idle = port, []

    async def reply(self, reader):
        while True:
            line = await reader.readline()
            if not line:
                raise ConnectionError("next hop closed")
            if line[3:4] != b"-":
                return line

    async def deliver(self, sender, recipients, message):
        # A sink that was started anew left closed ones behind.
        while self.idle and self.idle[-1][0].at_eof():
            self.idle.pop()[1].close()
        if self.idle:
            reader, writer = self.idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            await self.reply(reader)
            writer.write(b"EHLO proxy\r\n")
            await self.reply(reader)
        writer.write(b"MAIL FROM:" + sender + b"\r\n" + b"".join(b"RCPT TO:" + to + b"\r\n" for to in recipients) + b"DATA\r\n")
        for _ in range(len(recipients) + 2):
            await self.reply(reader)
        writer.write(message.replace(b"\r\n.", b"\r\n..") + b"\r\n.\r\n")
        await writer.drain()
        answer = await self.reply(reader)
        self.idle.append((reader, writer))
        return answer


async def session(reader, writer, worker, hop):
    try:
        writer.write(b"220 proxy ESMTP\r\n")
        sender, recipients = b"", []
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb in (b"EHLO", b"HELO"):
                writer.write(b"250-proxy\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
            elif verb == b"MAIL":
                sender, recipients = line.split(b":", 1)[1].split()[0], []
                writer.write(b"250 ok\r\n")
            elif verb == b"RCPT":
                recipients.append(line.split(b":", 1)[1].split()[0])
                writer.write(b"250 ok\r\n")
            elif verb == b"DATA":
                writer.write(b"354 go\r\n")
                raw = await reader.readuntil(b"\r\n.\r\n")
                writer.write(await hop.deliver(sender, recipients, worker.work(raw[:-3].replace(b"\r\n..", b"\r\n."))))
            elif verb == b"QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(b"250 ok\r\n")
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    writer.close()


class Handler:
    """What aiosmtpd asks at the final dot."""

    def __init__(self, worker, hop):
        self.worker, self.hop = worker, hop

    async def handle_DATA(self, server, session, envelope):
        made = self.worker.work(envelope.original_content)
        path = lambda mailbox: b"<%s>" % mailbox.encode()
        return (await self.hop.deliver(path(envelope.mail_from), [path(to) for to in envelope.rcpt_tos], made)).decode().strip()


async def main(port, hop_port, worker, complete):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    hop = NextHop(hop_port)
    if complete:
        from aiosmtpd.smtp import SMTP

        handler = Handler(worker, hop)
        server = await asyncio.get_running_loop().create_server(lambda: SMTP(handler, hostname="proxy"), sock=listener, backlog=500)
    else:
        server = await asyncio.start_server(lambda r, w: session(r, w, worker, hop), sock=listener, limit=64 << 20, backlog=500)
    await server.serve_forever()


if __name__ == "__main__":
    port, hop_port, processes = (int(argument) for argument in sys.argv[1:4])
    children = []
    for _ in range(processes - 1):
        child = os.fork()
        if child == 0:
            children = []
            break
        children.append(child)
    signal.signal(signal.SIGTERM, lambda *_: ([os.kill(child, 9) for child in children], os._exit(0)))
    complete = sys.argv[8:] == ["aiosmtpd"]
    if complete:
        import uvloop

        uvloop.install()
    kind = {"seal": Sealer, "open": Opener}[sys.argv[4]]
    asyncio.run(main(port, hop_port, kind(*sys.argv[5:8]), complete))
