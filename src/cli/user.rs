//! `waxwing user`: the file of those who may authenticate.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;
use zeroize::Zeroizing;

use super::{CommandResult, Failure, NOT_GOOD, PasswordArgs, print_table, shown};
use crate::config::{User, Users};
use crate::relay::listen::{password_hash, password_verifier};
use crate::store::keyring::ask;

/// Arguments of `waxwing user`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put a user into the file, or give him another password, which is asked for where it is not given. Only hashes of it are kept: Argon2id, and a verifier for SCRAM-SHA-256.
    ///
    /// `waxwing config reload` has a gateway at work read the file again.
    #[command(
        after_help = "Examples:\n  waxwing user set /etc/waxwing/users anna@example.org\n  waxwing user set /etc/waxwing/users anna@example.org --password-file pw.txt"
    )]
    Set {
        /// The file that `users` of a listener names; made where there is none.
        file: PathBuf,
        /// His name: best his mailbox, whose key he may sign with.
        name: String,
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Take a user out.
    #[command(after_help = "Example:\n  waxwing user remove /etc/waxwing/users anna@example.org")]
    Remove {
        /// The file.
        file: PathBuf,
        /// His name.
        name: String,
    },
    /// List who is in the file.
    #[command(after_help = "Example:\n  waxwing user list /etc/waxwing/users --json")]
    List {
        /// The file.
        file: PathBuf,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub fn run(args: Args) -> CommandResult {
    match args.command {
        Command::Set { file, name, password } => set(&file, &name, &password),
        Command::Remove { file, name } => {
            let mut users = read(&file)?;
            if !users.remove(&name) {
                println!("{} is not in {}", shown(&name), file.display());
                return Ok(ExitCode::from(NOT_GOOD));
            }
            write(&file, &users)?;
            println!("{} is out of {}; `waxwing config reload` makes it hold", shown(&name), file.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::List { file, json } => {
            list(&read(&file)?, json);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn set(file: &Path, name: &str, given: &PasswordArgs) -> CommandResult {
    let mut users = if file.exists() { read(file)? } else { Users::default() };
    let password = password(name, given)?;
    let no_hash = || Failure::new("the password cannot be hashed here", "is there too little memory (64 MiB)?");
    let user =
        User { argon2: password_hash(password.as_bytes()).ok_or_else(no_hash)?, scram: password_verifier(&password) };
    let before = users.set(name, user).map_err(|expected| Failure::new(format!("{}: {expected}", shown(name)), ""))?;
    write(file, &users)?;
    let what = if before { "has another password in" } else { "is in" };
    println!("{} {what} {}; `waxwing config reload` makes it hold", shown(name), file.display());
    Ok(ExitCode::SUCCESS)
}

fn password(name: &str, given: &PasswordArgs) -> Result<Zeroizing<String>, Failure> {
    let password = match given.read()? {
        Some(password) => password,
        None => {
            let first = ask(&format!("Password of {}: ", shown(name)))?;
            if *ask("Once more: ")? != *first {
                return Err(Failure::new("the two passwords differ", "run it again"));
            }
            first
        }
    };
    let fits = (8..=255).contains(&password.len()) && !password.chars().any(char::is_control);
    if fits {
        Ok(password)
    } else {
        Err(Failure::new("a password of 8 to 255 octets is expected", "choose a longer one"))
    }
}

fn list(users: &Users, json: bool) {
    let mechanisms = |user: &User| match user.scram {
        Some(_) => vec!["SCRAM-SHA-256", "PLAIN", "LOGIN"],
        None => vec!["PLAIN", "LOGIN"],
    };
    if json {
        let rows: Vec<_> =
            users.iter().map(|(name, user)| json!({"name": name, "mechanisms": mechanisms(user)})).collect();
        println!("{:#}", json!(rows));
    } else {
        let rows: Vec<_> = users.iter().map(|(name, user)| vec![shown(name), mechanisms(user).join(" ")]).collect();
        print_table(&["NAME", "MECHANISMS"], &rows);
    }
}

fn read(file: &Path) -> Result<Users, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(format!("{}: {error}", file.display()), "`waxwing user set` makes the file"))?;
    Users::parse(&text).map_err(|(line, expected)| {
        Failure::new(
            format!("{}, line {line}: expected {expected}", file.display()),
            "mend the line by hand; nothing was changed",
        )
    })
}

/// Whole or not at all; for the owner alone, since passwords can be tried against it.
fn write(file: &Path, users: &Users) -> Result<(), Failure> {
    let mut draft = file.as_os_str().to_owned();
    draft.push(".draft");
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", file.display()), "nothing was changed");
    let mut out =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft).map_err(failed)?;
    out.write_all(users.to_string().as_bytes()).and_then(|()| out.sync_all()).map_err(failed)?;
    std::fs::rename(&draft, file).map_err(failed)
}
