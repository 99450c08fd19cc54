//! `docs/guides/exim.md`.

use std::fs;

use crate::foreign::{Server, chroot, own, root, servers};
use crate::page::Page;
use crate::server::{free_ports, run};
use crate::site::{Door, Flow, Site, local};

#[tokio::test(flavor = "multi_thread")]
async fn exim_through_waxwing() {
    let Some(servers) = servers() else { return };
    let (site, page) = (Site::new().await, Page::open("exim.md"));
    let root = root(&servers, "exim", site.folder.path());
    let [world, users, from_world, from_users, back] = free_ports();
    let lines = |file, changes: &[(&str, String)]| page.adapted(file, "", changes);
    let main = lines(
        "main",
        &[
            ("0.0.0.0.25", format!("127.0.0.1.{world}")),
            ("0.0.0.0.587", format!("127.0.0.1.{users}")),
            ("127.0.0.1.10026", format!("127.0.0.1.{back}")),
        ],
    );
    let acl = lines("acl", &[("{10026}", format!("{{{back}}}"))]);
    let routers = lines(
        "routers",
        &[
            ("{10026}", format!("{{{back}}}")),
            ("127.0.0.1::2525", format!("127.0.0.1::{from_users}")),
            ("127.0.0.1::2526", format!("127.0.0.1::{from_world}")),
        ],
    );
    // What an operator has before: a domain with Anna and a forwarding address, and `world` in place of the way there.
    let config = format!(
        "keep_environment =\nprimary_hostname = mx.example.org\ndomainlist local_domains = example.org\n\
         hostlist relay_from_hosts = 127.0.0.1\nlog_file_path = /var/log/exim4/%slog\ntls_advertise_hosts =\n\
         acl_smtp_rcpt = acl_check_rcpt\n{main}\n\
         begin acl\nacl_check_rcpt:\n{acl}\n\
         \x20 accept hosts = +relay_from_hosts\n         verify = recipient\n\
         \x20 require message = relay not permitted\n          domains = +local_domains\n\
         \x20 require verify = recipient\n  accept\n\
         begin routers\n{routers}\n\
         world:\n  driver = manualroute\n  domains = !+local_domains\n  transport = smtp\n  route_list = * 127.0.0.1::{}\n\
         \x20 self = send\n\
         aliases:\n  driver = redirect\n  domains = +local_domains\n\
         \x20 data = ${{if eq{{$local_part}}{{forward}}{{bob@partner.example}}}}\n\
         local_user:\n  driver = accept\n  check_local_user\n  domains = +local_domains\n  transport = maildir\n\
         \x20 cannot_route_message = Unknown user\n\
         begin transports\n{}\n\
         smtp:\n  driver = smtp\n  hosts_avoid_tls = *\n\
         maildir:\n  driver = appendfile\n  directory = $home/Maildir\n  maildir_format\n\
         begin retry\n* * F,1h,1m\n",
        site.world_port(),
        lines("transports", &[]),
    );
    fs::write(root.join("etc/exim4/exim4.conf"), config).unwrap();
    own(&root, "Debian-exim", "var/spool/exim4");
    own(&root, "Debian-exim", "var/log/exim4");
    let toml = site.waxwing_toml(
        &page,
        "",
        &[
            ("127.0.0.1:2525", format!("127.0.0.1:{from_users}")),
            ("127.0.0.1:2526", format!("127.0.0.1:{from_world}")),
            ("port = 10026", format!("port = {back}")),
        ],
    );
    run(chroot(&root).args(["/usr/sbin/exim4", "-bV"]));
    let _gateway = site.gateway(&toml, &[from_world, from_users]);
    let log = site.folder.path().join("exim.log");
    let _exim = Server::start(chroot(&root).args(["/usr/sbin/exim4", "-bdf", "-q1m"]), log, &[world, users, back]);

    let flow = Flow {
        site: &site,
        users: Door::Local(local(users)),
        world: local(world),
        gateway: local(from_world),
        inbox: root.join("home/anna/Maildir"),
        sees_client: false,
        among_us: true,
        unknown: "Unknown user",
    };
    flow.both_ways().await;
    flow.forwarded("forward@example.org", 1).await;
    // K: Exim sent with BDAT, and the gateway took it.
    let told = fs::read_to_string(root.join("var/log/exim4/mainlog")).unwrap();
    let chunked = |line: &&str| line.contains(" T=waxwing") && line.contains(" K C=\"250");
    assert!(told.lines().filter(chunked).count() >= 2, "{told}");
    let panics = fs::read_to_string(root.join("var/log/exim4/paniclog")).unwrap_or_default();
    assert_eq!(panics, "");
}
