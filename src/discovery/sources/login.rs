//! Directories that say who a user is: his password by a bind as himself, and the addresses that are his.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::ldap::{Connection, Directory, Trouble, good, seconds};
use crate::address::Mailbox;
use crate::config::LdapUsers;
use crate::discovery::ldap::{self, Entry, Outcome};

/// invalidCredentials (RFC 4511 appendix A.1): wrong password, or no such entry.
const INVALID_CREDENTIALS: u32 = 49;
/// noSuchObject, inappropriateAuthentication, invalidDNSyntax, unwillingToPerform: said to a bind, nobody can be it.
const NOT_HE: [u32; 4] = [INVALID_CREDENTIALS, 32, 48, 34];
/// In the place of an entry that there is not, so that it takes the same time.
const NOBODY: &str = "cn=there is no such user";

/// What a directory says to a name and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// It is he.
    Yes {
        /// His name: the one he gave, where it is an address of his; else his first address; else the name of his entry.
        user: String,
        /// His addresses.
        addresses: Arc<[Mailbox]>,
    },
    /// It is not: the name of the entry that was tried; or there is no such user: empty.
    No(String),
    /// He may not try now.
    NotNow,
}

/// A directory of users.
pub struct Logins {
    directory: Directory,
    settings: LdapUsers,
}

impl Logins {
    /// With these settings.
    ///
    /// # Errors
    /// The CAs cannot be read.
    pub fn new(settings: &LdapUsers) -> Result<Self, String> {
        Ok(Self { directory: Directory::new(&settings.ldap)?, settings: settings.clone() })
    }

    /// Whether the password is the user's, within the time for it. `may_try` is asked with the name of an entry before its password is
    /// tried: several names may lead to one entry.
    ///
    /// # Errors
    /// The directory does not say; the reason is for the log.
    pub async fn log_in(
        &self,
        user: &Mailbox,
        password: &[u8],
        may_try: impl Fn(&str) -> bool + Send + Sync,
    ) -> Result<Login, String> {
        // An empty password would be anonymous, and succeed (RFC 4513 section 5.1.2).
        if password.is_empty() {
            return Ok(Login::No(String::new()));
        }
        let mut turns = self.directory.turns(self.settings.timeout);
        while let Some((server, time)) = turns.next_one() {
            let asked = async {
                let mut connection = self.directory.connection(server).await?;
                let login = self.one(&mut connection, user, password, seconds(time), &may_try).await?;
                // No answer to it, and none is needed.
                let _ = connection.send(&ldap::unbind(connection.next())).await;
                Ok(login)
            };
            let asked = tokio::time::timeout(time, asked).await;
            if let ControlFlow::Break(answer) = turns.heard(asked.map_err(|_| time)) {
                return answer;
            }
        }
        Err(turns.why)
    }

    async fn one(
        &self,
        connection: &mut Connection,
        user: &Mailbox,
        password: &[u8],
        seconds: u32,
        may_try: &(impl Fn(&str) -> bool + Send + Sync),
    ) -> Result<Login, Trouble> {
        let (settings, size) = (&self.settings.ldap, self.settings.size);
        let found = match &self.settings.dn {
            Some(_) => None,
            None => {
                self.directory.introduce(connection).await?;
                let (id, base) = (connection.next(), settings.base_for(user.domain()));
                connection.send(&ldap::search_addresses(id, &base, &settings.filter, user, seconds)).await?;
                Some(single(connection.entries(id, size).await?)?)
            }
        };
        let dn = match (&found, self.settings.dn_for(user)) {
            (Some(entry), _) => entry.dn.clone(),
            (None, Some(dn)) => dn,
            (None, None) => NOBODY.to_owned(),
        };
        let exists = dn != NOBODY;
        if exists && !may_try(&dn) {
            return Ok(Login::NotNow);
        }
        if !is_he(&connection.bind(&dn, password).await?)? || !exists {
            return Ok(Login::No(Some(dn).filter(|_| exists).unwrap_or_default()));
        }
        let addresses = match found {
            Some(entry) => entry.addresses(),
            // By himself: what he may not read, we do not know.
            None => {
                let id = connection.next();
                connection.send(&ldap::addresses_of(id, &dn, seconds)).await?;
                let entries = connection.entries(id, size).await;
                entries.unwrap_or_default().first().map(Entry::addresses).unwrap_or_default()
            }
        };
        Ok(named(user, &dn, addresses))
    }
}

/// The entry of the user; one that nobody can be where there is none.
fn single(mut entries: Vec<Entry>) -> Result<Entry, Trouble> {
    match (entries.pop(), entries.is_empty()) {
        (None, _) => Ok(Entry { dn: NOBODY.to_owned(), ..Entry::default() }),
        (Some(entry), true) if !entry.dn.is_empty() => Ok(entry),
        _ => Err(Trouble::Answer("more than one entry for a user: base and filter have to find one".to_owned())),
    }
}

fn is_he(outcome: &Outcome) -> Result<bool, Trouble> {
    if NOT_HE.contains(&outcome.code) {
        return Ok(false);
    }
    good(outcome, "bind of a user").map(|()| true)
}

/// What he calls himself counts only where the directory says that it is his: a login that is found by its local part alone could name
/// another's mailbox.
fn named(user: &Mailbox, dn: &str, addresses: Vec<Mailbox>) -> Login {
    let own = addresses.iter().any(|one| one.key() == user.key());
    let name = match addresses.first() {
        _ if own => user.to_string(),
        Some(first) => first.to_string(),
        None => dn.to_owned(),
    };
    Login::Yes { user: name, addresses: addresses.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a31_a_login_is_its_own_name_only_where_the_directory_says_so() {
        let mailbox = |text: &str| Mailbox::parse(text).unwrap();
        let name = |login: &str, addresses: &[&str]| match named(
            &mailbox(login),
            "uid=anna,dc=example",
            addresses.iter().map(|one| mailbox(one)).collect(),
        ) {
            Login::Yes { user, .. } => user,
            other => panic!("{other:?}"),
        };
        assert_eq!(name("Anna@a.example", &["x@a.example", "anna@a.example"]), "Anna@a.example");
        assert_eq!(name("anna@boss.example", &["anna@a.example"]), "anna@a.example");
        assert_eq!(name("anna@boss.example", &[]), "uid=anna,dc=example");
    }
}
