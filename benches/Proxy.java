import java.io.*;
import java.net.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.security.*;
import java.security.cert.*;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.*;
import java.util.concurrent.*;


import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.jcajce.*;
import org.bouncycastle.cms.*;
import org.bouncycastle.cms.jcajce.*;
import org.bouncycastle.operator.jcajce.*;

/**
 * A small S/MIME proxy to measure against: signs (detached, SHA-256) and encrypts (AES-256-CBC) with Bouncy Castle's CMS over Java's own
 * RSA, or decrypts and verifies; no queue. A thread for each connection, connections to the next hop kept.
 *
 * Proxy LISTEN_PORT NEXT_HOP_PORT seal SIGNER.key SIGNER.pem RECIPIENT.pem
 * Proxy LISTEN_PORT NEXT_HOP_PORT open RECIPIENT.key RECIPIENT.pem CA.pem
 */
public class Proxy {
    static final byte[] EMPTY_LINE = "\r\n\r\n".getBytes();
    static PrivateKey key;
    static X509Certificate certificate, other;
    static boolean seals;
    static int hopPort;
    static final ConcurrentLinkedDeque<Hop> idle = new ConcurrentLinkedDeque<>();

    public static void main(String[] words) throws Exception {
        hopPort = Integer.parseInt(words[1]);
        seals = words[2].equals("seal");
        key = KeyFactory.getInstance("RSA").generatePrivate(new PKCS8EncodedKeySpec(pem(words[3], "PRIVATE KEY")));
        var factory = CertificateFactory.getInstance("X.509");
        certificate = (X509Certificate) factory.generateCertificate(new ByteArrayInputStream(pem(words[4], "CERTIFICATE")));
        other = (X509Certificate) factory.generateCertificate(new ByteArrayInputStream(pem(words[5], "CERTIFICATE")));
        try (var listener = new ServerSocket(Integer.parseInt(words[0]), 500, InetAddress.getLoopbackAddress())) {
            while (true) {
                var client = listener.accept();
                client.setTcpNoDelay(true);
                new Thread(() -> session(client)).start();
            }
        }
    }

    /** The first block of that kind. */
    static byte[] pem(String file, String kind) throws IOException {
        var text = Files.readString(Path.of(file));
        var from = text.indexOf("-----BEGIN " + kind + "-----") + kind.length() + 16;
        return Base64.getMimeDecoder().decode(text.substring(from, text.indexOf("-----END " + kind, from)));
    }

    record Parts(byte[] outer, byte[] inner) {}

    /** Header fields that stay outside, and the entity. */
    static Parts split(byte[] message) {
        int end = find(message, EMPTY_LINE, 0);
        var outer = new ByteArrayOutputStream();
        var inner = new ByteArrayOutputStream();
        var now = outer;
        for (var line : new String(message, 0, end, StandardCharsets.ISO_8859_1).split("\r\n")) {
            if (!line.startsWith(" ") && !line.startsWith("\t")) {
                var low = line.toLowerCase();
                now = low.startsWith("content-") || low.startsWith("mime-version") ? inner : outer;
            }
            now.writeBytes((line + "\r\n").getBytes(StandardCharsets.ISO_8859_1));
        }
        inner.write(message, end + 2, message.length - end - 2);
        return new Parts(outer.toByteArray(), inner.toByteArray());
    }

