use waxwing::cms::algorithm::{ContentEncryption, Digest, KeyDerivation, KeyTransport};
use waxwing::cms::enveloped::RecipientScheme;
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::smime::seal::{Draft, EncryptPlan};

use super::*;
use crate::real::Dovecot;

fn top(dovecot: &Dovecot) -> String {
    format!(
        "[[route]]\ndomain = \"ours.example\"\ndirection = \"inbound\"\nhost = \"127.0.0.1\"\nport = {}\nlmtp = true\ntls = \"off\"\n",
        dovecot.address.port()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_comes_to_the_mailboxes_of_a_real_dovecot_with_a_word_for_each_recipient() {
    let carl = "carl@ours.example";
    let Some(dovecot) = Dovecot::start(&[ANNA, carl]) else { return };
    let house = house(&top(&dovecot)).await;
    let bert = "bert@partner.example";
    let message = plain(bert, ANNA, "hello", CANARY);
    // Straight through.
    assert_eq!(house.send_in(bert, &[ANNA, carl], message.as_bytes()).await.code, 250);
    for mailbox in [ANNA, carl] {
        let mails = dovecot.mails(mailbox);
        assert_eq!(mails.len(), 1, "{mailbox}");
        assert!(
            mails[0].contains(CANARY) && mails[0].contains("Authentication-Results: gw.ours.example"),
            "{}",
            mails[0]
        );
    }
    // Who is not there is refused where it costs nothing.
    let refused = house.send_in(bert, &["nobody@ours.example"], message.as_bytes()).await;
    assert!(refused.code == 550 && refused.octets.contains("5.1.1"), "{}", refused.octets);
    assert!(house.gateway.spool().entries().is_empty());
    assert!(house.server.mails().is_empty(), "the other mail server gets none of it");

    // Out of the spool: a mail that a key of Anna's opens.
    let entity = Entity::parse(plain(bert, ANNA, "sealed", "the secret").into(), &MimeLimits::default()).unwrap();
    let scheme = RecipientScheme { rsa: KeyTransport::RsaPkcs1, kdf: KeyDerivation::X963(Digest::Sha256) };
    let recipients = vec![(house.user(ANNA), scheme)];
    let plan = EncryptPlan { recipients, content: ContentEncryption::Aes256Gcm, derive_cek: false };
    let sealed = Draft::new(&entity).unwrap().encrypt(&plan, true).unwrap().rope().to_bytes();
    assert_eq!(house.send_in(bert, &[ANNA], &sealed).await.code, 250);
    house.settled().await;
    let mails = dovecot.mails(ANNA);
    assert!(mails.len() == 2 && mails.iter().any(|mail| mail.contains("the secret")), "{mails:?}");
}
