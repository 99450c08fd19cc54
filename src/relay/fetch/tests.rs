use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::outside::corpora;

/// Answers each connection with the same octets, and counts them.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn answering(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let mut head = vec![0; 2048];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(&answer).await;
                open.push(stream);
            }
        });
        Self { address, asked, task }
    }

    async fn serving(body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        Self::answering([head.as_bytes(), body].concat()).await
    }

    fn need(&self) -> Need {
        Need::Crl { uri: format!("http://{}/a.crl", self.address) }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn fetcher(limits: Fetch) -> Arc<Fetcher> {
    Arc::new(Fetcher::new(Fetch {
        private_addresses: true,
        timeout: limits.timeout.max(Duration::from_secs(20)),
        ..limits
    }))
}

fn crl() -> Option<Vec<u8>> {
    let folder = corpora()?.join("pkits/crls");
    Some(std::fs::read(folder.join("GoodCACRL.crl")).unwrap())
}

#[tokio::test]
async fn a_crl_is_fetched_once_however_many_wait_for_it() {
    let Some(crl) = crl() else { return };
    let server = Server::serving(&crl).await;
    let fetcher = fetcher(Fetch::default());
    let need = server.need();
    assert!(fetcher.at_hand(std::slice::from_ref(&need)).crls.is_empty());
    let waiting: JoinSet<bool> = (0..20)
        .map(|_| {
            let (fetcher, need) = (fetcher.clone(), need.clone());
            async move { fetcher.fetch(vec![need], Timestamp::now()).await }
        })
        .collect();
    assert!(waiting.join_all().await.into_iter().all(|new| new));
    assert_eq!(server.asked(), 1);
    assert_eq!(fetcher.at_hand(std::slice::from_ref(&need)).crls[0].der().as_ref(), crl);
    assert!(!fetcher.fetch(vec![need], Timestamp::now()).await);
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn a_failure_is_not_tried_again_at_once() {
    for answer in [
        &b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        b"nonsense\r\n\r\n",
    ] {
        let server = Server::answering(answer.to_vec()).await;
        let fetcher = fetcher(Fetch::default());
        assert!(!fetcher.fetch(vec![server.need()], Timestamp::now()).await);
        assert!(!fetcher.fetch(vec![server.need()], Timestamp::now()).await);
        assert_eq!(server.asked(), 1);
        assert!(fetcher.at_hand(&[server.need()]).crls.is_empty());
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let Some(crl) = crl() else { return };
    let server = Server::serving(&crl).await;
    let fetcher = fetcher(Fetch { size: crl.len() as u64 - 1, ..Fetch::default() });
    assert!(!fetcher.fetch(vec![server.need()], Timestamp::now()).await);
}

/// However many places mails name, so many are asked at once: 8 for one mail, 32 for all.
#[tokio::test]
async fn a11_fetches_at_once_are_bounded_for_a_mail_and_for_all() {
    let Some(crl) = crl() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Nobody is answered before the test says so, one permit an answer.
    let answers = Arc::new(Semaphore::new(0));
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (going, counted, peak) = (answers.clone(), open.clone(), most.clone());
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            peak.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let (going, counted, crl) = (going.clone(), counted.clone(), crl.clone());
            tokio::spawn(async move {
                let _ = stream.read(&mut vec![0; 2048]).await;
                going.acquire().await.unwrap().forget();
                counted.fetch_sub(1, Ordering::SeqCst);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", crl.len());
                let _ = stream.write_all(&[head.as_bytes(), &crl].concat()).await;
            });
        }
    });
    let until = async |wanted: usize| {
        let reached = async {
            while open.load(Ordering::SeqCst) < wanted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), reached).await.unwrap();
    };
    let fetcher = fetcher(Fetch { timeout: Duration::from_secs(60), ..Fetch::default() });
    let mail = |number: usize| {
        let places = (0..20).map(|place| Need::Crl { uri: format!("http://{address}/{number}/{place}.crl") }).collect();
        let fetcher = fetcher.clone();
        tokio::spawn(async move { fetcher.fetch(places, Timestamp::now()).await })
    };
    let first = mail(0);
    until(AT_ONCE_FOR_ONE).await;
    answers.add_permits(20);
    assert!(first.await.unwrap());
    assert_eq!(most.load(Ordering::SeqCst), AT_ONCE_FOR_ONE);
    let others: Vec<_> = (1..8).map(mail).collect();
    until(AT_ONCE).await;
    answers.add_permits(7 * 20);
    for other in others {
        assert!(other.await.unwrap());
    }
    assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
    server.abort();
}

