use std::collections::{HashMap, HashSet};

use super::*;
use crate::load::scenario::parse;
use crate::mime::entity::{Entity, MimeLimits};

fn quiet(_: &str, _: usize, _: usize) {}

fn mails(more: &str) -> Result<Mails, String> {
    let text = format!("name = 't'\n[pace]\nkind = 'closed'\n[bound]\nmails = 300\n{more}");
    let scenario = parse(&text, "t").unwrap_or_else(|errors| panic!("{errors:?}"));
    let people = Arc::new(People::new(&scenario, &quiet)?);
    Mails::new(&scenario, people, 0xab, &quiet)
}

const MADE: &str = "[people]\nmade = 4\nkeys = ['p256']\n";
const ALL: &str = "[[mix]]\nkind = 'plain'\nweight = 2\n[[mix]]\nkind = 'to-seal'\n[[mix]]\nkind = 'sealed'\n[[mix]]\nkind = 'signed'\n\
                   [[mix]]\nkind = 'unknown'\n[[mix]]\nkind = 'unknown-clear'\n[[mix]]\nkind = 'tampered'\n[[mix]]\nkind = 'wrong-key'\n";

#[test]
fn ids_are_read_back_and_nothing_else_is_one() {
    let id = MailId { run: 0xab, number: u64::MAX };
    assert_eq!(MailId::parse(&id.to_string()), Some(id));
    for text in
        ["", "-", "ab-1", "00000000000000ab-", "00000000000000ab-G", "00000000000000AB-1", "00000000000000ab--1"]
    {
        assert_eq!(MailId::parse(text), None, "{text}");
    }
    assert_eq!(MailId::parse("00000000000000ab-10000000000000000"), None);
}

#[test]
fn a_mail_is_a_function_of_its_number() {
    let mails = mails(&format!("[mail]\nsize = '2 KiB'\nrecipients = [1, 3]\n{MADE}{ALL}")).unwrap();
    let mut kinds: HashMap<Kind, u32> = HashMap::new();
    let (mut recipients, mut bodies) = (HashSet::new(), HashSet::new());
    for number in 0..900 {
        let (mail, again) = (mails.mail(number), mails.mail(number));
        assert_eq!((&mail.content, &mail.envelope), (&again.content, &again.envelope));
        assert_eq!(mail.id, MailId { run: 0xab, number });
        let text = String::from_utf8_lossy(&mail.content).into_owned();
        let id = mail.id.to_string();
        assert!(text.contains(&format!("\r\nX-Load-Id: {id}\r\n")), "{text}");
        assert_eq!(mail.envelope.parameters.envid.as_deref(), Some(id.as_str()));
        let entity = Entity::parse(mail.content.clone(), &MimeLimits::default()).unwrap();
        for name in ["From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"] {
            assert_eq!(entity.header.all(name).count(), 1, "{name} of {text}");
        }
        let ReversePath::Mailbox(from) = &mail.envelope.reverse_path else { panic!() };
        assert_eq!(entity.header.single_from().as_ref(), Ok(from));
        let to: Vec<_> = mail.envelope.recipients.iter().map(|one| one.mailbox.clone()).collect();
        assert_eq!(entity.header.to_and_cc(), to);
        assert_eq!(to.iter().collect::<HashSet<_>>().len(), to.len(), "each once");
        recipients.insert(to.len());
        *kinds.entry(mail.kind).or_default() += 1;
        let hidden = matches!(mail.kind, Kind::Sealed | Kind::Tampered | Kind::WrongKey);
        assert_eq!(text.contains(mails.canary()), !hidden, "{:?}", mail.kind);
        let inbound = matches!(mail.kind, Kind::Plain | Kind::Sealed | Kind::Signed | Kind::Tampered | Kind::WrongKey);
        assert_eq!(to[0].domain().as_str() == "ours.load.example", inbound);
        bodies.insert(entity.body.clone());
    }
    assert_eq!(recipients, HashSet::from([1, 2, 3]));
    assert_eq!(kinds.len(), 8);
    assert!(kinds.values().all(|count| (50..300).contains(count)), "{kinds:?}");
    assert!(kinds[&Kind::Plain] > 150, "twice the weight: {kinds:?}");
    assert!(bodies.len() > 450, "no two bodies of mails in clear are alike");
}

#[test]
fn other_seeds_send_other_mails() {
    let of = |seed: u64| {
        let text = format!("name = 't'\nseed = {seed}\n[pace]\nkind = 'closed'\n[bound]\nmails = 3\n{MADE}{ALL}");
        let scenario = parse(&text, "t").unwrap();
        let people = Arc::new(People::new(&scenario, &quiet).unwrap());
        let mails = Mails::new(&scenario, people, 0, &quiet).unwrap();
        (0..100).map(|number| mails.mail(number).kind).collect::<Vec<_>>()
    };
    assert!(of(1) == of(1) && of(1) != of(2));
}

#[test]
fn what_cannot_be_sent_is_said_before() {
    let why = |more: &str| mails(more).err().unwrap();
    assert!(why("[[mix]]\nkind = 'sealed'").contains("no keys"));
    let few = why("[mail]\nrecipients = 5\n[people]\nmade = 4\nkeys = ['p256']");
    assert!(few.contains("up to 5 recipients") && few.contains("4 people"), "{few}");
    assert!(why("[mail]\ncontents = { folder = '/nowhere' }").contains("/nowhere"));
    assert!(why("[people]\nstore = '/nowhere.toml'").contains("/nowhere.toml"));
}

#[test]
fn a_large_run_makes_a_small_pool() {
    let mails = mails(&format!("[mail]\nsize = '1 MiB'\n{MADE}[[mix]]\nkind = 'sealed'")).unwrap();
    let octets: usize = mails.ready.iter().flat_map(|(_, ready)| ready).map(|one| one.inner.len()).sum();
    assert!((32 << 20..=65 << 20).contains(&octets), "{octets}");
}
