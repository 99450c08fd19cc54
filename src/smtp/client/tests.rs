use super::*;
use crate::address::Mailbox;
use crate::smtp::command::{Notify, RcptParameters};

fn client(tls: StartTls) -> Client {
    Client::new(Domain::parse("gw.example").unwrap(), false, tls, false)
}

fn says(client: &mut Client, text: &str) -> Result<Vec<Event>, ClientError> {
    client.take_output();
    client.input().extend_from_slice(text.as_bytes());
    let mut events = Vec::new();
    while let Some(event) = client.next_event()? {
        let closed = event == Event::Closed;
        events.push(event);
        if closed {
            break;
        }
    }
    Ok(events)
}

fn sent(client: &mut Client) -> String {
    String::from_utf8(client.take_output().to_vec()).unwrap()
}

/// Greeting and EHLO done, with these capabilities.
fn ready(capabilities: &[&str]) -> Client {
    let mut client = client(StartTls::IfOffered);
    assert_eq!(says(&mut client, "220 mx.example ESMTP\r\n"), Ok(vec![]));
    assert_eq!(sent(&mut client), "EHLO gw.example\r\n");
    let mut reply = String::new();
    for line in ["mx.example"].iter().chain(capabilities) {
        reply.push_str(&format!("250-{line}\r\n"));
    }
    reply.push_str("250 HELP\r\n");
    assert_eq!(says(&mut client, &reply), Ok(vec![Event::Ready]));
    client
}

fn from(text: &str) -> ReversePath {
    ReversePath::Mailbox(Mailbox::parse(text).unwrap())
}

fn to(text: &str) -> Recipient {
    Recipient { mailbox: Mailbox::parse(text).unwrap(), parameters: RcptParameters::default() }
}

