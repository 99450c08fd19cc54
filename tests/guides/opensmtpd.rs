//! `docs/guides/opensmtpd.md`.

use std::fs;
use std::process::Command;

use crate::foreign::{Server, chroot, own, root, servers};
use crate::page::Page;
use crate::server::{free_ports, run};
use crate::site::{Door, Flow, Site, local};

#[tokio::test(flavor = "multi_thread")]
async fn opensmtpd_behind_waxwing() {
    let Some(servers) = servers() else { return };
    let (site, page) = (Site::new().await, Page::open("opensmtpd.md"));
    let root = root(&servers, "opensmtpd", site.folder.path());
    let [world, users, from_users, back] = free_ports();
    fs::create_dir_all(root.join("etc/ssl/private")).unwrap();
    fs::copy(site.path("tls.pem"), root.join("etc/ssl/mx.example.org.pem")).unwrap();
    fs::copy(site.path("tls.key"), root.join("etc/ssl/private/mx.example.org.key")).unwrap();
    run(Command::new("chmod").arg("600").arg(root.join("etc/ssl/private/mx.example.org.key")));
    fs::write(root.join("etc/aliases"), "forward: bob@partner.example\n").unwrap();
    fs::write(root.join("etc/smtpd-passwords"), "anna@example.org $6$nothing\n").unwrap();
    own(&root, "opensmtpd", "etc/smtpd-passwords");

    // As the page has it: OpenSMTPD finds no fault in it.
    fs::write(root.join("etc/smtpd.conf"), page.lines("smtpd.conf", "")).unwrap();
    run(chroot(&root).args(["/usr/sbin/smtpd", "-n", "-f", "/etc/smtpd.conf"]));

    let conf = page.adapted(
        "smtpd.conf",
        "",
        &[
            // Debian 12 links 6.8 with an OpenSSL that it cannot do TLS with: users come from this machine, in clear.
            ("0.0.0.0 port 587 tls-require pki mx.example.org auth <passwords>", format!("127.0.0.1 port {users}")),
            ("127.0.0.1 port 10026", format!("127.0.0.1 port {back}")),
            ("127.0.0.1:2525", format!("127.0.0.1:{from_users}")),
            ("\"world\" relay", format!("\"world\" relay host \"smtp://127.0.0.1:{}\"", site.world_port())),
        ],
    );
    fs::write(root.join("etc/smtpd.conf"), conf).unwrap();
    let toml = site.waxwing_toml(
        &page,
        "",
        &[
            ("0.0.0.0:25", format!("127.0.0.1:{world}")),
            ("127.0.0.1:2525", format!("127.0.0.1:{from_users}")),
            ("/etc/waxwing/tls.pem", site.path("tls.pem")),
            ("/etc/waxwing/tls.key", site.path("tls.key")),
            ("port = 10026", format!("port = {back}")),
        ],
    );
    let _gateway = site.gateway(&toml, &[world, from_users]);
    let mut smtpd = chroot(&root);
    smtpd.args(["/usr/sbin/smtpd", "-d", "-f", "/etc/smtpd.conf"]);
    let _smtpd = Server::start(&mut smtpd, site.folder.path().join("smtpd.log"), &[users, back]);

    let flow = Flow {
        site: &site,
        users: Door::Local(local(users)),
        world: local(world),
        gateway: local(world),
        inbox: root.join("home/anna/Maildir"),
        sees_client: true,
        among_us: true,
        unknown: "Invalid recipient",
    };
    flow.both_ways().await;
    flow.forwarded("forward@example.org", 1).await;
}
