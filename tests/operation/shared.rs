//! A gateway whose store is shared: what those who watch are told of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use waxwing::config::Config;
use waxwing::relay::gateway::Gateway;
use waxwing::store::embedded::EmbeddedStore;
use waxwing::store::etcd::Role;
use waxwing::store::keyring::Kek;

use crate::get;
use crate::support::etcd::{Members, installed};

async fn until(address: SocketAddr, path: &str, wanted: impl Fn(&str) -> bool) -> String {
    let ends = Instant::now() + Duration::from_secs(90);
    loop {
        let (_, body) = get(address, path).await;
        if wanted(&body) {
            return body;
        }
        assert!(Instant::now() < ends, "{path} says:\n{body}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_has_not_heard_of_its_shared_store_for_too_long_is_not_ready() {
    if !installed() {
        return;
    }
    let mut members = tokio::task::spawn_blocking(Members::start).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "hostname = \"gw.ours.example\"\ndomains = [\"ours.example\"]\n\
         store = '{folder}/store'\nkek = '{folder}/kek'\nspool = '{folder}/spool'\n\
         [metrics]\nlisten = \"127.0.0.1:0\"\n[etcd]\nendpoints = {endpoints:?}\nmax_staleness = \"3 s\"\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\ndirection = \"inbound\"\n\
         [next_hop.outbound]\nhost = \"127.0.0.1\"\nport = 9\n[next_hop.inbound]\nhost = \"127.0.0.1\"\nport = 9\n\
         [default]\nencrypt = \"require\"\n",
        folder = folder.path().display(),
        endpoints = members.endpoints(),
    );
    let config = Config::parse(&text, "shared", &|_| Err("no list files".into())).unwrap();
    let (etcd, kek, place) = (config.etcd.clone().unwrap(), folder.path().join("kek"), folder.path().to_owned());
    let opened = tokio::task::spawn_blocking(move || {
        Kek::create(&kek).unwrap();
        let first = EmbeddedStore::create(&place.join("first"), &kek).unwrap();
        assert!(first.found(&etcd).unwrap());
        EmbeddedStore::open_shared(&place.join("store"), &kek, &etcd, Role::Gateway).unwrap()
    });
    let store = Arc::new(opened.await.unwrap());
    let gateway = Gateway::start(config, store.clone(), store.clone(), b"shared").await.unwrap();
    let address = gateway.watched_at().unwrap();
    until(address, "/readyz", |body| body == "ready\n").await;
    let metrics = until(address, "/metrics", |body| body.contains("\nwaxwing_store_live_nodes 1\n")).await;
    assert!(
        metrics.contains("\nwaxwing_store_connected 1\n") && metrics.contains("\nwaxwing_store_usable 1\n"),
        "{metrics}"
    );
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
        line.parse().unwrap()
    };
    assert!(value("waxwing_store_revision") > 0.0 && value("waxwing_store_contact_age_seconds") < 60.0);
    (0..3).for_each(|at| members.kill(at));
    let why = until(address, "/readyz", |body| body != "ready\n").await;
    assert!(why.starts_with("store: ") && why.contains("max_staleness"), "{why}");
    until(address, "/metrics", |body| body.contains("\nwaxwing_store_usable 0\n")).await;
    (0..3).for_each(|at| members.restart(at));
    until(address, "/readyz", |body| body == "ready\n").await;
}
