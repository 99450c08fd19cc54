import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.security.KeyFactory;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.PrivateKey;
import java.security.Security;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.interfaces.ECPublicKey;
import java.security.spec.ECGenParameterSpec;
import java.security.spec.MGF1ParameterSpec;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Collection;
import java.util.List;
import javax.crypto.spec.OAEPParameterSpec;
import javax.crypto.spec.PSource;
import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.asn1.pkcs.PKCSObjectIdentifiers;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.jcajce.JcaCertStore;
import org.bouncycastle.cert.jcajce.JcaX509CertificateConverter;
import org.bouncycastle.cms.*;
import org.bouncycastle.cms.jcajce.*;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.operator.OutputAEADEncryptor;
import org.bouncycastle.operator.OutputEncryptor;
import org.bouncycastle.operator.jcajce.JcaAlgorithmParametersConverter;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;
import org.bouncycastle.operator.jcajce.JcaDigestCalculatorProviderBuilder;

/**
 * Bouncy Castle's side of the interoperability tests. Jobs come from a file, a line each, fields separated by tabs:
 * make CASE FOLDER OUT, or read CASE FOLDER OBJECT CONTENT OUT, where CONTENT is "-" for what is not detached. What comes out is
 * written to OUT; why nothing does to OUT.error.
 */
public final class Peer {
    private static final String BC = "BC";

