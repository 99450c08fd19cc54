//! The hosts in a domain's MX (RFC 5321 section 5.1). P.

use crate::address::Domain;

/// Hosts that are looked at.
const HOSTS: usize = 16;

/// What a domain's MX records say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchange {
    /// There are none: the domain itself takes mail, if it has an address.
    Implicit,
    /// It takes no mail at all (RFC 7505).
    Null,
    /// These hosts, by preference; none: the records name nothing that can be a host.
    Hosts(Vec<(u16, String)>),
}

/// Reads records, given as preference and host in text without the final dot. Names that are no host names are left out, and of the others
/// those beyond 16; a host that stands there twice counts once, with its lower preference.
pub fn exchange(records: impl IntoIterator<Item = (u16, String)>) -> Exchange {
    let mut records: Vec<(u16, String)> = records.into_iter().collect();
    match records.as_slice() {
        [] => return Exchange::Implicit,
        // RFC 7505 section 3: alone, and the root.
        [(_, root)] if root.is_empty() => return Exchange::Null,
        _ => {}
    }
    records.sort();
    let mut hosts: Vec<(u16, String)> = Vec::new();
    for (preference, name) in records {
        let Ok(name) = Domain::parse(&name) else { continue };
        if !name.is_literal() && !hosts.iter().any(|(_, known)| known == name.as_str()) {
            hosts.push((preference, name.as_str().to_owned()));
        }
    }
    hosts.truncate(HOSTS);
    Exchange::Hosts(hosts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(records: &[(u16, &str)]) -> Exchange {
        exchange(records.iter().map(|(preference, name)| (*preference, (*name).to_owned())))
    }

    fn hosts(hosts: &[(u16, &str)]) -> Exchange {
        Exchange::Hosts(hosts.iter().map(|(preference, name)| (*preference, (*name).to_owned())).collect())
    }

    #[test]
    fn hosts_stand_by_preference_and_a_null_mx_stands_alone() {
        assert_eq!(read(&[]), Exchange::Implicit);
        assert_eq!(read(&[(0, "")]), Exchange::Null);
        assert_eq!(read(&[(0, ""), (10, "a.example")]), hosts(&[(10, "a.example")]));
        let several = [(20, "b.example"), (10, "A.example"), (30, "a.example"), (10, "c.example")];
        assert_eq!(read(&several), hosts(&[(10, "a.example"), (10, "c.example"), (20, "b.example")]));
    }

    #[test]
    fn what_is_no_host_name_is_left_out_and_many_are_cut() {
        assert_eq!(read(&[(1, "a b.example"), (1, "a\\000.example"), (1, "-"), (1, "[127.0.0.1]")]), hosts(&[]));
        let many: Vec<(u16, String)> = (0..500).map(|number| (number, format!("h{number}.example"))).collect();
        let Exchange::Hosts(kept) = exchange(many) else { panic!() };
        assert_eq!((kept.len(), kept[0].1.as_str()), (HOSTS, "h0.example"));
    }

    proptest! {
        #[test]
        fn any_names_give_host_names_or_none(names in prop::collection::vec((any::<u16>(), any::<String>()), 0..40)) {
            if let Exchange::Hosts(hosts) = exchange(names) {
                prop_assert!(hosts.len() <= HOSTS && hosts.is_sorted_by_key(|(preference, _)| *preference));
                prop_assert!(hosts.iter().all(|(_, name)| Domain::parse(name).is_ok_and(|one| one.as_str() == name)));
            }
        }
    }
}