#[test]
fn pipelines_where_offered_and_waits_where_not() {
    let mut pipelined = ready(&["PIPELINING"]);
    pipelined.mail(&from("a@b.example"), &MailParameters::default()).unwrap();
    pipelined.rcpt(&to("c@d.example")).unwrap();
    pipelined.data();
    assert_eq!(sent(&mut pipelined), "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n");
    let events = says(&mut pipelined, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 go\r\n").unwrap();
    assert!(matches!(events.as_slice(), [Event::Mail(_), Event::Rcpt(_), Event::GoAhead]));
    pipelined.content_sent(1);
    assert!(matches!(says(&mut pipelined, "250 2.0.0 queued\r\n").unwrap().as_slice(), [Event::Final(_)]));
    assert!(pipelined.is_idle());

    let mut plain = ready(&[]);
    plain.mail(&ReversePath::Null, &MailParameters::default()).unwrap();
    plain.rcpt(&to("c@d.example")).unwrap();
    assert_eq!(sent(&mut plain), "MAIL FROM:<>\r\n");
    assert!(matches!(says(&mut plain, "250 ok\r\n").unwrap().as_slice(), [Event::Mail(_)]));
    assert_eq!(sent(&mut plain), "RCPT TO:<c@d.example>\r\n");
}

/// What is said of the client goes ahead of MAIL, in its group; a refusal of it refuses no mail.
#[test]
fn the_client_is_told_ahead_of_mail_where_that_is_offered() {
    let address = Some("192.0.2.7".parse().unwrap());
    let known = Forwarded { address, helo: Some("a.example".into()), ..Forwarded::default() };
    let mut client = ready(&["PIPELINING", "XFORWARD ADDR HELO"]);
    client.forward(Some(&known));
    client.mail(&ReversePath::Null, &MailParameters::default()).unwrap();
    client.rcpt(&to("c@d.example")).unwrap();
    client.data();
    assert_eq!(
        sent(&mut client),
        "XFORWARD ADDR=192.0.2.7\r\nXFORWARD HELO=a.example\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
    );
    let events = says(&mut client, "250 ok\r\n550 not you\r\n250 ok\r\n250 ok\r\n354 go\r\n").unwrap();
    assert!(matches!(events.as_slice(), [Event::Mail(_), Event::Rcpt(_), Event::GoAhead]), "{events:?}");
    // 421 answers MAIL, and not what went ahead of it.
    let mut client = ready(&["PIPELINING", "XFORWARD ADDR"]);
    client.forward(None);
    client.mail(&ReversePath::Null, &MailParameters::default()).unwrap();
    client.take_output();
    client.input().extend_from_slice(b"421 4.3.2 later\r\n");
    assert!(matches!(client.next_event(), Ok(Some(Event::Mail(reply))) if reply.code == 421));
    let mut client = ready(&["PIPELINING"]);
    client.forward(Some(&known));
    assert_eq!(sent(&mut client), "");
}

#[test]
fn nothing_follows_data_before_its_reply() {
    let mut client = ready(&["PIPELINING"]);
    client.data();
    client.rset();
    assert_eq!(sent(&mut client), "DATA\r\n");
    assert!(matches!(says(&mut client, "554 no valid recipients\r\n").unwrap().as_slice(), [Event::DataRefused(_)]));
    assert_eq!(sent(&mut client), "RSET\r\n");
}

#[test]
fn parameters_are_passed_on_where_offered_and_else_left_out() {
    let parameters = MailParameters {
        size: Some(4096),
        body: Body::EightBitMime,
        smtputf8: false,
        ret: Some(Ret::Headers),
        envid: Some("a b+=é".into()),
        client: None,
    };
    let mut recipient = to("c@d.example");
    recipient.parameters.notify = Some(Notify { success: false, failure: true, delay: true });
    recipient.parameters.orcpt = Some("rfc822;c@d.example".into());
    let mut rich = ready(&["PIPELINING", "SIZE 10000", "8BITMIME", "DSN"]);
    rich.mail(&from("a@b.example"), &parameters).unwrap();
    rich.rcpt(&recipient).unwrap();
    recipient.parameters.notify = Some(Notify { success: false, failure: false, delay: false });
    recipient.parameters.orcpt = Some("rfc822;x\u{a0}".into());
    rich.rcpt(&recipient).unwrap();
    assert_eq!(
        sent(&mut rich),
        "MAIL FROM:<a@b.example> SIZE=4096 BODY=8BITMIME RET=HDRS ENVID=a+20b+2B+3D+C3+A9\r\n\
         RCPT TO:<c@d.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;c@d.example\r\nRCPT TO:<c@d.example> NOTIFY=NEVER\r\n"
    );
    let mut poor = ready(&["PIPELINING"]);
    poor.mail(&from("a@b.example"), &parameters).unwrap();
    poor.rcpt(&recipient).unwrap();
    assert_eq!(sent(&mut poor), "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n");
}

#[test]
fn what_the_server_cannot_take_is_refused_without_asking() {
    let utf8 = MailParameters { smtputf8: true, ..MailParameters::default() };
    let refusal = ready(&[]).mail(&ReversePath::Null, &utf8).unwrap_err();
    assert_eq!((refusal.code, refusal.enhanced), (550, Some(Enhanced(5, 6, 7))));
    let mut client = ready(&["SMTPUTF8", "SIZE 10", "PIPELINING"]);
    let refusal = client.mail(&ReversePath::Null, &MailParameters { size: Some(11), ..utf8.clone() }).unwrap_err();
    assert_eq!(refusal.enhanced, Some(Enhanced(5, 3, 4)));
    client.mail(&ReversePath::Null, &utf8).unwrap();
    client.rcpt(&to("δοκιμή@d.example")).unwrap();
    assert_eq!(sent(&mut client), "MAIL FROM:<> SMTPUTF8\r\nRCPT TO:<δοκιμή@d.example>\r\n");
    let mut client = ready(&["SMTPUTF8"]);
    client.mail(&ReversePath::Null, &MailParameters::default()).unwrap();
    assert_eq!(client.rcpt(&to("δοκιμή@d.example")).unwrap_err().enhanced, Some(Enhanced(5, 6, 7)));
}

#[test]
fn falls_back_to_helo_but_never_without_required_tls() {
    let mut plain = client(StartTls::IfOffered);
    says(&mut plain, "220 old\r\n").unwrap();
    sent(&mut plain);
    assert_eq!(says(&mut plain, "502 what?\r\n"), Ok(vec![]));
    assert_eq!(sent(&mut plain), "HELO gw.example\r\n");
    assert_eq!(says(&mut plain, "250 old\r\n"), Ok(vec![Event::Ready]));
    assert_eq!(plain.offers(), Offers::default());
    let mut strict = client(StartTls::Required);
    says(&mut strict, "220 old\r\n").unwrap();
    assert_eq!(says(&mut strict, "502 what?\r\n"), Err(ClientError::NoTls));
    let mut strict = client(StartTls::Required);
    says(&mut strict, "220 old\r\n").unwrap();
    assert_eq!(says(&mut strict, "250-old\r\n250 SIZE\r\n"), Err(ClientError::NoTls));
}

fn asked_for_tls(tls: StartTls) -> Client {
    let mut client = client(tls);
    assert_eq!(says(&mut client, "220 mx\r\n"), Ok(vec![]));
    assert_eq!(says(&mut client, "250-mx\r\n250-PIPELINING\r\n250-SIZE 10\r\n250 STARTTLS\r\n"), Ok(vec![]));
    assert_eq!(sent(&mut client), "STARTTLS\r\n");
    client
}

#[test]
fn a17_octets_after_the_reply_to_starttls_drop_the_connection() {
    for tls in [StartTls::IfOffered, StartTls::Required] {
        let mut client = asked_for_tls(tls);
        let injected = says(&mut client, "220 go\r\n250-evil\r\n250 AUTH LOGIN\r\n");
        assert_eq!(injected, Err(ClientError::InjectedBeforeTls { octets: 26 }));
        assert_eq!(says(&mut asked_for_tls(tls), "220 go\r\n2"), Err(ClientError::InjectedBeforeTls { octets: 1 }));
    }
}

#[test]
fn after_tls_everything_is_asked_again() {
    let mut client = asked_for_tls(StartTls::Required);
    assert_eq!(says(&mut client, "220 go\r\n"), Ok(vec![Event::StartTls]));
    client.tls_started();
    assert_eq!(client.offers(), Offers::default());
    assert_eq!(sent(&mut client), "EHLO gw.example\r\n");
    // STARTTLS offered again inside TLS is not taken up.
    assert_eq!(says(&mut client, "250-mx\r\n250-8BITMIME\r\n250 STARTTLS\r\n"), Ok(vec![Event::Ready]));
    assert!(client.offers().eight_bit_mime && !client.offers().pipelining && client.offers().size.is_none());
}

#[test]
fn hostile_servers_of_the_corpus() {
    let Some(dir) = crate::outside::corpora() else { return };
    let folder = dir.join("smtp-attack/fake-mail-server/testcases/smtp/Negotiation");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let Some((_, rest)) = text.split_once("stls_response: \"") else { continue };
        let reply = rest.split_once('"').unwrap().0.replace("\\r\\n", "\r\n");
        let opportunistic = says(&mut asked_for_tls(StartTls::IfOffered), &reply);
        let required = says(&mut asked_for_tls(StartTls::Required), &reply);
        assert!(required.is_err(), "{reply:?}");
        if reply.starts_with('3') {
            assert_eq!(opportunistic, Err(ClientError::WrongCode { to: "STARTTLS", code: 354 }));
        } else {
            assert_eq!(opportunistic, Ok(vec![Event::Ready]), "{reply:?}");
        }
        seen += 1;
    }
    assert!(seen >= 4, "{seen} scripts");
}

