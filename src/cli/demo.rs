//! `waxwing demo`: real mail leaves sealed and arrives opened, in a temporary folder, with nothing else needed.

mod mails;
mod print;
mod sink;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use bytes::Bytes;
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::message::tree;
use super::{CommandResult, Context, Failure, NOT_GOOD};
use crate::address::{Domain, Mailbox, ReversePath};
use crate::config::{Config, HopTls, HopWaits, NextHop, Retry};
use crate::keys::{KeyHolder, Submission};
use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::rope::Rope;
use crate::pki::authority::{NewKey, Recipe, issue};
use crate::pki::path::AnchorScope;
use crate::policy::TrustState;
use crate::relay::gateway::Gateway;
use crate::relay::hop::{Health, Hops, Roots};
use crate::smime::open::{OpenContext, Opened, Opener, OwnKey, Step};
use crate::smtp::command::{Envelope, MailParameters, RcptParameters, Recipient};
use crate::store::embedded::EmbeddedStore;
use crate::store::keyring::Kek;
use crate::store::{CertStore, NewCertificate, Owner, Provenance};
use mails::{ANNA, BERT, CARLA, Sample};
use print::{Passed, Printer};
use sink::Sink;

/// Arguments of `waxwing demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave it running and print lines to play with; Ctrl-C ends it.
    #[arg(long)]
    keep: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command. Exit status: 0 all as it should be, 1 something was not, 2 it could not be started.
pub fn run(args: Args, _context: &Context) -> CommandResult {
    let folder = Folder::new()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("the runtime cannot start: {error}"), ""))?;
    runtime.block_on(demo(&args, folder.path()))
}

/// A folder of our own, removed when done.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Result<Self, Failure> {
        use std::os::unix::fs::DirBuilderExt;
        let mut random = [0; 8];
        rand::fill(&mut random).map_err(|_| Failure::new("no randomness from the operating system", ""))?;
        let path = std::env::temp_dir().join(format!("waxwing-demo-{:016x}", u64::from_le_bytes(random)));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| {
            Failure::new(format!("{} cannot be made: {error}", path.display()), "name another folder with TMPDIR")
        })?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Everything that runs.
struct House {
    store: Arc<EmbeddedStore>,
    gateway: Gateway,
    world: Sink,
    server: Sink,
    hops: Hops,
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::new(error.to_string(), "this should not happen: please report it")
}

