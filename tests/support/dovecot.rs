//! A Dovecot of its own that takes mail by LMTP: in a temporary folder, on a free port, ended with its handle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::directory::{free_port, wait_for};
use crate::outside;

/// Nobody's number, where root runs it: Dovecot delivers no mail as root.
const NOBODY: u32 = 65_534;

pub struct Dovecot {
    pub address: SocketAddr,
    mail: PathBuf,
    child: Child,
    _folder: TempDir,
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        // Its other processes end with it.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        for _ in 0..100 {
            if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Dovecot {
    /// With these mailboxes; `None`: there is no Dovecot here.
    pub fn start(mailboxes: &[&str]) -> Option<Self> {
        let lmtp = Path::new("/usr/lib/dovecot/lmtp").is_file();
        if !outside::peers(&["dovecot"]) || !outside::is_here(lmtp, "dovecot-lmtpd") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let mail = at.join("mail");
        std::fs::create_dir(&mail).unwrap();
        let (mut uid, mut gid) = std::fs::metadata(&mail).map(|data| (data.uid(), data.gid())).unwrap();
        let own = if uid == 0 {
            (uid, gid) = (NOBODY, NOBODY);
            chown(&mail, Some(uid), Some(gid)).unwrap();
            std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o755)).unwrap();
            String::new()
        } else {
            let name = |kind: &str| {
                let output = Command::new("id").arg(kind).output().unwrap();
                String::from_utf8(output.stdout).unwrap().trim().to_owned()
            };
            let (user, group) = (name("-un"), name("-gn"));
            format!("default_internal_user = {user}\ndefault_internal_group = {group}\ndefault_login_user = {user}\n")
        };
        let users: String =
            mailboxes.iter().map(|one| format!("{one}::{uid}:{gid}::{}/{one}::\n", mail.display())).collect();
        std::fs::write(at.join("users"), users).unwrap();
        for _ in 0..5 {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let log = at.join("log");
            std::fs::write(at.join("dovecot.conf"), configuration(at, address, &own, uid)).unwrap();
            let mut child = Command::new(outside::find("dovecot").unwrap())
                .args(["-F", "-c", at.join("dovecot.conf").to_str().unwrap()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(at.join("stderr")).unwrap())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(200));
            if child.try_wait().unwrap().is_none() {
                wait_for(address, &mut child);
                return Some(Self { address, mail, child, _folder: folder });
            }
            for file in [log, at.join("stderr")] {
                eprintln!("{}", std::fs::read_to_string(file).unwrap_or_default());
            }
        }
        panic!("Dovecot does not start");
    }

    /// The mails that a mailbox has.
    pub fn mails(&self, mailbox: &str) -> Vec<String> {
        let new = self.mail.join(mailbox).join("Maildir/new");
        let files = std::fs::read_dir(new).into_iter().flatten().filter_map(Result::ok);
        files.map(|file| String::from_utf8_lossy(&std::fs::read(file.path()).unwrap()).into_owned()).collect()
    }
}

fn configuration(at: &Path, address: SocketAddr, own: &str, uid: u32) -> String {
    let folder = at.display();
    format!(
        "{own}base_dir = {folder}/run\nstate_dir = {folder}/state\nlog_path = {folder}/log\nprotocols = lmtp\nssl = no\n\
         first_valid_uid = {uid}\nmail_location = maildir:~/Maildir\nlmtp_save_to_detail_mailbox = no\n\
         passdb {{\n  driver = passwd-file\n  args = username_format=%u {folder}/users\n}}\n\
         userdb {{\n  driver = passwd-file\n  args = username_format=%u {folder}/users\n}}\n\
         service anvil {{\n  chroot =\n}}\nservice stats {{\n  chroot =\n}}\n\
         service lmtp {{\n  inet_listener lmtp {{\n    address = {}\n    port = {}\n  }}\n}}\n",
        address.ip(),
        address.port()
    )
}
