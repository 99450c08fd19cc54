//! A3: does the time to open a message tell what is under its RSA encryption? Four classes of messages that nobody could open go through
//! the whole of `smime::open` in random order; the mean difference of each class to the first is printed with its confidence bound. The
//! same program measures a key holder with a planted leak, which it has to find.
//!
//! `cargo bench --bench timing -- [--count N] [--leak NANOSECONDS]`, on an idle machine; under `cargo test` each class runs once. Exit
//! status 1: a leak in the true one, or the planted one not found.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use waxwing::cms::algorithm::{ContentEncryption, Digest, KeyDerivation, KeyTransport};
use waxwing::cms::enveloped::RecipientScheme;
use waxwing::keys::{Cek, KeyAnswer, KeyHolder, KeyId, KeyOperation, SoftwareKey, SoftwareKeys, Submission, new_cek};
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::authority::{Issued, NewKey, demo_pki};
use waxwing::pki::path::TrustSet;
use waxwing::smime::open::{OpenContext, Opener, OwnKey, Step};
use waxwing::smime::seal::{Draft, EncryptPlan};

const BOB: &str = "bob@example.net";

/// What is under the encryption, block type 2 of PKCS#1 v1.5 (RFC 8017 section 7.2).
const CLASSES: [&str; 4] = [
    "well padded, a key of the right length",
    "well padded, a key of another length",
    "no separator behind the padding",
    "another first octet",
];

/// Octets that nobody foresees, whatever the class: the same work for each.
fn random(octets: &mut [u8]) {
    for chunk in octets.chunks_mut(32) {
        let drawn = new_cek(ContentEncryption::Aes256Cbc).unwrap();
        chunk.copy_from_slice(&drawn[..chunk.len()]);
    }
}

fn padded(class: usize, length: usize, cek: usize) -> Vec<u8> {
    let mut block = vec![0; length];
    random(&mut block);
    block.iter_mut().for_each(|octet| *octet |= u8::from(*octet == 0));
    block[0] = 0;
    block[1] = if class == 3 { 3 } else { 2 };
    match class {
        1 => block[length - cek / 2 - 1] = 0,
        2 => {}
        _ => block[length - cek - 1] = 0,
    }
    block
}

/// The public operation alone, on numbers as the attacker chooses them (Montgomery's way, on public values only).
struct PublicKey {
    modulus: Vec<u64>,
    inverse: u64,
    square: Vec<u64>,
}

impl PublicKey {
    fn new(modulus: &[u8]) -> Self {
        let modulus = limbs(modulus);
        let inverse = (0..6).fold(1_u64, |x, _| x.wrapping_mul(2_u64.wrapping_sub(modulus[0].wrapping_mul(x))));
        let mut square = vec![0; modulus.len()];
        square[0] = 1;
        for _ in 0..modulus.len() * 128 {
            double(&mut square, &modulus);
        }
        Self { modulus, inverse: inverse.wrapping_neg(), square }
    }
    /// The product, divided by the radix.
    fn product(&self, a: &[u64], b: &[u64]) -> Vec<u64> {
        let n = self.modulus.len();
        let mut t = vec![0_u64; n + 2];
        for &ai in a {
            let mut carry = 0_u128;
            for j in 0..n {
                carry += u128::from(t[j]) + u128::from(ai) * u128::from(b[j]);
                t[j] = carry as u64;
                carry >>= 64;
            }
            carry += u128::from(t[n]);
            t[n] = carry as u64;
            t[n + 1] = (carry >> 64) as u64;
            let m = t[0].wrapping_mul(self.inverse);
            carry = (u128::from(t[0]) + u128::from(m) * u128::from(self.modulus[0])) >> 64;
            for j in 1..n {
                carry += u128::from(t[j]) + u128::from(m) * u128::from(self.modulus[j]);
                t[j - 1] = carry as u64;
                carry >>= 64;
            }
            carry += u128::from(t[n]);
            t[n - 1] = carry as u64;
            t[n] = t[n + 1] + (carry >> 64) as u64;
        }
        if t[n] != 0 || !less(&t[..n], &self.modulus) {
            subtract(&mut t, &self.modulus);
        }
        t.truncate(n);
        t
    }
    /// `block` to the power of 65537.
    fn encrypt(&self, block: &[u8]) -> Vec<u8> {
        let base = self.product(&limbs(block), &self.square);
        let mut power = base.clone();
        for _ in 0..16 {
            power = self.product(&power, &power);
        }
        let mut one = vec![0; power.len()];
        one[0] = 1;
        let result = self.product(&self.product(&power, &base), &one);
        result.iter().rev().flat_map(|limb| limb.to_be_bytes()).collect()
    }
}

