use super::*;
use crate::load::scenario::parse;

fn scenario(more: &str) -> Scenario {
    parse(&format!("name = 't'\n[pace]\nkind = 'closed'\n[bound]\nmails = 1\n{more}"), "t")
        .unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn quiet(_: &str, _: usize, _: usize) {}

#[test]
fn a_population_has_its_key_types_in_turn_and_is_read_back_from_its_folder() {
    let people = People::new(&scenario("[people]\nmade = 3\nkeys = ['p256', 'rsa2048']"), &quiet).unwrap();
    let names = |persons: &[Person]| persons.iter().map(|one| one.mailbox.to_string()).collect::<Vec<_>>();
    assert_eq!(
        names(&people.ours),
        ["p256.01@ours.load.example", "rsa2048.02@ours.load.example", "p256.03@ours.load.example"]
    );
    assert!(people.theirs.iter().all(|one| one.certificate.as_ref().unwrap().is_for(&one.mailbox.key())));
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("people");
    people.write(&at, &quiet).unwrap();
    let again = People::new(&scenario(&format!("[people]\nfolder = '{}'", at.display())), &quiet).unwrap();
    for (side, other) in [(&people.ours, &again.ours), (&people.theirs, &again.theirs)] {
        let mut known: Vec<_> = side.iter().map(|one| (one.mailbox.to_string(), one.pkcs8.clone())).collect();
        known.sort_by(|one, other| one.0.cmp(&other.0));
        let found: Vec<_> = other.iter().map(|one| (one.mailbox.to_string(), one.pkcs8.clone())).collect();
        assert_eq!(known, found);
    }
    assert_eq!(again.anchors().next(), people.anchors().next());
    assert_eq!(again.clear_domains(), people.clear_domains());
    assert!(people.write(&at, &quiet).unwrap_err().contains("exists"), "nothing is written over");
    assert!(std::fs::read_to_string(at.join("README.md")).unwrap().contains("partner.load.example"));
    std::fs::remove_dir_all(at.join("theirs")).unwrap();
    let gone = People::new(&scenario(&format!("[people]\nfolder = '{}'", at.display())), &quiet).unwrap_err();
    assert!(gone.contains("waxwing load people"), "{gone}");
}

#[test]
fn addresses_alone_cannot_seal() {
    let people = People::new(&scenario("[people]\nfrom = ['a@x.example']\nto = ['b@y.example']"), &quiet).unwrap();
    for kind in [Kind::Plain, Kind::ToSeal, Kind::UnknownRecipient { refused: true }] {
        assert!(people.sides(kind).is_ok());
    }
    for kind in [Kind::Sealed, Kind::Signed, Kind::Tampered, Kind::WrongKey] {
        assert!(people.sides(kind).unwrap_err().contains("no keys"));
    }
    let (_, strangers) = people.sides(Kind::UnknownRecipient { refused: true }).unwrap();
    assert_eq!(strangers[0].mailbox.to_string(), "nobody.01@y.example");
}

#[test]
fn work_is_shared_and_its_order_kept() {
    let list: Vec<usize> = (0..100).collect();
    let done = in_parallel(&list, "", &quiet, |one| Ok(one * 2)).unwrap();
    assert_eq!(done, list.iter().map(|one| one * 2).collect::<Vec<_>>());
    let bad = in_parallel(&list, "", &quiet, |one| if *one == 50 { Err("fifty".to_owned()) } else { Ok(()) });
    assert_eq!(bad.unwrap_err(), "fifty");
    assert_eq!(in_parallel(&[] as &[usize], "", &quiet, |_| Ok(())).unwrap(), []);
}
