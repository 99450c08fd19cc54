use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::address::{Mailbox, ReversePath};
use crate::config::{HopTls, Retry};
use crate::smtp::command::{Enhanced, MailParameters, RcptParameters};

/// What a server expects (the start of a line; "." is the content and its end) and answers. "" closes, "?" stays silent.
type Script = Vec<(&'static str, &'static str)>;

const HELLO: [(&str, &str); 2] = [("", "220 mx\r\n"), ("EHLO", "250-mx\r\n250-PIPELINING\r\n250 SIZE 100000000\r\n")];

fn script(steps: &[(&'static str, &'static str)]) -> Script {
    HELLO.iter().chain(steps).copied().collect()
}

/// Plays one script per connection; gives the contents received.
async fn server(scripts: Vec<Script>) -> (NextHop, JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hop = NextHop { tls: HopTls::Off, ..NextHop::new("127.0.0.1", listener.local_addr().unwrap().port()) };
    let task = tokio::spawn(async move {
        let mut contents = Vec::new();
        for script in scripts {
            let (socket, _) = listener.accept().await.unwrap();
            play(BufReader::new(socket), script, &mut contents).await;
        }
        contents
    });
    (hop, task)
}

async fn play(mut socket: BufReader<TcpStream>, script: Script, contents: &mut Vec<Vec<u8>>) {
    for (expected, answer) in script {
        if expected == "." {
            let mut content = Vec::new();
            while content != b".\r\n" && !content.ends_with(b"\r\n.\r\n") {
                content.push(socket.read_u8().await.unwrap());
            }
            contents.push(content);
        } else if !expected.is_empty() {
            let mut line = String::new();
            socket.read_line(&mut line).await.unwrap();
            assert!(line.starts_with(expected), "{line:?} is not {expected:?}");
        }
        match answer {
            "" => return,
            "?" => std::future::pending().await,
            _ => socket.write_all(answer.as_bytes()).await.unwrap(),
        }
    }
    let _ = socket.read(&mut [0; 1]).await;
}

fn hops(milliseconds: u64) -> Hops {
    let all = Duration::from_millis(milliseconds);
    let waits = HopWaits { connect: all, greeting: all, command: all, all };
    Hops::new(Domain::parse("gw.example").unwrap(), waits, Health::new(&Retry::default()), Roots::none())
}

async fn begin(hops: &Hops, hop: &NextHop) -> HopTransaction {
    match hops.begin(&hop.clone().into(), ReversePath::Null, MailParameters::default()).await {
        Begun::Open(begun) => *begun,
        Begun::None(why) => panic!("{why}"),
    }
}

fn envelope(count: usize) -> Envelope {
    let one = |number| Recipient {
        mailbox: Mailbox::parse(&format!("u{number}@b.example")).unwrap(),
        parameters: RcptParameters::default(),
    };
    Envelope {
        reverse_path: ReversePath::Null,
        parameters: MailParameters::default(),
        recipients: (0..count).map(one).collect(),
    }
}

fn mail(text: &'static str) -> Rope {
    Rope::from(Bytes::from_static(text.as_bytes()))
}

fn codes(replies: &[Reply]) -> Vec<u16> {
    replies.iter().map(|reply| reply.code).collect()
}

/// One RCPT, and its answer.
async fn rcpt(through: &mut HopTransaction, recipient: &Recipient) -> Result<Reply, HopError> {
    let (mut replies, result) = through.rcpts(&[recipient]).await;
    result.map(|()| replies.remove(0))
}

#[tokio::test]
async fn a_mail_goes_out_pipelined_and_the_connection_is_used_again() {
    let one = [
        ("MAIL FROM:<>", "250 a\r\n"),
        ("RCPT", "250 b\r\n"),
        ("RCPT", "550 c\r\n"),
        ("DATA", "354 d\r\n"),
        (".", "250 e\r\n"),
    ];
    let (hop, server) = server(vec![script(&[one, one].concat())]).await;
    let hops = hops(5000);
    for _ in 0..2 {
        let replies = hops.deliver(&hop, &envelope(2), &mail("a\r\n.b\r\n")).await.unwrap().replies;
        assert_eq!(codes(&replies), [250, 550]);
    }
    drop(hops);
    assert_eq!(server.await.unwrap(), vec![b"a\r\n..b\r\n.\r\n".to_vec(); 2]);
}

