//! `docs/guides/postfix.md`.

use std::fs;

use crate::page::Page;
use crate::people::{ANNA, BOB, opened_by_bob};
use crate::server::{Postfix, free_ports, listening, peers_present};
use crate::site::{Door, Flow, Site, local};
use crate::support::Client;
use crate::support::house::plain;

/// What an operator has before: a domain with Anna and a forwarding address, and `relayhost` in place of the way to the world.
fn main_cf(site: &Site) -> String {
    let here = site.path("postfix");
    format!(
        "compatibility_level = 3.6\nqueue_directory = {here}/queue\ndata_directory = {here}/data\nmaillog_file = {here}/log\n\
         maillog_file_prefixes = /\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmyhostname = mx.example.org\n\
         mydestination =\nmynetworks = 127.0.0.1/32 127.0.0.7/32\nrelayhost = [127.0.0.1]:{}\n\
         smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\nvirtual_mailbox_domains = example.org\n\
         virtual_mailbox_base = {here}/mail\nvirtual_mailbox_maps = inline:{{anna@example.org=anna/}}\n\
         virtual_alias_maps = inline:{{forward@example.org=bob@partner.example}}\nvirtual_uid_maps = static:65534\n\
         virtual_gid_maps = static:65534\nvirtual_minimum_uid = 1\nalias_maps =\nalias_database =\n\
         smtp_tls_security_level = none\nsmtpd_tls_security_level = none\nsmtp_dns_support_level = disabled\n\
         smtp_host_lookup = native\nsmtpd_peername_lookup = no\n",
        site.world_port()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_with_a_content_filter() {
    if !peers_present(&["postfix", "openssl"]) {
        return;
    }
    let (site, page) = (Site::new().await, Page::open("postfix.md"));
    let [world, users, from_world, from_users, opened, sealed] = free_ports();
    let folder = site.folder.path().join("postfix");
    Postfix::folders(&folder);

    let clients = folder.join("etc/waxwing-clients");
    let to_users = ("[127.0.0.1]:2525", format!("[127.0.0.1]:{from_users}"));
    let own = [("10.0.0.0/8", "127.0.0.7/32".to_owned()), to_users.clone()];
    fs::write(&clients, page.adapted("waxwing-clients", "filter", &own)).unwrap();
    let main = page.adapted(
        "main.cf",
        "filter",
        &[
            ("[127.0.0.1]:2526", format!("[127.0.0.1]:{from_world}")),
            ("/etc/postfix/waxwing-clients", clients.display().to_string()),
        ],
    );
    let services = page.adapted(
        "master.cf",
        "filter",
        &[
            to_users,
            ("submission inet", format!("127.0.0.1:{users} inet")),
            ("127.0.0.1:10026", format!("127.0.0.1:{opened}")),
            ("127.0.0.1:10027", format!("127.0.0.1:{sealed}")),
        ],
    );
    let toml = site.waxwing_toml(
        &page,
        "filter",
        &[
            ("127.0.0.1:2525", format!("127.0.0.1:{from_users}")),
            ("127.0.0.1:2526", format!("127.0.0.1:{from_world}")),
            ("port = 10026", format!("port = {opened}")),
            ("port = 10027", format!("port = {sealed}")),
        ],
    );
    let _gateway = site.gateway(&toml, &[from_world, from_users]);
    let services = format!("{services}127.0.0.1:{world} inet n - n - - smtpd\n");
    let postfix = Postfix::launch(&folder, world, &(main_cf(&site) + &main), &services);
    [users, opened, sealed].into_iter().for_each(listening);

    let flow = Flow {
        site: &site,
        users: Door::Local(local(users)),
        world: local(world),
        gateway: local(from_world),
        inbox: postfix.folder.join("mail/anna"),
        sees_client: true,
        among_us: true,
        unknown: "5.1.1",
    };
    flow.both_ways().await;
    flow.forwarded("forward@example.org", 1).await;
    // On both sides.
    let log = fs::read_to_string(folder.join("log")).unwrap();
    let told = log.lines().filter(|line| line.contains("/opened/") && line.contains("client=unknown[127.0.0.9]"));
    assert!(told.count() >= 3, "{log}");

    // A machine of ours that relays through port 25.
    let mut machine = Client::connect_from("127.0.0.7".parse().unwrap(), local(world)).await;
    assert_eq!(machine.send(ANNA, &[BOB], plain(ANNA, BOB, "10-relayed", "By port 25.").as_bytes()).await.code, 250);
    let mail = flow.left("10-relayed").await;
    assert!(opened_by_bob(site.folder.path(), &mail.message).contains("By port 25."));
    no_warnings(&folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_behind_waxwing() {
    if !peers_present(&["postfix", "openssl"]) {
        return;
    }
    let (site, page) = (Site::new().await, Page::open("postfix.md"));
    let [world, users, from_users, opened] = free_ports();
    let folder = site.folder.path().join("postfix");
    Postfix::folders(&folder);

    let main = page.adapted("main.cf", "front", &[("[127.0.0.1]:2525", format!("[127.0.0.1]:{from_users}"))]);
    let services = page.adapted("master.cf", "front", &[("127.0.0.1:10026", format!("127.0.0.1:{opened}"))]);
    let toml = site.waxwing_toml(
        &page,
        "front",
        &[
            ("0.0.0.0:25", format!("127.0.0.1:{world}")),
            ("127.0.0.1:2525", format!("127.0.0.1:{from_users}")),
            ("/etc/waxwing/tls.pem", site.path("tls.pem")),
            ("/etc/waxwing/tls.key", site.path("tls.key")),
            ("smarthost.provider.example\"\nport = 25", format!("127.0.0.1\"\nport = {}", site.world_port())),
            ("port = 10026", format!("port = {opened}")),
        ],
    );
    let _gateway = site.gateway(&toml, &[world, from_users]);
    let services = format!("{services}127.0.0.1:{users} inet n - n - - smtpd\n");
    // The page's line holds: the last one does.
    let before = main_cf(&site).replace("relayhost", "# relayhost");
    let postfix = Postfix::launch(&folder, opened, &(before + &main), &services);
    listening(users);

    let flow = Flow {
        site: &site,
        users: Door::Local(local(users)),
        world: local(world),
        gateway: local(world),
        inbox: postfix.folder.join("mail/anna"),
        sees_client: true,
        among_us: false,
        unknown: "5.1.1",
    };
    flow.both_ways().await;
    flow.forwarded("forward@example.org", 2).await;
    no_warnings(&folder);
}

/// Postfix has nothing to say of the lines: keys that it does not know, values that it cannot use.
fn no_warnings(folder: &std::path::Path) {
    let log = fs::read_to_string(folder.join("log")).unwrap();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("warning:") || line.contains("fatal:")).collect();
    assert!(told.is_empty(), "{told:#?}");
}