fn limbs(octets: &[u8]) -> Vec<u64> {
    octets.rchunks(8).map(|chunk| chunk.iter().fold(0, |sum, octet| sum << 8 | u64::from(*octet))).collect()
}

fn less(a: &[u64], b: &[u64]) -> bool {
    a.iter().rev().lt(b.iter().rev())
}

fn subtract(a: &mut [u64], b: &[u64]) {
    let mut borrow = false;
    for (place, limb) in a.iter_mut().enumerate() {
        let (first, under) = limb.overflowing_sub(b.get(place).copied().unwrap_or(0));
        let (second, again) = first.overflowing_sub(u64::from(borrow));
        (*limb, borrow) = (second, under || again);
    }
}

fn double(a: &mut [u64], modulus: &[u64]) {
    let mut carry = 0;
    for limb in a.iter_mut() {
        let next = *limb >> 63;
        *limb = *limb << 1 | carry;
        carry = next;
    }
    if carry != 0 || !less(a, modulus) {
        subtract(a, modulus);
    }
}

/// Bob's keys, and a mail to him with room for any encrypted key.
struct Target {
    context: OpenContext,
    keys: SoftwareKeys,
    object: Vec<u8>,
    /// Where the encrypted key stands in it.
    place: std::ops::Range<usize>,
    public: PublicKey,
}

impl Target {
    fn new() -> Self {
        let now = Timestamp::now();
        let pki = demo_pki(now, &[BOB], NewKey::Rsa2048);
        let bob: &Issued = pki.leaf(BOB).unwrap();
        let mut keys = SoftwareKeys::default();
        let key: KeyId = keys.insert(SoftwareKey::from_pkcs8(&bob.pkcs8).unwrap());
        let text = "From: a@example.org\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\nAt eight, then.\r\n";
        let message = Entity::parse(text.into(), &MimeLimits::default()).unwrap();
        let scheme = RecipientScheme { rsa: KeyTransport::RsaPkcs1, kdf: KeyDerivation::X963(Digest::Sha256) };
        let plan = EncryptPlan {
            recipients: vec![(bob.certificate.clone(), scheme)],
            content: ContentEncryption::Aes256Cbc,
            derive_cek: false,
        };
        let sealed = Draft::new(&message).unwrap().encrypt(&plan, false).unwrap().rope().to_bytes();
        let object = Entity::parse(sealed, &MimeLimits::default()).unwrap().decoded_body().unwrap().to_vec();
        // OCTET STRING of 256 octets: the encrypted key is the first.
        let place = object.windows(4).position(|one| one == [0x04, 0x82, 0x01, 0x00]).unwrap() + 4;
        let own = OwnKey { certificate: bob.certificate.clone(), key };
        let spki = bob.certificate.public_key().spki();
        // RSAPublicKey: the modulus is an INTEGER of 257 octets, the first of them zero.
        let modulus = spki.windows(5).position(|one| one == [0x02, 0x82, 0x01, 0x01, 0x00]).unwrap() + 5;
        let public = PublicKey::new(&spki[modulus..modulus + 256]);
        let context = OpenContext::new(vec![own], Arc::new(TrustSet::default()), now);
        Self { context, keys, object, place: place..place + 256, public }
    }

    /// A message of this class.
    fn probe(&self, class: usize) -> Entity {
        let mut object = self.object.clone();
        object[self.place.clone()].copy_from_slice(&self.public.encrypt(&padded(class, 256, 32)));
        let mut text =
            b"From: a@example.org\r\nContent-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: binary\r\n\r\n"
                .to_vec();
        text.extend(object);
        Entity::parse(text.into(), &MimeLimits::default()).unwrap()
    }

    /// How long it takes to be told that it cannot be opened; `leak` is spent where the padding and the length were right.
    fn time(&self, probe: Entity, leak: Option<Duration>) -> Duration {
        let context = self.context.clone();
        let began = Instant::now();
        let mut opener = Opener::new(probe, context, || Cek::new(vec![0x5a; 32]));
        let mut answer = None;
        loop {
            match opener.step(answer.take()) {
                Step::Key(operation) => answer = Some(self.perform(operation, leak)),
                Step::Done(opened) => {
                    let took = began.elapsed();
                    assert_eq!(black_box(opened).operations, 1);
                    return took;
                }
            }
        }
    }

    /// Whether a key comes out of a probe's RecipientInfo, or the substitute.
    fn yields_a_key(&self, class: usize) -> bool {
        let mut opener = Opener::new(self.probe(class), self.context.clone(), || Cek::new(vec![0x5a; 32]));
        let Step::Key(operation) = opener.step(None) else { panic!("a private operation is asked for") };
        let Ok(KeyAnswer::Cek(cek)) = self.perform(operation, None) else {
            panic!("a CEK is answered, whatever is wrong")
        };
        cek.iter().any(|octet| *octet != 0x5a)
    }

