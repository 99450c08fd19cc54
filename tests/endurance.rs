//! What clients, disks and numbers can do to a gateway: full disks, clients that go or do not listen, a thousand recipients, a long spool.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use support::house::{House, Plan, plain};
use support::{Client, Sink};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use waxwing::address::{Mailbox, ReversePath};
use waxwing::config::{Direction, HopTls, NextHop};
use waxwing::mime::rope::Rope;
use waxwing::smtp::command::{Envelope, MailParameters, RcptParameters, Recipient};
use waxwing::spool::{Folder, Limits, NewEntry, Spool};

const ANNA: &str = "anna@ours.example";
const PASS: &str = "[default]\npass = true\n";

/// A small file system of its own; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(at).output();
        mounted.is_ok_and(|done| done.status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t06_a_full_disk_is_452_within_a_second_and_mends_itself() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&folder.path().join("small")) else {
        println!("skipped: this process may not mount a file system");
        return;
    };
    let (world, server) = (Sink::start().await, Sink::start().await);
    let (hop_out, hop_in) = (world.address, server.address);
    let spool =
        format!("delivery = \"queue\"\nspool = {{ folder = \"{}/spool\", reserve = \"64 KiB\" }}\n", disk.0.display());
    let plan = Plan { policy: PASS, top: &spool, ..Plan::default() };
    let house = House::between(&plan, world, server, hop_out, hop_in).await;
    let body = "a line of the body\r\n".repeat(1000);
    assert_eq!(house.send_out(ANNA, &["x@b.example"], &plain(ANNA, "x@b.example", "first", &body)).await.code, 250);
    house.world.wait(1).await;
    let free = 1024 * 1024;
    std::fs::write(disk.0.join("filler"), vec![0; free]).unwrap_err();
    let began = Instant::now();
    let mut refused = 0;
    for number in 0..5 {
        let mail = plain(ANNA, "x@b.example", &format!("refused{number}"), &body);
        let said = house.send_out(ANNA, &["x@b.example"], &mail).await;
        assert!(matches!(said.code, 250 | 452), "{said:?}");
        refused += usize::from(said.octets.starts_with("452 4.3.1"));
    }
    assert!(refused >= 4 && began.elapsed() < Duration::from_secs(5), "{refused} in {:?}", began.elapsed());
    assert_eq!(house.submit().await.say(&format!("MAIL FROM:<{ANNA}>")).await.code, 452, "refused at MAIL");
    let before = house.world.mails().len();
    std::fs::remove_file(disk.0.join("filler")).unwrap();
    let mail = plain(ANNA, "x@b.example", "after", &body);
    let took_again = tokio::time::timeout(Duration::from_secs(10), async {
        while house.send_out(ANNA, &["x@b.example"], &mail).await.code != 250 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    took_again.await.expect("it takes mail again when there is room");
    house.world.wait(before + 1).await;
    house.settled().await;
    let subjects = |what: &str| house.world.mails().iter().filter(|mail| mail.text().contains(what)).count();
    assert_eq!((subjects("Subject: first"), subjects("Subject: after")), (1, 1));
    assert_eq!(subjects("Subject: refused"), 5 - refused, "what was refused does not come all the same");
    assert!(house.gateway.shut_down(Duration::from_secs(5)).await);
    drop(disk);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closes_its_side_after_the_final_dot_hears_the_answer() {
    for delivery in ["cut-through", "queue"] {
        let house =
            House::build(&Plan { policy: PASS, top: &format!("delivery = \"{delivery}\"\n"), ..Plan::default() }).await;
        let mut stream = std::net::TcpStream::connect(house.out()).unwrap();
        let mut heard = tokio::task::spawn_blocking(move || {
            use std::io::{Read, Write};
            let mut greeting = [0; 512];
            assert_ne!(stream.read(&mut greeting).unwrap(), 0);
            stream.write_all(b"EHLO c\r\n").unwrap();
            assert_ne!(stream.read(&mut greeting).unwrap(), 0);
            write!(stream, "MAIL FROM:<{ANNA}>\r\nRCPT TO:<x@b.example>\r\nDATA\r\n").unwrap();
            let mut so_far = String::new();
            while !so_far.contains("354 ") {
                let octets = stream.read(&mut greeting).unwrap();
                so_far.push_str(&String::from_utf8_lossy(&greeting[..octets]));
            }
            write!(stream, "Subject: half\r\n\r\nbody\r\n.\r\n").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut rest = String::new();
            stream.read_to_string(&mut rest).unwrap();
            rest
        });
        let rest = (&mut heard).await.unwrap();
        assert!(rest.starts_with("250 "), "{delivery}: {rest}");
        assert_eq!(house.world.wait(1).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_is_cut_and_costs_no_other() {
    let policy = format!("[limits]\ncommand_timeout = \"1 s\"\n{PASS}");
    let house = House::build(&Plan { policy: &policy, ..Plan::default() }).await;
    let mut deaf = TcpStream::connect(house.out()).await.unwrap();
    let mut heard = String::new();
    for (say, end) in [("", "220 "), ("EHLO c\r\n", "250 ")] {
        deaf.write_all(say.as_bytes()).await.unwrap();
        while !heard.contains(end) {
            let mut octets = [0; 512];
            let count = deaf.read(&mut octets).await.unwrap();
            heard.push_str(&String::from_utf8_lossy(&octets[..count]));
        }
    }
    // Replies that are not read end the session: there are only so many without a mail, and each write has its time.
    let commands = b"NOOP\r\n".repeat(500);
    let mut cut = false;
    let began = Instant::now();
    while !cut && began.elapsed() < Duration::from_secs(30) {
        let write = deaf.write_all(&commands);
        cut = matches!(tokio::time::timeout(Duration::from_secs(20), write).await, Ok(Err(_)));
    }
    assert!(cut, "still connected");
    assert_eq!(house.send_out(ANNA, &["x@b.example"], &plain(ANNA, "x@b.example", "other", "body")).await.code, 250);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_recipients_are_one_mail() {
    for delivery in ["cut-through", "queue"] {
        let house =
            House::build(&Plan { policy: PASS, top: &format!("delivery = \"{delivery}\"\n"), ..Plan::default() }).await;
        let all: Vec<String> = (0..1000).map(|number| format!("user{number}@b.example")).collect();
        let to: Vec<&str> = all.iter().map(String::as_str).collect();
        let said = house.send_out(ANNA, &to, &plain(ANNA, "all@b.example", "many", "body")).await;
        assert_eq!(said.code, 250, "{delivery}: {}", said.octets);
        let mails = house.world.wait(1).await;
        assert_eq!((mails.len(), mails[0].to.len()), (1, 1000), "{delivery}");
        house.settled().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_header_lines_are_answered_and_the_session_goes_on() {
    let house = House::with_policy(PASS).await;
    let mut client: Client = house.submit().await;
    let folded = format!("X-Folded: {}\r\n", "a folded line\r\n ".repeat(20_000));
    for field in [format!("X-Long: {}\r\n", "x".repeat(5_000_000)), folded, "X: y\r\n".repeat(100_000)] {
        let message = format!("{field}{}", plain(ANNA, "x@b.example", "long", "body"));
        let said = client.send(ANNA, &["x@b.example"], message.as_bytes()).await;
        assert!(matches!(said.code, 250 | 550), "{}", said.octets);
    }
    let count = house.world.mails().len();
    assert_eq!(client.send(ANNA, &["x@b.example"], plain(ANNA, "x@b.example", "s", "b").as_bytes()).await.code, 250);
    house.world.wait(count + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_entries_come_back_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Spool::open(Arc::new(Folder::open(folder.path()).unwrap()), Limits::default()).unwrap();
    let (spool, _) = open();
    let entry = |number: usize| {
        let envelope = Envelope {
            reverse_path: ReversePath::Null,
            parameters: MailParameters::default(),
            recipients: vec![Recipient {
                mailbox: Mailbox::parse(&format!("u{number}@b.example")).unwrap(),
                parameters: RcptParameters::default(),
            }],
        };
        let hop = NextHop { tls: HopTls::Off, ..NextHop::new("mx", 25) };
        NewEntry::new(envelope, hop, Direction::Outbound, Rope::from(Bytes::from(vec![b'x'; 10_000])))
    };
    for hundred in 0..100 {
        spool.commit((0..100).map(|number| entry(hundred * 100 + number)).collect()).await.unwrap();
    }
    drop(spool);
    // The folder is let go by the writer's thread.
    let let_go = tokio::time::timeout(Duration::from_secs(30), async {
        while Folder::open(folder.path()).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let_go.await.expect("the folder is let go");
    let began = Instant::now();
    let (spool, recovered) = open();
    println!("10,000 entries of 10 kB recovered in {:?}", began.elapsed());
    assert_eq!((recovered.entries, recovered.damage.len(), spool.entries().len()), (10_000, 0, 10_000));
}