    static byte[] seal(byte[] message) throws Exception {
        var parts = split(message);
        var signing = new CMSSignedDataGenerator();
        var digests = new JcaDigestCalculatorProviderBuilder().build();
        signing.addSignerInfoGenerator(new JcaSignerInfoGeneratorBuilder(digests).build(new JcaContentSignerBuilder("SHA256withRSA").build(key), certificate));
        signing.addCertificate(new JcaX509CertificateHolder(certificate));
        var signature = signing.generate(new CMSProcessableByteArray(parts.inner), false).getEncoded();
        var boundary = "----" + Long.toHexString(ThreadLocalRandom.current().nextLong());
        var signed = new ByteArrayOutputStream();
        put(signed, "MIME-Version: 1.0\r\nContent-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; micalg=\"sha-256\"; boundary=\"" + boundary
            + "\"\r\n\r\n--" + boundary + "\r\n");
        signed.writeBytes(parts.inner);
        put(signed, "\r\n--" + boundary + "\r\nContent-Type: application/pkcs7-signature; name=\"smime.p7s\"\r\nContent-Transfer-Encoding: base64\r\n\r\n");
        signed.writeBytes(Base64.getMimeEncoder().encode(signature));
        put(signed, "\r\n--" + boundary + "--\r\n");
        var envelope = new CMSEnvelopedDataGenerator();
        envelope.addRecipientInfoGenerator(new JceKeyTransRecipientInfoGenerator(other));
        var sealed = envelope.generate(new CMSProcessableByteArray(signed.toByteArray()), new JceCMSContentEncryptorBuilder(CMSAlgorithm.AES256_CBC).build());
        var out = new ByteArrayOutputStream();
        out.writeBytes(parts.outer);
        put(out, "MIME-Version: 1.0\r\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data; name=\"smime.p7m\"\r\nContent-Transfer-Encoding: base64\r\n\r\n");
        out.writeBytes(Base64.getMimeEncoder().encode(sealed.getEncoded()));
        put(out, "\r\n");
        return out.toByteArray();
    }

    static byte[] open(byte[] message) throws Exception {
        int end = find(message, EMPTY_LINE, 0);
        var envelope = new CMSEnvelopedData(Base64.getMimeDecoder().decode(Arrays.copyOfRange(message, end + 4, message.length)));
        RecipientInformation mine = envelope.getRecipientInfos().getRecipients().iterator().next();
        for (var one : envelope.getRecipientInfos().getRecipients()) {
            if (one.getRID().match(new JcaX509CertificateHolder(certificate))) mine = one;
        }
        var opened = mine.getContent(new JceKeyTransEnvelopedRecipient(key));
        int header = find(opened, EMPTY_LINE, 0);
        var type = new String(opened, 0, header, StandardCharsets.ISO_8859_1);
        int at = type.indexOf("boundary=") + 9;
        var boundary = type.charAt(at) == '"' ? type.substring(at + 1, type.indexOf('"', at + 1)) : type.substring(at).split("[;\\s]")[0];
        var delimiter = ("\r\n--" + boundary).getBytes();
        int first = find(opened, delimiter, header) + delimiter.length + 2;
        int second = find(opened, delimiter, first);
        int blob = find(opened, EMPTY_LINE, second) + 4;
        var signature = Base64.getMimeDecoder().decode(Arrays.copyOfRange(opened, blob, find(opened, delimiter, blob)));
        var signed = new CMSSignedData(new CMSProcessableByteArray(Arrays.copyOfRange(opened, first, second)), signature);
        var good = true;
        for (var one : signed.getSignerInfos()) {
            var holder = (X509CertificateHolder) signed.getCertificates().getMatches(one.getSID()).iterator().next();
            var leaf = new JcaX509CertificateConverter().getCertificate(holder);
            leaf.verify(other.getPublicKey());
            good &= one.verify(new JcaSimpleSignerInfoVerifierBuilder().build(leaf));
        }
        var out = new ByteArrayOutputStream();
        put(out, "Authentication-Results: proxy; smime=" + (good ? "pass" : "fail") + "\r\n");
        for (var line : new String(message, 0, end, StandardCharsets.ISO_8859_1).split("\r\n(?![ \t])")) {
            var low = line.toLowerCase();
            if (!low.startsWith("content-") && !low.startsWith("mime-version")) put(out, line + "\r\n");
        }
        out.writeBytes(opened);
        return out.toByteArray();
    }

    static void put(ByteArrayOutputStream out, String text) {
        out.writeBytes(text.getBytes(StandardCharsets.ISO_8859_1));
    }