    fn perform(&self, operation: KeyOperation, leak: Option<Duration>) -> Result<KeyAnswer, waxwing::keys::KeyError> {
        let Submission::Ready(answer) = self.keys.submit(operation) else { panic!("later") };
        if let (Some(leak), Ok(KeyAnswer::Cek(cek))) = (leak, &answer)
            && cek.iter().any(|octet| *octet != 0x5a)
        {
            let began = Instant::now();
            while began.elapsed() < leak {
                std::hint::spin_loop();
            }
        }
        answer
    }
}

/// A fifth of the differences at either end is left out of the mean.
const TRIMMED: usize = 5;

/// Trimmed mean and half the width of its confidence interval (99.9 %, by the winsorized variance: Tukey and McLaughlin), nanoseconds, of
/// one class's difference to the first.
struct Difference {
    mean: f64,
    bound: f64,
}

impl Difference {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let (all, cut) = (values.len() as f64, values.len() / TRIMMED);
        let kept = &values[cut..values.len() - cut];
        let mean = kept.iter().sum::<f64>() / kept.len() as f64;
        let (low, high) = (kept[0], kept[kept.len() - 1]);
        let winsorized: Vec<f64> = values.iter().map(|value| value.clamp(low, high)).collect();
        let centre = winsorized.iter().sum::<f64>() / all;
        let variance = winsorized.iter().map(|value| (value - centre).powi(2)).sum::<f64>() / (all - 1.0).max(1.0);
        let share = kept.len() as f64 / all;
        Self { mean, bound: 3.29 * variance.sqrt() / (share * all.sqrt()) }
    }

    fn is_seen(&self) -> bool {
        self.mean.abs() > self.bound
    }
}

/// Rounds of all classes in an order drawn anew for each; a round that something else disturbed (one of its times half as long again as
/// the fastest twentieth) is left out: on an idle machine hardly any.
fn measure(target: &Target, count: usize, leak: Option<Duration>) -> Vec<Difference> {
    let mut rounds: Vec<[f64; 4]> = Vec::with_capacity(count);
    for _ in 0..count {
        let mut order = [0, 1, 2, 3];
        let mut drawn = [0; 4];
        random(&mut drawn);
        for (place, octet) in drawn.iter().enumerate() {
            order.swap(place, usize::from(*octet) % 4);
        }
        let probes = order.map(|class| (class, target.probe(class)));
        let mut round = [0.0; 4];
        for (class, probe) in probes {
            round[class] = target.time(probe, leak).as_nanos() as f64;
        }
        rounds.push(round);
    }
    let mut all: Vec<f64> = rounds.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let limit = all[all.len() / 20] * 1.5;
    rounds.retain(|round| count == 1 || round.iter().all(|time| *time <= limit));
    println!("  {} of {count} rounds, median {:.1} us", rounds.len(), all[all.len() / 2] / 1000.0);
    let differences = (1..CLASSES.len()).map(|class| {
        let difference = Difference::of(rounds.iter().map(|round| round[class] - round[0]).collect());
        println!("  {:<40} {:>9.0} ns +- {:>6.0} ns", CLASSES[class], difference.mean, difference.bound);
        difference
    });
    differences.collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let measured = arguments.iter().any(|argument| argument == "--bench");
    let number = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        arguments.get(place + 1)?.parse::<u64>().ok()
    };
    let count = number("--count").map_or(if measured { 10_000 } else { 1 }, |count| count as usize);
    let leak = Duration::from_nanos(number("--leak").unwrap_or(2_000));
    let target = Target::new();
    for (class, name) in CLASSES.iter().enumerate() {
        assert_eq!(target.yields_a_key(class), class == 0, "{name}");
        target.time(target.probe(class), None);
    }
    println!("difference to: {}", CLASSES[0]);
    println!("as it is:");
    let honest = measure(&target, count, None);
    println!("with {leak:?} spent where padding and length are right:");
    let planted = measure(&target, count, Some(leak));
    if !measured {
        return;
    }
    let found = planted.iter().all(|difference| difference.is_seen() && difference.mean < 0.0);
    let seen = honest.iter().any(Difference::is_seen);
    println!(
        "planted leak: {}",
        if found { "found by every class" } else { "NOT FOUND: more rounds, or a quieter machine" }
    );
    println!("as it is: {}", if seen { "A DIFFERENCE IS SEEN" } else { "no difference is seen" });
    let widest = honest.iter().map(|one| one.mean.abs() + one.bound).fold(0.0, f64::max);
    println!("any difference is below {widest:.0} ns (99.9 %)");
    std::process::exit(i32::from(seen || !found));
}
