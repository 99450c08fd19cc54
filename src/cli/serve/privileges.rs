//! What the gateway gives up before it reads a key: core dumps, root, and the files that it has no business with (A24, A25).
//!
//! All of it is done while there is one thread: what the kernel bars holds for threads that are begun later.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus,
};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Group, Uid, User, geteuid, initgroups, setresgid, setresuid};
use socket2::{Domain, Protocol, Socket, Type};

use crate::cli::Failure;
use crate::config::{Config, KekSources, Landlock, ListenTls, Run};

/// What the rules are written for; an older kernel enforces what it knows of them.
const RULES: ABI = ABI::V5;
/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;
/// What programs read that ask for names, for the time, and whose certificate it is.
const SYSTEM: [&str; 10] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/proc",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
    "/dev/urandom",
    "/run/systemd/resolve",
    "/var/lib/ca-certificates",
];

/// What was given up, for the log.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    /// Sockets that were taken before.
    pub(super) sockets: Vec<TcpListener>,
    /// In words.
    pub(super) words: Vec<String>,
}

/// Takes the addresses where that needs who we are now, and gives the rest up.
pub(super) fn give_up(config: &Config, file: &Path) -> Result<GivenUp, Failure> {
    let mut given = GivenUp::default();
    if !config.run.core_dumps {
        no_core_dumps()?;
        given.words.push("no core dumps".to_owned());
    }
    if let Some(user) = &config.run.user {
        given.sockets = addresses(config).into_iter().map(bind).collect::<Result<_, _>>()?;
        given.words.push(become_user(user, &config.run)?);
        if !config.run.core_dumps {
            // Another user's process is as it was before: said again.
            no_core_dumps()?;
        }
    }
    if config.run.landlock != Landlock::Off {
        given.words.push(bar_files(config, file)?);
    }
    Ok(given)
}

fn no_core_dumps() -> Result<(), Failure> {
    let failed = |error: nix::Error| {
        Failure::new(
            format!("core dumps cannot be switched off: {error}"),
            "core_dumps = true under [run] leaves them as they are",
        )
    };
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(failed)?;
    // Nobody but root may look into this process either.
    prctl::set_dumpable(false).map_err(failed)
}

/// Every address of the configuration but those that are free to choose.
fn addresses(config: &Config) -> Vec<SocketAddr> {
    let watched = config.metrics.iter().map(|metrics| metrics.listen);
    let all = config.listeners.iter().map(|listener| listener.address).chain(watched);
    all.filter(|address| address.port() != 0).collect::<BTreeSet<_>>().into_iter().collect()
}

fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    let bound = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        std::io::Result::Ok(socket.into())
    };
    bound().map_err(|error| {
        Failure::new(
            format!("cannot listen on {address}: {error}"),
            "another program may have the address (look with: ss -ltnp); change the listener in the configuration",
        )
    })
}

fn become_user(name: &str, run: &Run) -> Result<String, Failure> {
    let unknown = |what: &str, name: &str| {
        Failure::new(format!("[run] {what} = \"{name}\": there is no such {what}"), "make it, or name another")
    };
    let failed = |error: nix::Error| {
        Failure::new(
            format!("[run] user = \"{name}\": cannot become this user: {error}"),
            "start it as root, or as this user",
        )
    };
    let user = User::from_name(name).map_err(failed)?.ok_or_else(|| unknown("user", name))?;
    let group = match &run.group {
        None => user.gid,
        Some(group) => Group::from_name(group).map_err(failed)?.ok_or_else(|| unknown("group", group))?.gid,
    };
    if geteuid() == user.uid {
        return Ok(format!("user {name} it is already"));
    }
    let plain = CString::new(name).map_err(|_| unknown("user", name))?;
    initgroups(&plain, group).map_err(failed)?;
    setresgid(group, group, group).map_err(failed)?;
    setresuid(user.uid, user.uid, user.uid).map_err(failed)?;
    // A way back would be no step down.
    if !user.uid.is_root() && setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
        return Err(Failure::new(
            format!("[run] user = \"{name}\": root could be had again"),
            "this is a defect of the system",
        ));
    }
    Ok(format!("user {name}"))
}

/// Folders that are read, and those that are written.
#[derive(Debug, Default, PartialEq, Eq)]
struct Folders {
    read: BTreeSet<PathBuf>,
    write: BTreeSet<PathBuf>,
}

