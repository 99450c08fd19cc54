//! What the service manager is told (sd_notify(3)): ready, reloading, stopping, alive, and how it goes.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Tells the service manager; where there is none, nobody. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Notifier {
    to: Option<Arc<(UnixDatagram, SocketAddr)>>,
    /// How often it wants to hear that we are alive, at least.
    pub(super) watchdog: Option<Duration>,
}

impl Notifier {
    /// By `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    ///
    /// # Errors
    /// There is a service manager, and it cannot be spoken to.
    pub(super) fn from_env() -> io::Result<Self> {
        let var = |name: &str| std::env::var(name).ok();
        let meant = var("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = var("WATCHDOG_USEC").filter(|_| meant).and_then(|micros| micros.parse().ok());
        Self::new(var("NOTIFY_SOCKET").as_deref(), watchdog.map(Duration::from_micros))
    }

    fn new(socket: Option<&str>, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match socket {
            None | Some("") => return Ok(Self::default()),
            // An abstract name.
            Some(name) => match name.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name)?,
                None => SocketAddr::from_pathname(name)?,
            },
        };
        let to = Some(Arc::new((UnixDatagram::unbound()?, address)));
        Ok(Self { to, watchdog: watchdog.filter(|often| !often.is_zero()) })
    }

    /// Mail is taken.
    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    /// The configuration is read again; [`Self::ready`] follows.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// It ends; that may take so long.
    pub(super) fn stopping(&self, grace: Duration) {
        let micros = grace.saturating_add(Duration::from_secs(10)).as_micros();
        self.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}"));
    }

    /// How it goes, in one line.
    pub(super) fn status(&self, status: &str) {
        let line: String = status.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect();
        self.tell(&format!("STATUS={line}"));
    }

    /// It is alive.
    pub(super) fn alive(&self) {
        if self.watchdog.is_some() {
            self.tell("WATCHDOG=1");
        }
    }

    /// Whether anybody is told.
    pub(super) fn is_heard(&self) -> bool {
        self.to.is_some()
    }

    fn tell(&self, what: &str) {
        let Some(to) = &self.to else { return };
        let (socket, address) = &**to;
        if let Err(error) = socket.send_to_addr(what.as_bytes(), address) {
            tracing::warn!(%error, what, "the service manager cannot be told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(socket: &UnixDatagram) -> String {
        let mut octets = [0; 1024];
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let length = socket.recv(&mut octets).unwrap();
        String::from_utf8(octets[..length].to_vec()).unwrap()
    }

    fn says_all(notifier: &Notifier, socket: &UnixDatagram) {
        notifier.ready();
        assert_eq!(hear(socket), "READY=1");
        notifier.reloading();
        let reloading = hear(socket);
        let (first, clock) = reloading.split_once('\n').unwrap();
        assert_eq!(first, "RELOADING=1");
        assert!(clock.strip_prefix("MONOTONIC_USEC=").unwrap().parse::<u64>().unwrap() > 0);
        notifier.status("a\nREADY=0 b");
        assert_eq!(hear(socket), "STATUS=a READY=0 b", "one line, whatever it says");
        notifier.alive();
        assert_eq!(hear(socket), "WATCHDOG=1");
        notifier.stopping(Duration::from_secs(30));
        assert_eq!(hear(socket), "STOPPING=1\nEXTEND_TIMEOUT_USEC=40000000");
    }

    #[test]
    fn a_socket_in_the_file_system_hears_all_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        says_all(&Notifier::new(path.to_str(), Some(Duration::from_secs(1))).unwrap(), &socket);
    }

    #[test]
    fn an_abstract_socket_hears_all_of_it() {
        let name = format!("waxwing-test-{}-{:?}", std::process::id(), std::thread::current().id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        says_all(&Notifier::new(Some(&format!("@{name}")), Some(Duration::from_secs(1))).unwrap(), &socket);
    }

    #[test]
    fn without_a_service_manager_nobody_is_told_and_without_a_watchdog_nobody_is_woken() {
        let nobody = Notifier::new(None, Some(Duration::from_secs(1))).unwrap();
        nobody.ready();
        assert!(!nobody.is_heard() && nobody.watchdog.is_none());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(path.to_str(), None).unwrap();
        notifier.alive();
        notifier.ready();
        assert_eq!(hear(&socket), "READY=1");
    }
}