/// One that stalls takes its time from nobody but those who need it, and from them no more than the limit.
#[tokio::test]
async fn a_server_that_stalls_holds_up_nobody_else() {
    let Some(crl) = crl() else { return };
    let stalls = Server::answering(Vec::new()).await;
    let good = Server::serving(&crl).await;
    let limits = Fetch { private_addresses: true, timeout: Duration::from_millis(300), ..Fetch::default() };
    let fetcher = Arc::new(Fetcher::new(limits));
    let (one, other) = tokio::join!(
        fetcher.fetch(vec![stalls.need()], Timestamp::now()),
        fetcher.fetch(vec![good.need(), stalls.need()], Timestamp::now())
    );
    assert_eq!((one, other), (false, true));
}

/// Who comes after the one that waited finds that nothing came, for whatever certificate of the same host: he does not wait again.
#[tokio::test]
async fn a_host_that_stalls_is_waited_for_once() {
    let stalls = Server::answering(Vec::new()).await;
    let limits = Fetch { private_addresses: true, timeout: Duration::from_millis(300), ..Fetch::default() };
    let fetcher = Arc::new(Fetcher::new(limits));
    let first = stalls.need();
    assert!(!fetcher.fetch(vec![first.clone()], Timestamp::now()).await);
    // The one who asked has gone on; that nothing came is noted a moment later.
    let noted = async {
        while fetcher.tried(&first).is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), noted).await.unwrap();
    let failed = |need: &Need| fetcher.tried(need).and_then(|tried| tried.failed).unwrap();
    assert!(failed(&first).contains("no answer within"));
    let other = Need::Crl { uri: format!("http://{}/other.crl", stalls.address) };
    assert!(!fetcher.fetch(vec![first, other.clone()], Timestamp::now()).await);
    assert_eq!(stalls.asked(), 1);
    assert!(failed(&other).contains("just now"), "{}", failed(&other));
}

/// Answers that carry another nonce than the request, or none.
#[tokio::test]
async fn an_answer_to_another_request_is_refused_by_its_nonce() {
    if !crate::outside::peers(&["openssl", "sh"]) {
        return;
    }
    let (certificate, issuer, plain, with_nonce) = crate::pki::revocation::tests::answers();
    for (answer, nonce, taken) in [
        (&plain, Nonce::Off, true),
        (&plain, Nonce::Prefer, true),
        (&plain, Nonce::Require, false),
        (&with_nonce, Nonce::Off, true),
        (&with_nonce, Nonce::Prefer, false),
        (&with_nonce, Nonce::Require, false),
    ] {
        let server = Server::serving(answer).await;
        let fetcher = fetcher(Fetch { nonce, ..Fetch::default() });
        let uri = format!("http://{}/", server.address);
        let need = Need::Ocsp { uri, certificate: certificate.clone(), issuer: issuer.clone() };
        assert_eq!(fetcher.fetch(vec![need.clone()], Timestamp::now()).await, taken, "{nonce:?}");
        assert_eq!(fetcher.at_hand(&[need]).ocsp.len(), usize::from(taken));
    }
}

#[tokio::test]
async fn private_addresses_are_not_asked_unless_allowed() {
    let Some(crl) = crl() else { return };
    let server = Server::serving(&crl).await;
    let fetcher = Arc::new(Fetcher::new(Fetch::default()));
    assert!(!fetcher.fetch(vec![server.need()], Timestamp::now()).await);
    let by_name = Need::Crl { uri: format!("http://localhost:{}/a.crl", server.address.port()) };
    assert!(!fetcher.fetch(vec![by_name], Timestamp::now()).await);
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn a_redirection_is_followed_and_judged_like_any_address() {
    let Some(crl) = crl() else { return };
    let server = Server::serving(&crl).await;
    let to = |location: String| format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
    let redirects = Server::answering(to(format!("http://{}/b.crl", server.address)).into()).await;
    assert!(fetcher(Fetch::default()).fetch(vec![redirects.need()], Timestamp::now()).await);
    let elsewhere = Server::answering(to("https://example.org/".to_owned()).into()).await;
    assert!(!fetcher(Fetch::default()).fetch(vec![elsewhere.need()], Timestamp::now()).await);
}

#[test]
fn public_addresses() {
    for private in [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.0",
        "100.64.0.1",
        "192.0.0.8",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "2001:db8::1",
        "fec0::1",
        "::7f00:1",
    ] {
        assert!(!is_public(private.parse().unwrap()), "{private}");
    }
    for public in ["9.9.9.9", "100.63.0.1", "2620:fe::fe", "2001:4860:4860::8888", "64:ff9b::909:909"] {
        assert!(is_public(public.parse().unwrap()), "{public}");
    }
}