impl Folders {
    fn of(config: &Config, file: &Path) -> Self {
        let mut folders = Self::default();
        let mut reads = |file: &Path| {
            folders.read.insert(folder_of(file));
        };
        reads(file);
        for kek in config.kek.iter() {
            match KekSources::credential(kek) {
                None => reads(kek),
                Some(name) => {
                    let place = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
                    place.iter().for_each(|place| reads(&place.join(name)));
                }
            }
        }
        for listener in &config.listeners {
            if let ListenTls::StartTls { certificate, key, .. } | ListenTls::Implicit { certificate, key } =
                &listener.tls
            {
                reads(certificate);
                reads(key);
            }
            let tenant = listener.tenant.as_ref().and_then(|tenant| tenant.certificate.as_ref());
            tenant.into_iter().for_each(|certificate| reads(&certificate.ca));
            listener.ldap_users.iter().flat_map(|users| users.files()).for_each(&mut reads);
        }
        let hops = config.named_hosts().flat_map(|(_, route)| route.hops());
        hops.filter_map(|hop| hop.hop.ca.as_deref()).for_each(&mut reads);
        config.by_mx().filter_map(|(_, way)| way.ca.as_deref()).for_each(&mut reads);
        config.direct.trust_anchor.iter().chain(&config.direct.mta_sts_ca).for_each(|file| reads(file));
        if let Some(etcd) = &config.etcd {
            let password = etcd.user.iter().map(|(_, file)| file);
            let identity = etcd.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
            etcd.ca.iter().chain(password).chain(identity).for_each(|file| reads(file));
        }
        config.dkim.iter().for_each(|one| reads(&one.key));
        config.discovery.iter().flat_map(|source| source.files()).for_each(reads);
        folders.read.extend(config.run.folders.iter().cloned());
        folders.write.extend([config.store.clone(), config.spool.clone(), folder_of(&config.control)]);
        folders.write.extend(config.audit.iter().map(|audit| folder_of(&audit.file)));
        folders.write.extend(config.run.folders.iter().cloned());
        folders
    }
}

/// Files are replaced by others under the same name, so that the folder is what is named.
fn folder_of(file: &Path) -> PathBuf {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Files whose text the configuration is made of: lists of addresses, users.
fn read_for(file: &Path) -> Vec<PathBuf> {
    let read = std::cell::RefCell::new(Vec::new());
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let reader = |path: &Path| {
        // They are named from the configuration's folder.
        let path = folder_of(file).join(path);
        read.borrow_mut().push(path.clone());
        std::fs::read_to_string(&path).map_err(|error| error.to_string())
    };
    // It was read before: what is wrong was said.
    drop(Config::parse(&text, "", &reader));
    read.into_inner()
}

fn bar_files(config: &Config, file: &Path) -> Result<String, Failure> {
    let required = config.run.landlock == Landlock::Require;
    let mut folders = Folders::of(config, file);
    folders.read.extend(read_for(file).iter().map(|listed| folder_of(listed)));
    // Its first start makes the spool, and its copy of a shared store: a rule for what is not there cannot be made.
    for folder in std::iter::once(&config.spool).chain(config.etcd.iter().map(|_| &config.store)) {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| Failure::new(format!("folder {}: {error}", folder.display()), ""))?;
    }
    let status = restrict(&folders, required).map_err(|error| {
        Failure::new(
            format!("[run] landlock: files cannot be barred: {error}"),
            "landlock = \"where-possible\" under [run] goes on without, where the kernel cannot",
        )
    })?;
    match status {
        RulesetStatus::NotEnforced if required => Err(Failure::new(
            "[run] landlock = \"require\": this kernel has no Landlock",
            "start it under a kernel that has it, or write landlock = \"where-possible\"",
        )),
        RulesetStatus::NotEnforced => Ok("no files are barred: this kernel has no Landlock".to_owned()),
        RulesetStatus::PartiallyEnforced => Ok("files of others are barred, as far as this kernel can".to_owned()),
        RulesetStatus::FullyEnforced => Ok("files of others are barred".to_owned()),
    }
}

fn restrict(folders: &Folders, required: bool) -> Result<RulesetStatus, landlock::RulesetError> {
    let level = if required { CompatLevel::SoftRequirement } else { CompatLevel::BestEffort };
    let (all, read) = (AccessFs::from_all(RULES), AccessFs::ReadFile | AccessFs::ReadDir);
    let write = all & !AccessFs::Execute & !AccessFs::MakeChar & !AccessFs::MakeBlock & !AccessFs::IoctlDev;
    let mut rules = Ruleset::default().set_compatibility(level).handle_access(all)?.create()?;
    let system = SYSTEM.iter().map(Path::new);
    let reads = system.chain(folders.read.iter().map(PathBuf::as_path)).map(|path| (path, read));
    let writes = folders.write.iter().map(|path| (path.as_path(), write));
    for (path, access) in reads.chain(writes) {
        // What is not there needs no rule.
        let Ok(place) = PathFd::new(path) else { continue };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(RULES) };
        rules = rules.add_rule(PathBeneath::new(place, access))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

#[cfg(test)]
mod tests;
