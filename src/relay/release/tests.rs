use std::future::ready;
use std::pin::pin;

use super::*;
use crate::config::{Config, Retry};
use crate::relay::hop::Health;
use crate::spool::{Folder, Limits};
use crate::store::embedded::EmbeddedStore;
use crate::store::keyring::Kek;

fn releaser(folder: &std::path::Path) -> Releaser {
    let (kek, here) = (folder.join("kek"), folder.display());
    Kek::create(&kek).unwrap();
    let store = Arc::new(EmbeddedStore::create(&folder.join("store"), &kek).unwrap());
    let (spool, _) = Spool::open(Arc::new(Folder::open(&folder.join("spool")).unwrap()), Limits::default()).unwrap();
    let text = format!(
        "hostname = \"gw.ours.example\"\ndomains = [\"ours.example\"]\nstore = \"{here}/store\"\nkek = \"{here}/kek\"\n\
         spool = \"{here}/spool\"\n[[listener]]\nname = \"out\"\naddress = \"127.0.0.1:0\"\ndirection = \"outbound\"\n\
         [next_hop.outbound]\nhost = \"127.0.0.1\"\nport = 1\ntls = \"off\"\n[next_hop.inbound]\nhost = \"127.0.0.1\"\nport = 1\n\
         tls = \"off\"\n[default]\nencrypt = \"require\"\n"
    );
    let config = Config::parse(&text, "test.toml", &|_| Err("no list files here".into())).unwrap();
    let health = Health::new(&Retry::default());
    let live = Live::new(Arc::new(config), store.clone(), store, &spool, &health, b"test", None).unwrap();
    Releaser::new(spool, Arc::new(Current::new(live)))
}

/// Each is in memory whole while policy looks at it: a third waits until one of two is done.
#[tokio::test]
async fn of_held_mails_two_at_most_are_treated_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let releaser = releaser(folder.path());
    let one = releaser.room.clone().try_acquire_owned().unwrap();
    let other = releaser.clone().room.try_acquire_owned().unwrap();
    let gone: EntryId = "7".parse().unwrap();
    let mut third = pin!(releaser.release(gone, By::Person));
    tokio::select! {
        biased;
        done = &mut third => panic!("it did not wait: {done:?}"),
        () = ready(()) => {}
    }
    drop(one);
    assert_eq!(third.await, Err(ReleaseError::Spool(SpoolError::NoEntry(gone))));
    drop(other);
}