#[tokio::test]
async fn nobody_accepted_sends_nothing_but_a_lone_dot() {
    let steps = [
        ("MAIL", "250 a\r\n"),
        ("RCPT", "550 c\r\n"),
        ("DATA", "354 d\r\n"),
        (".", "554 e\r\n"),
        ("RSET", "250 f\r\n"),
    ];
    let again = [("MAIL", "452 a\r\n"), ("RCPT", "503 c\r\n"), ("DATA", "503 d\r\n")];
    let (hop, server) = server(vec![script(&[&steps[..], &again].concat())]).await;
    let hops = hops(5000);
    assert_eq!(codes(&hops.deliver(&hop, &envelope(1), &mail("secret")).await.unwrap().replies), [550]);
    assert_eq!(codes(&hops.deliver(&hop, &envelope(1), &mail("secret")).await.unwrap().replies), [452]);
    drop(hops);
    assert_eq!(server.await.unwrap(), vec![b".\r\n".to_vec()]);
}

#[tokio::test]
async fn r5_lost_or_silent_after_the_dot_is_unknown_and_before_is_not_taken() {
    let data = [("MAIL", "250 a\r\n"), ("RCPT", "250 b\r\n"), ("DATA", "354 d\r\n")];
    for (end, unknown) in
        [((".", ""), true), ((".", "?"), true), ((".", "250-half a reply\r\n"), true), ((".", "354 what\r\n"), true)]
    {
        let (hop, _server) = server(vec![script(&[&data[..], &[end]].concat())]).await;
        let error = hops(300).deliver(&hop, &envelope(1), &mail("x\r\n")).await.unwrap_err();
        assert_eq!(matches!(error, HopError::Unknown { .. }), unknown, "{end:?}: {error}");
    }
    let closes: [&[(&str, &str)]; 5] = [
        &[("MAIL", "")],
        &[("MAIL", "250 a\r\n"), ("RCPT", "?")],
        &[("MAIL", "250 a\r\n"), ("RCPT", "250 b\r\n"), ("DATA", "")],
        &[("MAIL", "250 a\r\n"), ("RCPT", "250 b\r\n"), ("DATA", "250 too early\r\n")],
        &[("MAIL", "250 a\n")],
    ];
    for steps in closes {
        let (hop, _server) = server(vec![script(steps)]).await;
        let error = hops(300).deliver(&hop, &envelope(1), &mail("x\r\n")).await.unwrap_err();
        assert!(matches!(error, HopError::NotTaken { .. }), "{steps:?}: {error}");
    }
}

#[tokio::test]
async fn r5_cut_through_tells_unknown_from_not_taken_too() {
    let begun = [("MAIL", "250 a\r\n"), ("RCPT", "250 b\r\n")];
    for (rest, unknown) in [(&[("DATA", "354 d\r\n"), (".", "")][..], true), (&[("DATA", "")][..], false)] {
        let (hop, _server) = server(vec![script(&[&begun[..], rest].concat())]).await;
        let mut transaction = begin(&hops(1000), &hop).await;
        assert_eq!(rcpt(&mut transaction, &envelope(1).recipients[0]).await.unwrap().code, 250);
        let error = transaction.data(&mail("x\r\n")).await.unwrap_err();
        assert_eq!(matches!(error, HopError::Unknown { .. }), unknown, "{rest:?}");
    }
}

#[tokio::test]
async fn r6_a_next_hop_that_does_not_read_is_given_up_before_the_dot() {
    let (hop, _server) =
        server(vec![script(&[("MAIL", "250 a\r\n"), ("RCPT", "250 b\r\n"), ("DATA", "354 d\r\n"), ("", "?")])]).await;
    let big = Rope::from(Bytes::from(b"0123456789abcdef\r\n".repeat(2_000_000)));
    let error = hops(300).deliver(&hop, &envelope(1), &big).await.unwrap_err();
    assert!(matches!(error, HopError::NotTaken { .. }), "{error}");
}