    static int find(byte[] in, byte[] what, int from) {
        outer:
        for (int at = from; at <= in.length - what.length; at++) {
            for (int i = 0; i < what.length; i++) {
                if (in[at + i] != what[i]) continue outer;
            }
            return at;
        }
        throw new IllegalArgumentException("not found");
    }

    static class Hop {
        final InputStream in;
        final OutputStream out;

        Hop() throws IOException {
            var socket = new Socket(InetAddress.getLoopbackAddress(), hopPort);
            socket.setTcpNoDelay(true);
            in = new BufferedInputStream(socket.getInputStream());
            out = socket.getOutputStream();
            reply();
            out.write("EHLO proxy\r\n".getBytes());
            reply();
        }

        String reply() throws IOException {
            while (true) {
                var line = line(in);
                if (line == null) throw new IOException("next hop closed");
                if (line.length() < 4 || line.charAt(3) != '-') return line;
            }
        }

        String deliver(String sender, List<String> recipients, byte[] message) throws IOException {
            var commands = new StringBuilder("MAIL FROM:" + sender + "\r\n");
            recipients.forEach(to -> commands.append("RCPT TO:" + to + "\r\n"));
            out.write(commands.append("DATA\r\n").toString().getBytes());
            for (int i = 0; i < recipients.size() + 2; i++) reply();
            var stuffed = new ByteArrayOutputStream(message.length + 64);
            boolean fresh = true;
            for (byte octet : message) {
                if (fresh && octet == '.') stuffed.write('.');
                stuffed.write(octet);
                fresh = octet == '\n';
            }
            put(stuffed, ".\r\n");
            stuffed.writeTo(out);
            return reply();
        }
    }

    static String line(InputStream in) throws IOException {
        var line = new StringBuilder();
        int octet;
        while ((octet = in.read()) >= 0) {
            if (octet == '\n') return line.toString();
            if (octet != '\r') line.append((char) octet);
        }
        return null;
    }

    static byte[] content(InputStream in) throws IOException {
        var content = new ByteArrayOutputStream();
        boolean fresh = true;
        int octet;
        while ((octet = in.read()) >= 0) {
            if (fresh && octet == '.') {
                octet = in.read();
                if (octet == '\r') {
                    in.read();
                    return content.toByteArray();
                }
            }
            content.write(octet);
            fresh = octet == '\n';
        }
        throw new EOFException();
    }

    static void session(Socket client) {
        try (client; var in = new BufferedInputStream(client.getInputStream(), 65536); var out = client.getOutputStream()) {
            out.write("220 proxy ESMTP\r\n".getBytes());
            String line, sender = "";
            var recipients = new ArrayList<String>();
            while ((line = line(in)) != null) {
                var verb = line.substring(0, Math.min(4, line.length())).toUpperCase();
                var answer = "250 ok";
                switch (verb) {
                    case "EHLO", "HELO" -> answer = "250-proxy\r\n250 8BITMIME";
                    case "MAIL" -> {
                        sender = line.substring(line.indexOf(':') + 1).trim().split(" ")[0];
                        recipients.clear();
                    }
                    case "RCPT" -> recipients.add(line.substring(line.indexOf(':') + 1).trim().split(" ")[0]);
                    case "DATA" -> {
                        out.write("354 go\r\n".getBytes());
                        var message = content(in);
                        var made = seals ? seal(message) : open(message);
                        var hop = idle.pollLast();
                        if (hop == null) hop = new Hop();
                        try {
                            answer = hop.deliver(sender, recipients, made);
                        } catch (IOException stale) {
                            // A sink that was started anew left closed ones behind.
                            hop = new Hop();
                            answer = hop.deliver(sender, recipients, made);
                        }
                        idle.addLast(hop);
                    }
                    case "QUIT" -> answer = "221 bye";
                    default -> {}
                }
                out.write((answer + "\r\n").getBytes());
                if (verb.equals("QUIT")) return;
            }
        } catch (Exception error) {
            error.printStackTrace();
        }
    }
}
