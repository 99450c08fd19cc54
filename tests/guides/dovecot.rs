//! `docs/guides/dovecot.md`.

use std::fs;
use std::process::Command;

use crate::foreign::Server;
use crate::outside::find;
use crate::page::Page;
use crate::people::waxwing;
use crate::server::{free_ports, peers_present, run};
use crate::site::{Door, Flow, Site, local};

const PASSWORD: &str = "correct horse battery";

#[tokio::test(flavor = "multi_thread")]
async fn dovecot_behind_waxwing() {
    if !peers_present(&["dovecot", "openssl", "python3"]) {
        return;
    }
    let (site, page) = (Site::new().await, Page::open("dovecot.md"));
    let [world, users, lmtp] = free_ports();
    let folder = site.folder.path();
    for name in ["run", "mail"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    run(Command::new("chown").arg("65534:65534").arg(folder.join("mail")));
    fs::write(folder.join("passwd"), "anna@example.org:{PLAIN}x:65534:65534::/nonexistent\n").unwrap();
    // What an operator has before: Anna, and where her mail is.
    let here = folder.display();
    let before = format!(
        "base_dir = {here}/run\nstate_dir = {here}/run\nlog_path = {here}/dovecot.log\nprotocols =\nssl = no\n\
         mail_location = maildir:{here}/mail/%u\nfirst_valid_uid = 1\n\
         passdb {{\n  driver = passwd-file\n  args = {here}/passwd\n}}\nuserdb {{\n  driver = passwd-file\n  args = {here}/passwd\n}}\n"
    );
    let lines = page.adapted("local.conf", "", &[("port = 24", format!("port = {lmtp}"))]);
    fs::write(folder.join("dovecot.conf"), before + &lines).unwrap();
    let toml = site.waxwing_toml(
        &page,
        "",
        &[
            ("0.0.0.0:25", format!("127.0.0.1:{world}")),
            ("0.0.0.0:465", format!("127.0.0.1:{users}")),
            ("/etc/waxwing/tls.pem", site.path("tls.pem")),
            ("/etc/waxwing/tls.key", site.path("tls.key")),
            ("/etc/waxwing/users", site.path("users")),
            ("smarthost.provider.example\"\nport = 25", format!("127.0.0.1\"\nport = {}", site.world_port())),
            ("port = 24", format!("port = {lmtp}")),
        ],
    );
    let mut user = waxwing(&folder.join("waxwing.toml"));
    run(user.args(["user", "set", &site.path("users"), "anna@example.org", "--password", PASSWORD]));
    let _gateway = site.gateway(&toml, &[world, users]);
    let mut dovecot = Command::new(find("dovecot").unwrap());
    dovecot.arg("-F").arg("-c").arg(folder.join("dovecot.conf"));
    let _dovecot = Server::start(&mut dovecot, folder.join("dovecot.log"), &[lmtp]);

    let flow = Flow {
        site: &site,
        users: Door::Login {
            port: users,
            ca: folder.join("tls.pem"),
            user: "anna@example.org".to_owned(),
            password: PASSWORD.to_owned(),
        },
        world: local(world),
        gateway: local(world),
        inbox: folder.join("mail/anna@example.org"),
        sees_client: true,
        among_us: true,
        unknown: "User doesn't exist",
    };
    flow.both_ways().await;
}
