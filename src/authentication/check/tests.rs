use bytes::Bytes;
use mail_auth::common::parse::TxtRecordParser;

use super::*;
use crate::mime::entity::MimeLimits;

/// RFC 8463 appendix A.2.
const BRISBANE: &str = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const TEST: &str = "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB";
/// RFC 8463 appendix A.3.
const SIGNED: &str = "\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r
 d=football.example.com; i=@football.example.com;\r
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r
 subject : date : message-id : from : subject : date;\r
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r
 d=football.example.com; i=@football.example.com;\r
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r
 date : message-id : from : subject : date;\r
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\r
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\r
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=\r
From: Joe SixPack <joe@football.example.com>\r
To: Suzie Q <suzie@shopping.example.net>\r
Subject: Is dinner ready?\r
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r
Message-ID: <20030712040037.46341.5F8J@football.example.com>\r
\r
Hi.\r
\r
We lost the game.  Are you hungry yet?\r
\r
Joe.\r
";

fn keys(keys: &[(&str, &str)]) -> Keys {
    let read = |text: &str| DomainKey::parse(text.as_bytes()).map_or_else(Txt::Error, |key| Txt::DomainKey(key.into()));
    let name = |selector: &str| format!("{selector}._domainkey.football.example.com.").into_boxed_str();
    Keys(keys.iter().map(|(selector, text)| (name(selector), read(text))).collect())
}

/// What becomes of each signature, with these keys at hand and nobody to ask.
async fn outcomes(text: &str, keys: Keys) -> Vec<Outcome> {
    let settings =
        MailAuthentication { servers: vec!["127.0.0.1:9".parse().unwrap()], ..MailAuthentication::default() };
    let dns = resolver(&settings).unwrap();
    let entity = Entity::parse(Bytes::copy_from_slice(text.as_bytes()), &MimeLimits::default()).unwrap();
    let signed = signatures::read(&entity, 8);
    let outputs = dns.verify_dkim(Parameters::new(&signed.message).with_txt_cache(&keys)).await;
    outputs.iter().map(|output| told(output).outcome).collect()
}

#[tokio::test]
async fn rfc_8463_both_signatures_of_its_example_pass_and_no_other_mail_does() {
    use Outcome::{Fail, Pass, PermError, TempError};
    let both = || keys(&[("brisbane", BRISBANE), ("test", TEST)]);
    assert_eq!(outcomes(SIGNED, both()).await, [Pass, Pass]);
    let received = format!("Received: from x\r\n by y; z\r\n{SIGNED}\r\n\r\n");
    assert_eq!(outcomes(&received, both()).await, [Pass, Pass], "empty lines at the end do not count");
    for (from, to) in [
        ("Is dinner ready?", "Is supper ready?"),
        ("We lost", "We won"),
        ("Subject:", "From: mallory@else.example\r\nSubject:"),
        ("Date:", "Date: Fri, 11 Jul 2003 21:00:38 -0700 (PDT)\r\nDate:"),
    ] {
        assert_eq!(outcomes(&SIGNED.replacen(from, to, 1), both()).await, [Fail, Fail], "{to}");
    }
    let wrong = keys(&[("brisbane", TEST), ("test", "v=DKIM1; p=")]);
    assert_eq!(outcomes(SIGNED, wrong).await, [Fail, PermError], "another's key, and one that was withdrawn");
    assert_eq!(outcomes(SIGNED, keys(&[("test", TEST)])).await, [TempError, Pass], "one that is silent");
}

#[test]
fn the_strictest_word_holds() {
    let fail = DmarcResult::Fail(Error::NotAligned);
    let all = [
        weighed(&DmarcResult::Pass, Policy::Reject),
        weighed(&DmarcResult::None, Policy::None),
        weighed(&DmarcResult::PermError(Error::ParseError), Policy::None),
        weighed(&DmarcResult::TempError(unanswered()), Policy::Reject),
        weighed(&fail, Policy::None),
        weighed(&fail, Policy::Quarantine),
        weighed(&fail, Policy::Reject),
    ];
    assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0), "{all:?}");
}
