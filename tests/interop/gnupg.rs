//! GnuPG's `gpgsm`.

use std::path::Path;

use waxwing::cms::algorithm::Digest;

use crate::case::{Case, Job, Made, Peer, World};
use crate::place::{ALICE, BOB, PASSWORD, Place};

pub struct Gnupg<'w> {
    world: &'w World,
}

/// Its agents end with it.
impl Drop for Gnupg<'_> {
    fn drop(&mut self) {
        for place in self.world.places() {
            let _ = place.run("gpgconf", &["--kill", "all"]);
        }
    }
}

impl<'w> Gnupg<'w> {
    /// A home in each folder; private keys only where they are RSA, for it crashes on importing others (2.2.40).
    pub fn new(world: &'w World) -> Self {
        let peer = Self { world };
        for place in world.places() {
            home(place);
            place.must("gpgsm", &["--import", "root.crt", "middle.crt"]);
        }
        world.rsa.pkcs12();
        for name in ["alice.p12", "bob.p12"] {
            // It fails to read some of those that OpenSSL makes, by the salt that it drew: a few get another one.
            let import = || world.rsa.attempt("gpgsm", &["--passphrase-fd", "0", "--import", name]);
            let imported = (0..4).any(|_| {
                import().is_ok() || {
                    world.rsa.pkcs12();
                    false
                }
            });
            assert!(imported, "{:?}", import());
        }
        peer
    }
}

fn home(place: &Place) {
    let home = place.path("gnupg");
    std::fs::create_dir(&home).unwrap();
    set_private(&home);
    let settings = "disable-crl-checks\ndisable-dirmngr\nbatch\nyes\nno-tty\npinentry-mode loopback\n";
    std::fs::write(home.join("gpgsm.conf"), settings).unwrap();
    let agent = "allow-loopback-pinentry\nallow-preset-passphrase\nmax-cache-ttl 36000\n";
    std::fs::write(home.join("gpg-agent.conf"), agent).unwrap();
    let fingerprint = waxwing::cms::signed::digest(Digest::Sha1, place.pki.root.certificate.der());
    let text: Vec<String> = fingerprint.iter().map(|octet| format!("{octet:02X}")).collect();
    std::fs::write(home.join("trustlist.txt"), format!("{} S relax\n", text.join(":"))).unwrap();
    place.write("password", PASSWORD.as_bytes());
}

fn set_private(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).unwrap();
}

const ASKED: [&str; 2] = ["--passphrase-fd", "0"];

impl Peer for Gnupg<'_> {
    fn letter(&self) -> char {
        'G'
    }

    fn make(&self, world: &World, case: Case) -> Vec<Made> {
        let how: &[&str] = match case {
            Case::DetachedRsa => &["-u", ALICE, "--detach-sign", "content"],
            Case::Opaque => &["-u", ALICE, "--sign", "content"],
            // It always writes BER.
            Case::RsaCbcStreamed => &["-r", BOB, "--encrypt", "content"],
            _ => return Vec::new(),
        };
        vec![Made { how: "", object: world.place(case).must("gpgsm", &[&ASKED[..], how].concat()) }]
    }

    fn read(&self, world: &World, jobs: &[Job]) -> Vec<Result<Vec<u8>, String>> {
        let read = |job: &Job| {
            let place = world.place(job.case);
            place.write("object", &job.object);
            place.write("detached", &job.content);
            match job.case {
                case if case.is_detached() => {
                    place.attempt("gpgsm", &["--verify", "object", "detached"]).map(|_| job.content.clone())
                }
                Case::Opaque => place.attempt_file("gpgsm", &["--output", "out", "--verify", "object"]),
                _ => place.attempt("gpgsm", &[&ASKED[..], &["--decrypt", "object"]].concat()),
            }
        };
        jobs.iter().map(read).collect()
    }
}