#[test]
fn wrong_codes_and_words_out_of_turn_end_the_connection() {
    let mut early = client(StartTls::Off);
    assert!(matches!(says(&mut early, "220 hi\r\n250 too early\r\n"), Err(ClientError::Unsolicited { .. })));
    let mut idle = ready(&[]);
    assert!(matches!(says(&mut idle, "250 unasked\r\n"), Err(ClientError::Unsolicited { .. })));
    let mut refused = client(StartTls::Off);
    assert!(matches!(says(&mut refused, "554 go away\r\n"), Err(ClientError::Refused { to: "the connection", .. })));
    let mut odd = client(StartTls::Off);
    assert_eq!(says(&mut odd, "250 hello\r\n"), Err(ClientError::WrongCode { to: "the connection", code: 250 }));
    for (queue, reply, to) in [
        (Client::data as fn(&mut Client), "250 taken already\r\n", "DATA"),
        (Client::rset, "354 go\r\n", "RSET"),
        (|client: &mut Client| client.content_sent(1), "354 go\r\n", "the final dot"),
        (
            |client: &mut Client| client.mail(&ReversePath::Null, &MailParameters::default()).unwrap(),
            "354 go\r\n",
            "MAIL",
        ),
    ] {
        let mut client = ready(&["PIPELINING"]);
        queue(&mut client);
        assert!(matches!(says(&mut client, reply), Err(ClientError::WrongCode { to: at, .. }) if at == to));
    }
}