#[tokio::test]
async fn a_stale_kept_connection_is_replaced_once() {
    let one = [("MAIL", "250 a\r\n"), ("RCPT", "250 b\r\n"), ("DATA", "354 d\r\n"), (".", "250 e\r\n")];
    // The first connection dies at the second MAIL, the second ends with 421 at its second MAIL.
    let first = script(&[&one[..], &[("MAIL", "")]].concat());
    let second = script(&[&one[..], &[("MAIL", "421 too many\r\n")]].concat());
    let (hop, server) = server(vec![first, second, script(&one)]).await;
    let hops = hops(5000);
    for _ in 0..3 {
        assert_eq!(codes(&hops.deliver(&hop, &envelope(1), &mail("x\r\n")).await.unwrap().replies), [250]);
    }
    drop(hops);
    assert_eq!(server.await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_stale_kept_connection_is_replaced_in_cut_through() {
    let one = [("MAIL", "250 a\r\n"), ("RCPT", "250 b\r\n"), ("DATA", "354 d\r\n"), (".", "250 e\r\n")];
    let busy = script(&[&one[..], &[("MAIL", "250 a\r\n"), ("RCPT", "421 b\r\n")]].concat());
    let (hop, server) = server(vec![script(&[&one[..], &[("MAIL", "")]].concat()), busy, script(&one)]).await;
    let hops = hops(5000);
    for _ in 0..3 {
        let mut transaction = begin(&hops, &hop).await;
        assert!(rcpt(&mut transaction, &envelope(1).recipients[0]).await.unwrap().is_positive());
        assert_eq!(codes(&transaction.data(&mail("x\r\n")).await.unwrap()), [250]);
    }
    drop(hops);
    server.await.unwrap();
}

#[tokio::test]
async fn r2_cut_through_gives_each_rcpt_its_answer_and_a_dropped_transaction_is_reset() {
    let steps = [
        ("MAIL", "250 a\r\n"),
        ("RCPT", "550 no\r\n"),
        ("RCPT", "250 b\r\n"),
        ("RSET", "250 r\r\n"),
        ("MAIL", "550 m\r\n"),
        ("RCPT", "503 x\r\n"),
    ];
    let (hop, server) = server(vec![script(&steps)]).await;
    let hops = hops(5000);
    let recipients = envelope(2).recipients;
    let mut transaction = begin(&hops, &hop).await;
    assert_eq!(rcpt(&mut transaction, &recipients[0]).await.unwrap().code, 550);
    assert_eq!(rcpt(&mut transaction, &recipients[1]).await.unwrap().code, 250);
    drop(transaction);
    let mut transaction = begin(&hops, &hop).await;
    assert_eq!(rcpt(&mut transaction, &recipients[0]).await.unwrap().lines, ["m"]);
    drop((transaction, hops));
    server.await.unwrap();
}

#[tokio::test]
async fn r2_rcpts_that_come_together_are_pipelined_and_each_gets_its_own_answer() {
    // What is answered at the third would never come if each waited for the one before.
    let steps = [
        ("MAIL", "250 a\r\n"),
        ("RCPT TO:<u0@", "2"),
        ("RCPT TO:<u1@", "50 b"),
        ("RCPT TO:<u2@", "\r\n550 c\r\n250 d\r\n"),
        ("DATA", "354 e\r\n"),
        (".", "250 f\r\n"),
        ("MAIL", "450 g\r\n"),
        ("RCPT", "503 h\r\n"),
        ("RCPT", "503 h\r\n"),
    ];
    let (hop, server) = server(vec![script(&steps)]).await;
    let hops = hops(5000);
    let recipients = envelope(3).recipients;
    let all: Vec<_> = recipients.iter().collect();
    let mut through = begin(&hops, &hop).await;
    let (replies, result) = through.rcpts(&all).await;
    assert_eq!((codes(&replies), result), (vec![250, 550, 250], Ok(())));
    assert_eq!(codes(&through.data(&mail("x\r\n")).await.unwrap()), [250, 250]);
    let mut through = begin(&hops, &hop).await;
    let (replies, result) = through.rcpts(&all[..2]).await;
    assert_eq!((codes(&replies), result), (vec![450, 450], Ok(())), "MAIL's refusal holds for all");
    drop((through, hops));
    server.await.unwrap();
}

#[tokio::test]
async fn r2_a_connection_lost_among_rcpts_leaves_the_answers_that_came() {
    let begun = [("MAIL", "250 a\r\n"), ("RCPT", "250 b\r\n")];
    for last in [("RCPT", ""), ("RCPT", "421 c\r\n")] {
        let (hop, _server) = server(vec![script(&[&begun[..], &[last]].concat())]).await;
        let mut through = begin(&hops(5000), &hop).await;
        let recipients = envelope(3).recipients;
        let (replies, result) = through.rcpts(&recipients.iter().collect::<Vec<_>>()).await;
        let said = codes(&replies);
        assert_eq!(said, if last.1.is_empty() { vec![250] } else { vec![250, 421] });
        assert!(matches!(result, Err(HopError::NotTaken { .. })), "{result:?}");
    }
}

#[tokio::test]
async fn r4_lmtp_answers_for_each_recipient_and_the_lost_ones_are_put_off() {
    let hello = [("", "220 l\r\n"), ("LHLO", "250-l\r\n250 PIPELINING\r\n")];
    let steps = [
        ("MAIL", "250 a\r\n"),
        ("RCPT", "250 b\r\n"),
        ("RCPT", "550 c\r\n"),
        ("RCPT", "250 d\r\n"),
        ("DATA", "354 d\r\n"),
    ];
    for (end, expected) in [("250 one\r\n452 two\r\n", [250, 550, 452]), ("250 one\r\n4", [250, 550, 451])] {
        let (mut hop, _server) = server(vec![[&hello[..], &steps, &[(".", end)]].concat()]).await;
        hop.lmtp = true;
        assert_eq!(codes(&hops(500).deliver(&hop, &envelope(3), &mail("x\r\n")).await.unwrap().replies), expected);
    }
}

/// A server that says more than was asked, and a hello without PIPELINING.
const ONE_BY_ONE: [(&str, &str); 2] = [("", "220 mx\r\n"), ("EHLO", "250-mx\r\n250 8BITMIME\r\n")];

#[tokio::test]
async fn no_content_without_354_when_a_server_says_421_on_its_own() {
    let steps = [("MAIL", "250 a\r\n"), ("RCPT", "250 b\r\n421 going down\r\n")];
    let (hop, server) = server(vec![[&ONE_BY_ONE[..], &steps, &[("SECRET", "")]].concat()]).await;
    let result = hops(500).deliver(&hop, &envelope(1), &mail("SECRET as a command\r\n")).await;
    assert!(matches!(result, Err(HopError::NotTaken { .. })), "{result:?}");
    assert!(server.await.unwrap_err().is_panic(), "the server was sent the content as commands");
}

/// A clear-signed mail whose signature was made over 8-bit octets.
const SIGNED: &str = "From: a@b.example\r\nMIME-Version: 1.0\r\nContent-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; boundary=s\r\n\r\n\
    --s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ngr\u{fc}n\r\n--s\r\n\
    Content-Type: application/pkcs7-signature\r\nContent-Transfer-Encoding: base64\r\n\r\nMIAGCSqGSIb3DQEHAqCA\r\n--s--\r\n";

#[tokio::test]
async fn a16_eight_bit_content_is_encoded_anew_for_a_hop_without_8bitmime() {
    let steps = [("MAIL FROM:<>", "250 a\r\n"), ("RCPT", "250 b\r\n"), ("DATA", "354 c\r\n"), (".", "250 d\r\n")];
    let (hop, server) = server(vec![script(&[steps, steps, steps].concat())]).await;
    let pool = hops(5000);
    let plain = mail("Subject: gr\u{fc}n\r\nReceived: by x\r\n\r\ngr\u{fc}n\r\n.\r\n");
    assert_eq!(codes(&pool.deliver(&hop, &envelope(1), &plain).await.unwrap().replies), [250]);
    let mut through = begin(&pool, &hop).await;
    assert_eq!(rcpt(&mut through, &envelope(1).recipients[0]).await.unwrap().code, 250);
    assert_eq!(codes(&through.data(&plain).await.unwrap()), [250]);
    // Octets that travel as base64 are no 8-bit content.
    let mut encoded = Rope::new();
    encoded.push_base64(&b"\xff"[..]);
    assert_eq!(codes(&pool.deliver(&hop, &envelope(1), &encoded).await.unwrap().replies), [250]);
    drop(pool);
    let contents = server.await.unwrap();
    assert_eq!(contents[2], b"/w==\r\n.\r\n");
    for content in &contents[..2] {
        let text = std::str::from_utf8(content).unwrap();
        assert!(text.is_ascii(), "{text}");
        let message = mail_parser::MessageParser::default().parse(text.strip_suffix("\r\n.\r\n").unwrap()).unwrap();
        assert_eq!(message.subject(), Some("gr\u{fc}n"));
        assert_eq!(message.body_text(0).unwrap().trim_end_matches(".\r\n"), "gr\u{fc}n\r\n");
        assert!(text.contains("Received: by x\r\n"), "{text}");
    }
}

#[tokio::test]
async fn a16_what_is_signed_in_eight_bit_comes_back_and_is_never_changed() {
    let refused = |replies: &[Reply]| {
        replies.len() == 1 && replies.iter().all(|reply| (reply.code, reply.enhanced) == (554, Some(Enhanced(5, 6, 3))))
    };
    let rest = [("MAIL", "250 a\r\n"), ("RCPT", "250 b\r\n"), ("RSET", "250 r\r\n")];
    let sent = [("MAIL", "250 a\r\n"), ("RCPT", "250 b\r\n"), ("DATA", "354 c\r\n"), (".", "250 d\r\n")];
    let (hop, server) = server(vec![script(&[&rest[..], &sent].concat())]).await;
    let pool = hops(5000);
    let signed = mail(SIGNED);
    assert!(refused(&pool.deliver(&hop, &envelope(1), &signed).await.unwrap().replies));
    let mut through = begin(&pool, &hop).await;
    assert_eq!(rcpt(&mut through, &envelope(1).recipients[0]).await.unwrap().code, 250);
    assert!(refused(&through.data(&signed).await.unwrap()));
    // Signed in 7 bit, with a field beside it that is not: the field is encoded, what is signed keeps its octets.
    let good = SIGNED.replace("gr\u{fc}n", "gruen  ").replace("8bit", "7bit");
    let beside = Rope::from(Bytes::from(format!("Subject: gr\u{fc}n\r\n{good}")));
    assert_eq!(codes(&pool.deliver(&hop, &envelope(1), &beside).await.unwrap().replies), [250]);
    drop(pool);
    let content = String::from_utf8(server.await.unwrap().remove(0)).unwrap();
    let body = good.split_once("\r\n\r\n").unwrap().1;
    assert!(content.is_ascii() && content.contains(body), "{content}");
}

#[tokio::test]
async fn a16_smtputf8_is_asked_for_only_where_something_needs_it() {
    let sent = [("MAIL FROM:<>", "250 a\r\n"), ("RCPT", "250 b\r\n"), ("DATA", "354 c\r\n"), (".", "250 d\r\n")];
    let hello = [("", "220 mx\r\n"), ("EHLO", "250-mx\r\n250-8BITMIME\r\n250 PIPELINING\r\n")];
    let rest = [("MAIL", "250 a\r\n"), ("RCPT", "250 b\r\n"), ("RSET", "250 r\r\n")];
    let (hop, _server) = server(vec![[&hello[..], &sent, &sent, &rest, &sent].concat()]).await;
    let pool = hops(5000);
    let mut declared = envelope(1);
    declared.parameters.smtputf8 = true;
    let ascii = mail("Subject: x\r\n\r\ngr\u{fc}n\r\n");
    assert_eq!(codes(&pool.deliver(&hop, &declared, &ascii).await.unwrap().replies), [250]);
    let parts = mail(
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ngr\u{fc}n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n\
         Subject: x\r\n\r\ngr\u{fc}n\r\n--b--\r\n",
    );
    assert_eq!(codes(&pool.deliver(&hop, &declared, &parts).await.unwrap().replies), [250]);
    let needs = |replies: &[Reply]| replies.iter().all(|reply| reply.enhanced == Some(Enhanced(5, 6, 7)));
    let field = mail("Subject: gr\u{fc}n\r\n\r\nx\r\n");
    assert!(needs(&pool.deliver(&hop, &declared, &field).await.unwrap().replies));
    let deep = Rope::from(Bytes::from(
        String::from_utf8(parts.to_bytes().to_vec()).unwrap().replace("Subject: x", "Subject: \u{fc}"),
    ));
    assert!(needs(&pool.deliver(&hop, &declared, &deep).await.unwrap().replies));
    let mut recipient = declared.clone();
    recipient.recipients[0].mailbox = Mailbox::parse("gr\u{fc}n@b.example").unwrap();
    assert!(needs(&pool.deliver(&hop, &recipient, &ascii).await.unwrap().replies));
    // Straight through it is known at the content only.
    for (content, code) in [(&field, 550), (&ascii, 250)] {
        let route = hop.clone().into();
        let Begun::Open(mut through) = pool.begin(&route, ReversePath::Null, declared.parameters.clone()).await else {
            panic!("not begun");
        };
        assert_eq!(rcpt(&mut through, &envelope(1).recipients[0]).await.unwrap().code, 250);
        assert_eq!(codes(&through.data(content).await.unwrap()), [code]);
    }
}

#[tokio::test]
async fn eight_bit_content_is_declared_whatever_the_client_said() {
    let steps =
        [("MAIL FROM:<> BODY=8BITMIME", "250 a\r\n"), ("RCPT", "250 b\r\n"), ("DATA", "354 c\r\n"), (".", "250 d\r\n")];
    let (hop, _server) = server(vec![[&ONE_BY_ONE[..], &steps].concat()]).await;
    assert_eq!(
        codes(&hops(5000).deliver(&hop, &envelope(1), &mail("Subject: x\r\n\r\ngr\u{fc}n\r\n")).await.unwrap().replies),
        [250]
    );
}

#[tokio::test]
async fn r3_an_lmtp_hop_that_falls_silent_after_its_first_answer_keeps_that_answer() {
    let hello = [("", "220 l\r\n"), ("LHLO", "250 l\r\n")];
    let steps = [("MAIL", "250 a\r\n"), ("RCPT", "250 b\r\n"), ("RCPT", "250 c\r\n"), ("DATA", "354 d\r\n")];
    let (mut hop, _server) = server(vec![[&hello[..], &steps, &[(".", "250 one\r\n"), ("", "?")]].concat()]).await;
    hop.lmtp = true;
    let pool = hops(600);
    let mut through = begin(&pool, &hop).await;
    for recipient in &envelope(2).recipients {
        assert_eq!(rcpt(&mut through, recipient).await.unwrap().code, 250);
    }
    let within = Duration::from_millis(600);
    let replies = tokio::time::timeout(within, through.data(&mail("x\r\n"))).await;
    assert_eq!(codes(&replies.expect("before the caller's own deadline").unwrap()), [250, 451]);
}

#[tokio::test]
async fn tls_is_never_left_out_where_required() {
    for tls in [HopTls::Required, HopTls::Verified] {
        for steps in
            [&HELLO[..], &[("", "220 m\r\n"), ("EHLO", "250-m\r\n250 STARTTLS\r\n"), ("STARTTLS", "454 later\r\n")]]
        {
            let (mut hop, _server) = server(vec![steps.to_vec()]).await;
            hop.tls = tls;
            let error = hops(1000).deliver(&hop, &envelope(1), &mail("x\r\n")).await.unwrap_err();
            assert!(matches!(error, HopError::Unreachable { .. }));
        }
    }
}

#[tokio::test]
async fn opportunistic_goes_on_in_clear_after_a_failed_handshake_and_a17_holds() {
    let tls = [("", "220 m\r\n"), ("EHLO", "250-m\r\n250 STARTTLS\r\n"), ("STARTTLS", "220 go\r\n")];
    let one = [("MAIL", "250 a\r\n"), ("RCPT", "250 b\r\n"), ("DATA", "354 d\r\n"), (".", "250 e\r\n")];
    let injected =
        [("", "220 m\r\n"), ("EHLO", "250-m\r\n250 STARTTLS\r\n"), ("STARTTLS", "220 go\r\n250 injected\r\n")];
    let (mut hop, _server) = server(vec![injected.to_vec()]).await;
    hop.tls = HopTls::Opportunistic;
    assert!(hops(1000).deliver(&hop, &envelope(1), &mail("x\r\n")).await.is_err());
    let (mut hop, server) = server(vec![tls.to_vec(), script(&one)]).await;
    hop.tls = HopTls::Opportunistic;
    assert_eq!(codes(&hops(5000).deliver(&hop, &envelope(1), &mail("x\r\n")).await.unwrap().replies), [250]);
    drop(server);
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_the_content_is_heard() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hop = NextHop { tls: HopTls::Off, ..NextHop::new("localhost", listener.local_addr().unwrap().port()) };
    let server = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut socket = BufReader::new(socket);
        let steps = script(&[("MAIL", "250 a\r\n"), ("RCPT", "250 b\r\n"), ("DATA", "354 d\r\n552 5.3.4 too big\r\n")]);
        for (expected, answer) in steps {
            if !expected.is_empty() {
                socket.read_line(&mut String::new()).await.unwrap();
            }
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
        std::future::pending::<()>().await;
    });
    let big = Rope::from(Bytes::from(b"0123456789abcdef\r\n".repeat(2_000_000)));
    let result = hops(500).deliver(&hop, &envelope(1), &big).await;
    assert!(
        matches!(&result, Ok(said) if codes(&said.replies) == [552])
            || matches!(result, Err(HopError::NotTaken { .. })),
        "{result:?}"
    );
    server.abort();
}