    public static void main(String[] arguments) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        for (String line : Files.readAllLines(new File(arguments[0]).toPath())) {
            String[] job = line.split("\t");
            String out = job[job.length - 1];
            try {
                Place place = new Place(job[2]);
                byte[] made = job[0].equals("make") ? make(job[1], place) : read(job[1], place, job[3], job[4]);
                Files.write(new File(out).toPath(), made);
            } catch (Exception | LinkageError error) {
                Files.write(new File(out + ".error").toPath(), error.toString().getBytes(StandardCharsets.UTF_8));
            }
        }
    }

    /** Keys, certificates and the content. */
    private static final class Place {
        private final File folder;
        final X509Certificate root, middle, alice, bob;

        Place(String folder) throws Exception {
            this.folder = new File(folder);
            root = certificate("root");
            middle = certificate("middle");
            alice = certificate("alice");
            bob = certificate("bob");
        }

        byte[] octets(String name) throws Exception {
            return Files.readAllBytes(new File(folder, name).toPath());
        }

        private X509Certificate certificate(String name) throws Exception {
            try (java.io.InputStream in = Files.newInputStream(new File(folder, name + ".der").toPath())) {
                return (X509Certificate) CertificateFactory.getInstance("X.509", BC).generateCertificate(in);
            }
        }

        PrivateKey key(String name, X509Certificate certificate) throws Exception {
            String kind = certificate.getPublicKey().getAlgorithm();
            PKCS8EncodedKeySpec spec = new PKCS8EncodedKeySpec(octets(name + ".pkcs8"));
            return KeyFactory.getInstance(kind, BC).generatePrivate(spec);
        }
    }

    private static byte[] make(String name, Place place) throws Exception {
        byte[] content = place.octets("content");
        switch (name) {
            case "detached-rsa": return sign(place, "SHA256withRSA", content, false, false);
            case "detached-pss": return sign(place, "SHA256withRSAandMGF1", content, false, false);
            case "detached-ecdsa": return sign(place, "SHA256withECDSA", content, false, false);
            case "detached-ed25519": return sign(place, "Ed25519", content, false, false);
            case "opaque": return sign(place, "SHA256withRSA", content, true, true);
            case "rsa-cbc": return envelope(new JceKeyTransRecipientInfoGenerator(place.bob), content, false);
            case "rsa-cbc-streamed": return envelope(new JceKeyTransRecipientInfoGenerator(place.bob), content, true);
            case "oaep-cbc": return envelope(oaep(place.bob), content, false);
            case "ecdh-cbc": return envelope(ecdh(place.bob), content, false);
            case "gcm": return gcm(place.bob, content);
            case "compressed":
                return new CMSCompressedDataGenerator()
                    .generate(new CMSProcessableByteArray(content), new org.bouncycastle.cms.jcajce.ZlibCompressor())
                    .getEncoded();
            default: throw new IllegalArgumentException("not made here: " + name);
        }
    }

    private static byte[] sign(Place place, String how, byte[] content, boolean inside, boolean streamed) throws Exception {
        JcaSignerInfoGeneratorBuilder builder =
            new JcaSignerInfoGeneratorBuilder(new JcaDigestCalculatorProviderBuilder().setProvider(BC).build());
        PrivateKey key = place.key("alice", place.alice);
        SignerInfoGenerator signer =
            builder.build(new JcaContentSignerBuilder(how).setProvider(BC).build(key), place.alice);
        JcaCertStore certificates = new JcaCertStore(List.of(place.alice, place.middle));
        if (!streamed) {
            CMSSignedDataGenerator generator = new CMSSignedDataGenerator();
            generator.addSignerInfoGenerator(signer);
            generator.addCertificates(certificates);
            return generator.generate(new CMSProcessableByteArray(content), inside).getEncoded();
        }
        CMSSignedDataStreamGenerator generator = new CMSSignedDataStreamGenerator();
        generator.addSignerInfoGenerator(signer);
        generator.addCertificates(certificates);
        ByteArrayOutputStream made = new ByteArrayOutputStream();
        try (OutputStream out = generator.open(made, inside)) {
            out.write(content);
        }
        return made.toByteArray();
    }

    private static RecipientInfoGenerator oaep(X509Certificate bob) throws Exception {
        OAEPParameterSpec parameters =
            new OAEPParameterSpec("SHA-256", "MGF1", new MGF1ParameterSpec("SHA-256"), PSource.PSpecified.DEFAULT);
        return new JceKeyTransRecipientInfoGenerator(
            bob,
            new JcaAlgorithmParametersConverter().getAlgorithmIdentifier(PKCSObjectIdentifiers.id_RSAES_OAEP, parameters));
    }

    private static RecipientInfoGenerator ecdh(X509Certificate bob) throws Exception {
        KeyPairGenerator generator = KeyPairGenerator.getInstance("EC", BC);
        generator.initialize(new ECGenParameterSpec("secp256r1"));
        KeyPair once = generator.generateKeyPair();
        return new JceKeyAgreeRecipientInfoGenerator(
            CMSAlgorithm.ECDH_SHA256KDF, once.getPrivate(), once.getPublic(), CMSAlgorithm.AES256_WRAP)
            .addRecipient(bob).setProvider(BC);
    }

    private static OutputEncryptor encryptor(ASN1ObjectIdentifier cipher) throws Exception {
        return new JceCMSContentEncryptorBuilder(cipher).setProvider(BC).build();
    }

    private static byte[] envelope(RecipientInfoGenerator recipient, byte[] content, boolean streamed) throws Exception {
        if (!streamed) {
            CMSEnvelopedDataGenerator generator = new CMSEnvelopedDataGenerator();
            generator.addRecipientInfoGenerator(recipient);
            return generator.generate(new CMSProcessableByteArray(content), encryptor(CMSAlgorithm.AES256_CBC)).getEncoded();
        }
        CMSEnvelopedDataStreamGenerator generator = new CMSEnvelopedDataStreamGenerator();
        generator.addRecipientInfoGenerator(recipient);
        ByteArrayOutputStream made = new ByteArrayOutputStream();
        try (OutputStream out = generator.open(made, encryptor(CMSAlgorithm.AES256_CBC))) {
            out.write(content);
        }
        return made.toByteArray();
    }

    private static byte[] gcm(X509Certificate bob, byte[] content) throws Exception {
        CMSAuthEnvelopedDataGenerator generator = new CMSAuthEnvelopedDataGenerator();
        generator.addRecipientInfoGenerator(
            bob.getPublicKey() instanceof ECPublicKey ? ecdh(bob) : new JceKeyTransRecipientInfoGenerator(bob));
        OutputAEADEncryptor encryptor = (OutputAEADEncryptor) encryptor(CMSAlgorithm.AES256_GCM);
        return generator.generate(new CMSProcessableByteArray(content), encryptor).getEncoded();
    }

    private static byte[] read(String name, Place place, String file, String detached) throws Exception {
        byte[] object = Files.readAllBytes(new File(file).toPath());
        PrivateKey key = place.key("bob", place.bob);
        switch (name) {
            case "compressed":
                return new CMSCompressedData(object).getContent(new org.bouncycastle.cms.jcajce.ZlibExpanderProvider());
            case "gcm":
                return new CMSAuthEnvelopedData(object).getRecipientInfos().getRecipients().iterator().next()
                    .getContent(new JceKeyTransAuthEnvelopedRecipient(key).setProvider(BC));
            case "rsa-cbc": case "rsa-cbc-streamed": case "oaep-cbc":
                return recipient(object).getContent(new JceKeyTransEnvelopedRecipient(key).setProvider(BC));
            case "ecdh-cbc":
                return recipient(object).getContent(new JceKeyAgreeEnvelopedRecipient(key).setProvider(BC));
            default:
                return verify(place, object, detached);
        }
    }

    private static RecipientInformation recipient(byte[] object) throws Exception {
        return new CMSEnvelopedData(object).getRecipientInfos().getRecipients().iterator().next();
    }

    private static byte[] verify(Place place, byte[] object, String detached) throws Exception {
        byte[] content = detached.equals("-") ? null : Files.readAllBytes(new File(detached).toPath());
        CMSSignedData data = content == null
            ? new CMSSignedData(object)
            : new CMSSignedData(new CMSProcessableByteArray(content), object);
        Collection<SignerInformation> signers = data.getSignerInfos().getSigners();
        if (signers.isEmpty()) {
            throw new CMSException("no signer");
        }
        for (SignerInformation signer : signers) {
            @SuppressWarnings("unchecked")
            Collection<X509CertificateHolder> found = data.getCertificates().getMatches(signer.getSID());
            X509Certificate certificate =
                new JcaX509CertificateConverter().setProvider(BC).getCertificate(found.iterator().next());
            certificate.verify(place.middle.getPublicKey(), BC);
            place.middle.verify(place.root.getPublicKey(), BC);
            if (!signer.verify(new JcaSimpleSignerInfoVerifierBuilder().setProvider(BC).build(certificate))) {
                throw new CMSException("the signature does not verify");
            }
        }
        return content == null ? (byte[]) data.getSignedContent().getContent() : content;
    }
}