async fn demo(args: &Args, folder: &Path) -> CommandResult {
    let began = Instant::now();
    let mut house = build(folder).await?;
    let printer = Printer::new(args.json);
    printer.begin(house.address("submission"), house.address("internet"), began.elapsed());
    let mut results = Vec::new();
    for sample in mails::samples() {
        printer.title(&sample);
        let result = pass(&mut house, &sample).await;
        printer.result(&result);
        results.push(result);
    }
    let good = results.iter().all(Passed::is_good);
    printer.end(&results, began.elapsed());
    if args.keep {
        keep(&mut house, &printer).await;
    }
    house.gateway.shut_down(Duration::from_secs(5)).await;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

impl House {
    fn address(&self, listener: &str) -> SocketAddr {
        self.gateway.address(listener).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}

async fn build(folder: &Path) -> Result<House, Failure> {
    let kek = folder.join("kek");
    Kek::create(&kek)?;
    let store = Arc::new(EmbeddedStore::create(&folder.join("store"), &kek)?);
    fill(&store)?;
    let name = Domain::parse("gateway.example.org").map_err(broken)?;
    let postmaster = Mailbox::parse("postmaster@example.org").map_err(broken)?;
    let world = Sink::start("world", name.clone(), postmaster.clone()).await.map_err(broken)?;
    let server = Sink::start("server", name.clone(), postmaster).await.map_err(broken)?;
    let text = configuration(folder, world.address(), server.address());
    let config = Config::parse(&text, "demo", &|_| Err("no list files here".into()))
        .map_err(|errors| broken(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    let gateway = Gateway::start(config, store.clone(), store.clone(), b"demo").await.map_err(broken)?;
    let hops = Hops::new(name, HopWaits::default(), Health::new(&Retry::default()), Roots::none());
    Ok(House { store, gateway, world, server, hops })
}

/// A test PKI: an authority, two people with RSA keys and one with an elliptic-curve key.
fn fill(store: &EmbeddedStore) -> Result<(), Failure> {
    let now = Timestamp::now();
    let authority = issue(&Recipe::authority("Demo Authority", now, NewKey::P256), None);
    store.add_trust(authority.certificate.clone(), Some(AnchorScope::Global))?;
    for (address, key) in [(ANNA, NewKey::Rsa2048), (BERT, NewKey::Rsa2048), (CARLA, NewKey::P256)] {
        let issued = issue(&Recipe::mailbox(address, now, key), Some(&authority));
        let provenance = Provenance { source: "demo".into(), detail: "test PKI".into(), at: now };
        let new = NewCertificate {
            certificate: issued.certificate,
            provenance,
            trust: TrustState::Trusted,
            key: Some(issued.pkcs8),
        };
        let owner = Owner::Mailbox(Mailbox::parse(address).map_err(broken)?.key());
        store.add_certificates(&owner, vec![new])?;
    }
    Ok(())
}

fn configuration(folder: &Path, world: SocketAddr, server: SocketAddr) -> String {
    // As TOML literal strings: a temporary folder's name has no quote in it, or this says so.
    let folder = folder.display();
    format!(
        "hostname = \"gateway.example.org\"\ndomains = [\"example.org\", \"example.net\"]\n\
         store = '{folder}/store'\nkek = '{folder}/kek'\nspool = '{folder}/spool'\n\
         [[listener]]\nname = \"submission\"\naddress = \"127.0.0.1:0\"\ndirection = \"outbound\"\ntrusted_networks = [\"127.0.0.0/8\"]\n\
         [[listener]]\nname = \"internet\"\naddress = \"127.0.0.1:0\"\ndirection = \"inbound\"\n\
         [next_hop.outbound]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"\n\
         [next_hop.inbound]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"\n\
         [default]\nsign = \"require\"\nencrypt = \"require\"\nprofile = \"modern\"\n",
        world.port(),
        server.port()
    )
}

/// One mail out, looked at, in again, compared.
async fn pass(house: &mut House, sample: &Sample) -> Passed {
    let mut result = Passed::new(sample.title, sample.message.len());
    if let Err(why) = pass_or_say(house, sample, &mut result).await {
        result.problems.push(why);
    }
    result
}

async fn pass_or_say(house: &mut House, sample: &Sample, result: &mut Passed) -> Result<(), String> {
    let out = house.address("submission");
    let began = Instant::now();
    send(&house.hops, out, ANNA, sample.to, &sample.message).await?;
    let sealed = house.world.next().await?;
    result.out = began.elapsed();
    result.sealed = sealed.message.len();
    let reader = sealed.to.first().ok_or("a mail without a recipient arrived")?;
    let opened = open(&house.store, reader, &sealed.message).await?;
    result.tree = tree::of_opened(&opened, &MimeLimits::default()).draw();
    if !opened.verdict.decrypted {
        result.problems.push("it left without encryption".into());
    }
    let inward = house.address("internet");
    let began = Instant::now();
    send(&house.hops, inward, ANNA, sample.to, &sealed.message).await?;
    let mut left = sample.to.len();
    while left > 0 {
        let came = house.server.next().await?;
        result.back = began.elapsed();
        left = left.saturating_sub(came.to.len());
        result.came(&came.message);
        match mails::compare(&sample.message, &came.message) {
            Ok(parts) => result.parts = parts,
            Err(why) => result.problems.push(format!("what came out is not what went in: {why}")),
        }
    }
    Ok(())
}

/// Sends through the gateway, as a mail server would.
async fn send(hops: &Hops, to: SocketAddr, from: &str, recipients: &[&str], message: &Bytes) -> Result<(), String> {
    let mailbox = |text: &str| Mailbox::parse(text).map_err(|error| error.to_string());
    let hop = NextHop { tls: HopTls::Off, ..NextHop::new(to.ip().to_string(), to.port()) };
    let mut list = Vec::new();
    for recipient in recipients {
        list.push(Recipient { mailbox: mailbox(recipient)?, parameters: RcptParameters::default() });
    }
    let envelope = Envelope {
        reverse_path: ReversePath::Mailbox(mailbox(from)?),
        parameters: MailParameters::default(),
        recipients: list,
    };
    let said = hops.deliver(&hop, &envelope, &Rope::from(message.clone())).await.map_err(|error| error.to_string())?;
    match said.replies.iter().find(|reply| !reply.is_positive()) {
        Some(reply) => Err(format!("the gateway said {} {}", reply.code, reply.lines.join(" / "))),
        None => Ok(()),
    }
}

/// What a recipient's mail program would see.
async fn open(store: &Arc<EmbeddedStore>, reader: &Mailbox, message: &Bytes) -> Result<Box<Opened>, String> {
    let identity = store.identity(reader).map_err(|error| error.to_string())?;
    let with_key = identity.certificates.iter().filter_map(|record| record.key.map(|key| (record, key)));
    let keys = with_key.map(|(record, key)| OwnKey { certificate: record.certificate.clone(), key }).collect();
    let trust = store.trust().map_err(|error| error.to_string())?;
    let entity = Entity::parse(message.clone(), &MimeLimits::default()).map_err(|error| error.to_string())?;
    let mut opener = Opener::new(entity, OpenContext::new(keys, trust, Timestamp::now()), || {
        let mut octets = Zeroizing::new(vec![0; 32]);
        // The demo's own mail is no oracle for anybody.
        let _ = rand::fill(&mut octets);
        octets
    });
    let mut answer = None;
    loop {
        match opener.step(answer) {
            Step::Done(opened) => return Ok(opened),
            Step::Key(operation) => {
                answer = Some(match store.submit(operation) {
                    Submission::Ready(answer) => answer,
                    Submission::Later(answer) => answer.await,
                });
            }
        }
    }
}

/// Runs on until Ctrl-C, telling of every mail that arrives.
async fn keep(house: &mut House, printer: &Printer) {
    printer.keep(house.address("submission"), house.address("internet"));
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return,
            Some(mail) = house.world.wait() => printer.arrived("left for the world", &mail),
            Some(mail) = house.server.wait() => printer.arrived("came in for our server", &mail),
        }
    }
}