#[test]
fn r421_answers_all_that_is_open() {
    let mut client = ready(&["PIPELINING"]);
    client.mail(&ReversePath::Null, &MailParameters::default()).unwrap();
    client.rcpt(&to("c@d.example")).unwrap();
    client.data();
    let events = says(&mut client, "250 ok\r\n421 4.3.2 shutting down\r\n").unwrap();
    assert!(
        matches!(events.as_slice(), [Event::Mail(_), Event::Rcpt(a), Event::DataRefused(b), Event::Closed] if a.code == 421 && a == b)
    );
    assert!(!client.is_idle());
}

#[test]
fn r4_lmtp_says_lhlo_and_hears_a_reply_for_each_recipient() {
    let mut client = Client::new(Domain::parse("gw.example").unwrap(), true, StartTls::Off, false);
    says(&mut client, "220 lmtp\r\n").unwrap();
    assert_eq!(sent(&mut client), "LHLO gw.example\r\n");
    assert_eq!(says(&mut client, "250-lmtp\r\n250 PIPELINING\r\n"), Ok(vec![Event::Ready]));
    client.content_sent(2);
    let events = says(&mut client, "250 2.1.5 one\r\n452 4.2.2 full\r\n").unwrap();
    assert!(matches!(events.as_slice(), [Event::Final(a), Event::Final(b)] if a.code == 250 && b.code == 452));
    assert!(client.is_idle());
}

#[test]
fn what_is_said_before_the_final_dot_is_no_yes_to_it() {
    // As an owner does: it asks no further than 354.
    let open = |early: &str| {
        let mut client = ready(&["PIPELINING"]);
        client.mail(&from("a@x.example"), &MailParameters::default()).unwrap();
        client.rcpt(&to("b@y.example")).unwrap();
        client.data();
        sent(&mut client);
        client.input().extend_from_slice(format!("250 a\r\n250 b\r\n354 go\r\n{early}").as_bytes());
        while client.next_event().unwrap() != Some(Event::GoAhead) {}
        client.content_sent(1);
        client
    };
    for (early, late, taken) in
        [("", "250 taken\r\n", true), ("250 taken\r\n", "", false), ("250 tak", "en\r\n", false)]
    {
        let mut client = open(early);
        let heard = says(&mut client, late);
        assert_eq!(matches!(heard.as_deref(), Ok([Event::Final(_)])), taken, "{early:?}: {heard:?}");
    }
    // A refusal that comes early is one.
    let mut client = open("552 too");
    let heard = says(&mut client, " big\r\n");
    assert!(matches!(heard.as_deref(), Ok([Event::Final(reply)]) if reply.code == 552), "{heard:?}");
}
