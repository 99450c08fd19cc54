//! A Waxwing gateway for one run: a child process with a store of its own, in a temporary folder.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli::Failure;
use crate::cli::demo::Folder;
use jiff::Timestamp;

use crate::load::mails::people::{People, Person};
use crate::load::scenario::{self, Kind, Scenario};
use crate::pki::path::AnchorScope;
use crate::policy::TrustState;
use crate::store::embedded::EmbeddedStore;
use crate::store::keyring::Kek;
use crate::store::{CertStore, NewCertificate, Owner, Provenance};

/// How long it may take to start.
const START: Duration = Duration::from_secs(30);

/// A gateway that ends, with its folder, when this is dropped.
pub struct OwnGateway {
    child: Child,
    address: SocketAddr,
    // After the child: it is gone when its folder goes.
    _folder: Folder,
}

impl OwnGateway {
    /// Starts one whose next hops are the sink: it has the keys of our side, the certificates of the other, and rules that do what the mix
    /// expects.
    pub fn start(scenario: &Scenario, people: &People, sink: SocketAddr) -> Result<Self, Failure> {
        if matches!(scenario.people, scenario::People::Named { .. }) && !is_plain(scenario) {
            return Err(Failure::new(
                "the gateway that is started for the run knows no keys of the people named",
                "let people be made: --made 4, or name the --target that has their keys",
            ));
        }
        let folder = Folder::new()?;
        let at = |name: &str| folder.path().join(name);
        Kek::create(&at("kek"))?;
        fill(&EmbeddedStore::create(&at("store"), at("kek"))?, people)?;
        write(&at("waxwing.toml"), &configuration(scenario, people, folder.path(), sink))?;
        let failed =
            |error: std::io::Error| Failure::new(format!("a gateway for the run cannot be started: {error}"), "");
        let log = std::fs::File::create(at("log")).map_err(failed)?;
        let child = Command::new(std::env::current_exe().map_err(failed)?)
            .arg("--config")
            .arg(at("waxwing.toml"))
            .arg("serve")
            .env("RUST_LOG", "info,waxwing::relay=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for us: what the gateway took is still to arrive.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let mut gateway = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)), _folder: folder };
        gateway.address = gateway.listens()?;
        Ok(gateway)
    }

    /// Where it takes mail.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn listens(&mut self) -> Result<SocketAddr, Failure> {
        let log = self._folder.path().join("log");
        let until = Instant::now() + START;
        loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let address =
                text.lines().find_map(|line| line.split_once("listener=\"load\" address=")?.1.trim().parse().ok());
            if let Some(address) = address {
                return Ok(address);
            }
            let ended = self.child.try_wait().ok().flatten().is_some();
            if ended || Instant::now() > until {
                let last = text.lines().last().unwrap_or("it says nothing").to_owned();
                return Err(Failure::new(format!("the gateway for the run does not start: {last}"), ""));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for OwnGateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(file, text).map_err(|error| Failure::new(format!("{}: {error}", file.display()), ""))
}

fn is_plain(scenario: &Scenario) -> bool {
    scenario.mix.iter().all(|(_, kind)| *kind == Kind::Plain)
}

/// What an administrator would have imported.
fn fill(store: &EmbeddedStore, people: &People) -> Result<(), Failure> {
    for anchor in people.anchors() {
        store.add_trust(anchor.clone(), Some(AnchorScope::Global))?;
    }
    let add = |person: &Person, with_key: bool| -> Result<(), Failure> {
        let Some(certificate) = person.certificate.clone() else { return Ok(()) };
        let provenance =
            Provenance { source: "load".into(), detail: "people of a load test".into(), at: Timestamp::now() };
        let key = person.pkcs8().filter(|_| with_key).cloned();
        let new = NewCertificate { certificate, provenance, trust: TrustState::Trusted, key };
        store.add_certificates(&Owner::Mailbox(person.mailbox.key()), vec![new])?;
        Ok(())
    };
    people.ours.iter().try_for_each(|person| add(person, true))?;
    people.theirs.iter().try_for_each(|person| add(person, false))
}

fn configuration(scenario: &Scenario, people: &People, folder: &Path, sink: SocketAddr) -> String {
    let list = |domains: Vec<&crate::address::Domain>, before: &str| {
        domains.iter().map(|domain| format!("\"{before}{domain}\"")).collect::<Vec<_>>().join(", ")
    };
    let (ours, clear, profile) = (list(people.our_domains(), ""), list(people.clear_domains(), "@"), &scenario.profile);
    let rules = if is_plain(scenario) {
        "[[rule]]\nname = \"load\"\npass = true\n".to_owned()
    } else {
        // Who has no certificate is refused, or written to in clear where that is what the mix expects.
        let clear = format!(
            "[[rule]]\nname = \"clear\"\nmatch = {{ direction = \"outbound\", recipient = [{clear}] }}\nencrypt = \"prefer\"\n"
        );
        let in_clear = scenario.mix.iter().any(|(_, kind)| *kind == Kind::UnknownRecipient { refused: false });
        if in_clear { clear } else { String::new() }
    };
    let (folder, host, port) = (folder.display(), sink.ip(), sink.port());
    // As TOML literal strings: a temporary folder's name has no quote in it, or the gateway says so.
    format!(
        "hostname = \"gateway.load.example\"\ndomains = [{ours}]\n\
         store = '{folder}/store'\nkek = '{folder}/kek'\nspool = '{folder}/spool'\n\
         [[listener]]\nname = \"load\"\naddress = \"127.0.0.1:0\"\ndirection = \"by-recipient\"\ntrusted_networks = [\"127.0.0.0/8\"]\n\
         [next_hop.outbound]\nhost = \"{host}\"\nport = {port}\ntls = \"off\"\n\
         [next_hop.inbound]\nhost = \"{host}\"\nport = {port}\ntls = \"off\"\n\
         [limits]\nconnections = 30000\nconnections_per_client = 30000\n\
         {rules}\
         [default]\nsign = \"if-key\"\nencrypt = \"require\"\nprofile = \"{profile}\"\n"
    )
}
