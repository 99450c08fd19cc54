//! NSS's `cmsutil`: what Thunderbird has inside.

use crate::case::{Case, Job, Made, Peer, World};
use crate::place::{BOB, PASSWORD};

pub struct Nss;

impl Nss {
    /// A database in each folder.
    pub fn new(world: &World) -> Self {
        for place in world.places() {
            std::fs::create_dir(place.path("nss")).unwrap();
            place.must("certutil", &["-N", "-d", "sql:nss", "--empty-password"]);
            place.must("certutil", &["-A", "-d", "sql:nss", "-n", "root", "-t", "CT,CT,CT", "-i", "root.crt"]);
            place.must("certutil", &["-A", "-d", "sql:nss", "-n", "middle", "-t", ",,", "-i", "middle.crt"]);
        }
        for place in [&world.rsa, &world.p256] {
            place.pkcs12();
            for name in ["alice.p12", "bob.p12"] {
                place.must("pk12util", &["-i", name, "-d", "sql:nss", "-W", PASSWORD]);
            }
        }
        Self
    }
}

impl Peer for Nss {
    fn letter(&self) -> char {
        'N'
    }

    fn make(&self, world: &World, case: Case) -> Vec<Made> {
        let sign = ["-S", "-N", "alice", "-H", "SHA256", "-G"];
        let args = match case {
            Case::DetachedRsa | Case::DetachedEcdsa => [&sign[..], &["-T"]].concat(),
            Case::Opaque => sign.to_vec(),
            // It always writes BER.
            Case::RsaCbcStreamed => vec!["-E", "-r", BOB],
            _ => return Vec::new(),
        };
        let place = world.place(case);
        place.must("cmsutil", &[&args[..1], &["-d", "sql:nss", "-i", "content", "-o", "out"], &args[1..]].concat());
        vec![Made { how: "", object: place.read("out") }]
    }

    fn read(&self, world: &World, jobs: &[Job]) -> Vec<Result<Vec<u8>, String>> {
        let read = |job: &Job| {
            let place = world.place(job.case);
            place.write("object", &job.object);
            place.write("detached", &job.content);
            let args = ["-D", "-d", "sql:nss", "-i", "object", "-o", "out"];
            if job.case.is_detached() {
                let args = [&args[..], &["-c", "detached"]].concat();
                return place.attempt("cmsutil", &args).map(|_| job.content.clone());
            }
            place.attempt_file("cmsutil", &args)
        };
        jobs.iter().map(read).collect()
    }
}
