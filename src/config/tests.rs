use std::path::Path;
use std::time::Duration;

use super::*;

const DOCUMENTED: &str = include_str!("../../docs/waxwing.toml");

fn no_files(path: &Path) -> Result<String, String> {
    Err(format!("no file {}", path.display()))
}

fn parse(text: &str) -> Result<Config, Vec<ConfigError>> {
    Config::parse(text, "waxwing.toml", &no_files)
}

/// The documented file with one line put in place of another.
fn with(line: &str, other: &str) -> Vec<ConfigError> {
    assert!(DOCUMENTED.contains(line), "{line}");
    parse(&DOCUMENTED.replacen(line, other, 1)).expect_err(other)
}

#[test]
fn the_documented_file_is_valid_and_means_what_it_says() {
    let config = parse(DOCUMENTED).unwrap();
    assert_eq!(config.hostname.as_str(), "gw.example.org");
    assert_eq!(config.listeners.len(), 2);
    assert_eq!(config.listeners[0].trusted_networks.len(), 2);
    assert_eq!(config.outbound.best().port, 10025);
    assert_eq!(config.policy.rules.len(), 7);
    assert_eq!(config.policy.rules[1].action.encrypt, crate::policy::EncryptMode::Require);
    assert!(config.policy.profiles["edi"].pss);
}

/// Uncommenting every default changes nothing: the comments tell the truth.
#[test]
fn documented_defaults_are_the_defaults() {
    let uncommented: Vec<String> = DOCUMENTED
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if is_default(rest) => rest.to_owned(),
            _ => line.to_owned(),
        })
        .collect();
    let count = uncommented.iter().zip(DOCUMENTED.lines()).filter(|(a, b)| *a != b).count();
    assert!(count >= 30, "only {count} commented defaults were found");
    let (commented, written) = (parse(DOCUMENTED).unwrap(), parse(&uncommented.join("\n")).unwrap());
    assert_eq!(commented.limits, written.limits);
    assert_eq!(commented.retry, written.retry);
    assert_eq!(format!("{commented:?}"), format!("{written:?}"));
}

fn is_default(line: &str) -> bool {
    let key = line.split(" = ").next().unwrap_or_default();
    let bare = key.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '-');
    line.contains(" = ") && bare && !matches!(key, "certificate" | "key" | "ca" | "spool" | "control")
}

/// The commented example of a shared store is one.
#[test]
fn the_documented_etcd_section_is_read() {
    let section = DOCUMENTED.lines().skip_while(|line| *line != "# [etcd]").take_while(|line| !line.is_empty());
    let section: String = section.map(|line| format!("{}\n", line.trim_start_matches(['#', ' ']))).collect();
    let etcd = parse(&format!("{DOCUMENTED}\n{section}")).unwrap().etcd.unwrap();
    assert_eq!((etcd.endpoints.len(), etcd.prefix.as_str(), etcd.node.as_str()), (3, "waxwing", "gw1"));
    assert_eq!((etcd.max_staleness.as_secs(), etcd.timeout.as_secs()), (86_400, 5));
    let (wrong, half) = ("[etcd]\nendpoints = [\"etcd1:2379\"]", "[etcd]\nendpoints = [\"http://a:1\"]\nuser = \"u\"");
    for (text, key) in [(wrong, "etcd.endpoints"), (half, "etcd.password_file")] {
        let errors = parse(&format!("{DOCUMENTED}\n{text}")).unwrap_err();
        assert!(errors.iter().any(|error| error.key.starts_with(key)), "{errors:?}");
    }
}

/// Users by a directory, for the last listener of the file; a password never goes in clear to another machine.
#[test]
fn users_of_a_directory_are_read() {
    let with = |lines: &str| {
        parse(&format!(
            "{DOCUMENTED}\n[[listener]]\naddress = \"127.0.0.1:2527\"\ndirection = \"outbound\"\nauth_without_tls = true\n[listener.ldap_users]\n{lines}\n"
        ))
    };
    let config = with("servers = [\"ldaps://a.example\"]\ndn = \"uid={local},ou={domain},{dc}\"").unwrap();
    let users = config.listeners[2].ldap_users.clone().unwrap();
    let dn = |user: &str| users.dn_for(&Mailbox::parse(user).unwrap()).unwrap();
    assert_eq!(dn("anna@b.example"), "uid=anna,ou=b.example,dc=b,dc=example");
    assert_eq!(dn("\"a,ou=admins{dc}\"@b.example").matches(",").count(), 4, "{}", dn("\"a,ou=admins{dc}\"@b.example"));
    assert!(with("servers = [\"ldap://127.0.0.1\"]\ntls = \"off\"\nbase = \"{dc}\"").is_ok());
    for (lines, key) in [
        ("servers = [\"ldap://a.example\"]\ntls = \"off\"\nbase = \"{dc}\"", "tls"),
        ("servers = [\"ldaps://a.example\"]", "base"),
        ("servers = [\"ldaps://a.example\"]\nbase = \"{dc}\"\ndn = \"uid={local}\"", "base"),
        ("servers = [\"ldaps://a.example\"]\ndn = \"uid=x\"", "dn"),
        ("servers = [\"ldaps://a.example\"]\ndn = \"uid={local},{dn}\"", "dn"),
        ("servers = [\"ldaps://a.example\"]\nbase = \"{dc}\"\nbind_dn = \"cn=x\"", "bind_dn"),
        ("base = \"{dc}\"", "servers"),
    ] {
        let errors = with(lines).unwrap_err();
        let key = format!("listener[3].ldap_users.{key}");
        assert!(errors.iter().any(|error| error.key == key), "{lines}: {errors:?}");
    }
}

/// The commented examples of `[metrics]` and `[audit]` are ones.
#[test]
fn the_documented_metrics_and_audit_sections_are_read() {
    let section = |name: &str| -> String {
        let lines =
            DOCUMENTED.lines().skip_while(|line| *line != format!("# [{name}]")).take_while(|line| !line.is_empty());
        lines.map(|line| format!("{}\n", line.trim_start_matches(['#', ' ']))).collect()
    };
    let config = parse(&format!("{DOCUMENTED}\n{}{}", section("metrics"), section("audit"))).unwrap();
    assert_eq!(config.metrics.unwrap().listen.port(), 9465);
    let audit = config.audit.unwrap();
    assert_eq!((audit.file.to_str().unwrap(), audit.rotate), ("/var/log/waxwing/audit.log", 64 << 20));
    let cases = [
        ("[metrics]\nlisten = \"9465\"", "metrics.listen"),
        ("[metrics]", "metrics.listen"),
        ("[audit]\nfile = \"/\"", "audit.file"),
        ("[audit]\nrotate = \"1 KiB\"\nfile = \"a\"", "audit.rotate"),
    ];
    for (text, key) in cases {
        let errors = parse(&format!("{DOCUMENTED}\n{text}")).unwrap_err();
        assert!(errors.iter().any(|error| error.key == key), "{text}: {errors:?}");
    }
    let errors = with("[run]\n", "[run]\ngroup = \"waxwing\"\n");
    assert!(errors.iter().any(|error| error.key == "run.user"), "{errors:?}");
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_what_is_allowed() {
    let errors = with("hostname = \"gw.example.org\"", "hostname = \"gw.example.org\"\nhostnme = \"x\"");
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!((errors[0].file.as_str(), errors[0].line, errors[0].key.as_str()), ("waxwing.toml", 7, "hostnme"));
    assert!(errors[0].expected.contains("hostname"), "{}", errors[0]);
    let errors = with("encrypt = \"require\"", "encrpyt = \"require\"");
    assert_eq!(errors[0].key, "rule[1].encrpyt");
}

#[test]
fn a_wrong_value_says_what_was_found_and_what_is_allowed() {
    let errors = with("profile = \"modern\"", "profile = \"moderne\"");
    assert_eq!(errors[0].found, "\"moderne\"");
    assert!(errors[0].expected.contains("compatible"));
    for (line, other) in [
        ("direction = \"inbound\"", "direction = \"in\""),
        ("port = 10025", "port = 0"),
        ("port = 10025", "port = 65536"),
        ("port = 10025", "port = 10025\nca = \"ca.pem\""),
        ("port = 10025", "port = 10025\ntls = \"required\"\nca = \"ca.pem\""),
        ("port = 10025", "port = 10025\ntls = \"verified\"\nca = 7"),
        ("address = \"127.0.0.1:2525\"", "address = \"localhost\""),
        ("# message_size = \"50 MiB\"", "message_size = \"50 MiBB\""),
        ("# message_size = \"50 MiB\"", "message_size = \"600 MiB\""),
        ("# message_size = \"50 MiB\"", "mails_per_client = \"many\""),
        ("# message_size = \"50 MiB\"", "rates_for_trusted = true"),
        ("# first = \"1 min\"", "first = \"2 h\""),
        ("# first = \"1 min\"", "first = \"fast\""),
        ("domains = [\"example.org\", \"example.net\"]", "domains = [\"exa mple.org\"]"),
        ("host = \"127.0.0.1\"", "host = \"[127.0.0.1]\""),
        ("trusted_networks = [\"127.0.0.0/8\", \"::1/128\"]", "trusted_networks = [\"127.0.0.0/33\"]"),
        ("# tls = \"off\"", "tls = \"starttls\""),
        ("# tls = \"off\"", "greeting_delay = \"2 min\""),
        ("# tls = \"off\"", "tenant_header = \"X-Tenant: short\""),
        ("# tls = \"off\"", "tenant_certificate = [\"a.example\"]"),
        ("# tls = \"off\"", "tenant_certificate = [\"a.example\"]\ntenant_ca = \"ca.pem\""),
        ("# tls = \"off\"", "tls = \"implicit\"\ncertificate = \"c\"\nkey = \"k\"\ngreeting_delay = \"2 s\""),
        ("name = \"internet\"", "name = \"submission\""),
        ("recipient = [\"vault@example.org\"]", "recipient = []"),
        ("recipient = [\"vault@example.org\"]", "recipient = [\"vault\"]"),
        ("recipient = [\"vault@example.org\"]", "recipient = [\"file:absent\"]"),
        ("content = [\"AES-128-CBC\"] ", "content = [\"3DES-CBC\"] "),
        ("pass = true  ", "pass = true\nencrypt = \"prefer\"  "),
        ("pass = true  ", "pass = true\nquarantine = [\"unauthenticated\"]  "),
        ("# quarantine = []", "quarantine = [\"odd\"]"),
        ("# hold_expire = \"14 days\"", "hold_expire = \"soon\""),
        ("# downgrade = \"refuse\"", "downgrade = \"allow\""),
        ("[default]", "[defaults]"),
        ("kek = \"/etc/waxwing/kek\"", ""),
        ("hostname = \"gw.example.org\"", "hostname = "),
    ] {
        let errors = with(line, other);
        assert!(errors.iter().all(|error| !error.expected.is_empty() && error.line > 0), "{other}: {errors:?}");
    }
}

#[test]
fn a31_an_error_never_shows_a_tenants_secret() {
    for wrong in ["X-Tenant: almost-secret", "X-Tenant: almost-secret with a space", "X Tenant: almost-secret-and-long"]
    {
        let errors = with("# tls = \"off\"", &format!("tenant_header = \"{wrong}\""));
        assert_eq!(errors[0].key, "listener[1].tenant_header");
        assert!(!format!("{errors:?} {}", errors[0]).contains("almost-secret"), "{}", errors[0]);
    }
}

#[test]
fn what_is_asked_of_certificates_and_answers_is_read() {
    use crate::policy::SignWith;
    let changed = |line: &str, other: &str| {
        assert!(DOCUMENTED.contains(line), "{line}");
        parse(&DOCUMENTED.replacen(line, other, 1)).unwrap()
    };
    let plain = parse(DOCUMENTED).unwrap();
    assert_eq!((plain.certificates, plain.fetch.nonce), (Certificates::default(), Nonce::Off));
    assert!(plain.policy.follows_threads());
    assert!(changed("# email_in_subject = false", "email_in_subject = true").certificates.email_in_subject);
    assert_eq!(changed("# nonce = \"off\"", "nonce = \"require\"").fetch.nonce, Nonce::Require);
    let signs = changed("# sign-with = \"author\"", "sign-with = \"author-or-domain\"");
    assert_eq!(signs.policy.rules[1].action.sign_with, SignWith::Either);
    let policies = changed("# email_in_subject = false", "policies = [\"1.3.6.1.4.1.99999.1\"]").certificates.policies;
    assert!(policies.explicit && policies.accepted.is_some_and(|accepted| accepted.len() == 1));
    for bad in ["policies = []", "policies = [\"no oid\"]", "policies = 1"] {
        assert_eq!(with("# email_in_subject = false", bad)[0].key, "certificates.policies");
    }
}

#[test]
fn weak_algorithms_are_read_only_where_each_is_named() {
    use crate::cms::algorithm::Legacy;
    assert_eq!(parse(DOCUMENTED).unwrap().legacy, Legacy::default());
    let switched = |key: &str| {
        let line = format!("# {key} = false");
        assert!(DOCUMENTED.contains(&line), "{line}");
        parse(&DOCUMENTED.replacen(&line, &format!("{key} = true"), 1)).unwrap().legacy
    };
    assert_eq!(switched("weak_ciphers"), Legacy { weak_ciphers: true, ..Legacy::default() });
    assert_eq!(switched("sha1_signatures"), Legacy { sha1_signatures: true, ..Legacy::default() });
    assert_eq!(switched("weak_keys"), Legacy { weak_keys: true, ..Legacy::default() });
    assert_eq!(switched("short_tags"), Legacy { short_tags: true, ..Legacy::default() });
    let errors = with("# weak_ciphers = false", "weak_cyphers = true");
    assert_eq!(errors[0].key, "legacy.weak_cyphers");
}

#[test]
fn a_profile_names_every_algorithm_that_is_written() {
    use crate::cms::algorithm::{ContentEncryption, Digest, KeyDerivation};
    let edi = |line: &str, other: &str| {
        assert!(DOCUMENTED.contains(line), "{line}");
        parse(&DOCUMENTED.replacen(line, other, 1)).unwrap().policy.profiles["edi"].clone()
    };
    for (name, cipher) in WRITTEN {
        assert_eq!(*name, cipher.name());
        assert_eq!(edi("[\"AES-128-CBC\"]", &format!("[\"{name}\"]")).content, [*cipher]);
    }
    assert_eq!(WRITTEN.len(), 6);
    assert!(WRITTEN.iter().all(|(_, cipher)| *cipher != ContentEncryption::TripleDesCbc));
    assert_eq!(edi("kdf = \"sha256\"", "kdf = \"hkdf-sha512\"").kdf, KeyDerivation::Hkdf(Digest::Sha512));
    assert_eq!(edi("kdf = \"sha256\"", "kdf = \"sha384\"").kdf, KeyDerivation::X963(Digest::Sha384));
    assert!(edi("# derive-cek = false", "derive-cek = true").derive_cek);
    assert_eq!(edi("digest = \"sha256\"", "digest = \"sha512\"").digest, Digest::Sha512);
}

#[test]
fn harvest_is_off_until_it_is_configured_and_the_first_that_names_an_author_holds() {
    let author = |text: &str| Mailbox::parse(text).unwrap();
    let config = parse(DOCUMENTED).unwrap().harvest;
    assert_eq!((config.mode, config.mode_for(&author("a@else.example"))), (HarvestMode::Off, HarvestMode::Off));
    assert_eq!(config.mode_for(&author("A@Partner.example")), HarvestMode::Trust);
    let careful = "[[harvest.sender]]\nmatch = [\"a@*.example\"]\nmode = \"candidate\"\n[[harvest.sender]]\n";
    let text = DOCUMENTED.replacen("[[harvest.sender]]\n", careful, 1);
    assert_eq!(parse(&text).unwrap().harvest.mode_for(&author("a@partner.example")), HarvestMode::Candidate);
    assert_eq!(Harvest::default().mode, HarvestMode::Off);
    for (line, other, key) in [
        ("match = [\"@partner.example\"]\n", "", "match"),
        ("mode = \"trust\"", "mode = \"maybe\"", "mode"),
        ("mode = \"trust\"", "", "mode"),
        ("# per_mailbox = 16", "per_mailbox = 0", "harvest.per_mailbox"),
    ] {
        let errors = with(line, other);
        assert!(errors.iter().any(|error| error.key.ends_with(key)), "{other}: {errors:?}");
    }
}

#[test]
fn a_profile_may_name_several_ways_to_transport_a_key() {
    use crate::cms::algorithm::{Digest, KeyTransport};
    let several = "transport = [\"oaep-sha256\", \"pkcs1\"]";
    let profile =
        &parse(&DOCUMENTED.replacen("transport = \"oaep-sha256\"", several, 1)).unwrap().policy.profiles["edi"];
    assert_eq!(profile.transport, KeyTransport::RsaOaep(Digest::Sha256, Digest::Sha256));
    assert_eq!(profile.further_transports, [KeyTransport::RsaPkcs1]);
    assert!(with("transport = \"oaep-sha256\"", "transport = []")[0].expected.contains("pkcs1"));
}

#[test]
fn every_error_is_told_not_only_the_first() {
    let text = DOCUMENTED.replace("port = 10025", "port = \"x\"").replace("port = 10026", "prot = 1");
    let keys: Vec<String> = parse(&text).unwrap_err().into_iter().map(|error| error.key).collect();
    assert_eq!(keys, ["next_hop.outbound.port", "next_hop.inbound.prot"]);
}

#[test]
fn list_files_are_read_and_their_errors_have_a_line() {
    let text = DOCUMENTED.replace("\"vault@example.org\"", "\"file:vault.list\"");
    let good = |_: &Path| Ok("# board\nanna@example.org\n\n@board.example.org # all\n".to_owned());
    let config = Config::parse(&text, "waxwing.toml", &good).unwrap();
    assert_eq!(config.policy.rules[5].matches.recipient.len(), 2);
    let bad = |_: &Path| Ok("anna@example.org\nbob\n".to_owned());
    let errors = Config::parse(&text, "waxwing.toml", &bad).unwrap_err();
    assert!(errors[0].expected.contains("vault.list:2"), "{}", errors[0]);
}

#[test]
fn a_next_hop_has_cas_of_its_own_or_the_systems() {
    let text = DOCUMENTED.replacen("port = 10025", "port = 10025\ntls = \"verified\"\nca = \"/etc/hop.pem\"", 1);
    let config = parse(&text).unwrap();
    assert_eq!(config.outbound.best().tls, HopTls::Verified);
    assert_eq!(config.outbound.best().ca.as_deref(), Some(Path::new("/etc/hop.pem")));
    assert_eq!(config.inbound.best().ca, None);
}

#[test]
fn sizes_and_times_have_units() {
    let text = DOCUMENTED
        .replace("# message_size = \"50 MiB\"", "message_size = \"2 MiB\"")
        .replace("# first = \"1 min\"", "first = \"90 s\"");
    let config = parse(&text).unwrap();
    assert_eq!(config.limits.message_size, 2 << 20);
    assert_eq!(config.retry.first, Duration::from_secs(90));
    assert_eq!(config.retry.expire, Duration::from_secs(432_000));
}

#[test]
fn fuzz_body_holds_on_what_was_seen() {
    fuzz_config(DOCUMENTED.as_bytes());
    for end in 0..DOCUMENTED.len() {
        if end % 97 == 0 && DOCUMENTED.is_char_boundary(end) {
            fuzz_config(&DOCUMENTED.as_bytes()[..end]);
        }
    }
    fuzz_config(b"a = {b = {c = [1, {d = '']}}");
}

#[test]
fn several_next_hops_stand_in_order_of_preference() {
    let text = DOCUMENTED
        .replace(
            "\n[next_hop.outbound]",
            "\n[[next_hop.outbound]]\nhost = \"last.example\"\npreference = 30\n[[next_hop.outbound]]",
        )
        .replace("port = 10025", "port = 10025\npreference = 20\nconnections = 5\nspool_connections = 2");
    let config = parse(&text).unwrap();
    let hops: Vec<_> =
        config.outbound.hops().map(|one| (one.hop.host.as_str(), one.preference, one.connections)).collect();
    assert_eq!(hops, [("127.0.0.1", 20, 5), ("last.example", 30, 200)]);
    assert_eq!(config.route(Direction::Inbound).hops().count(), 1);
    for (from, to) in [
        ("host = \"last.example\"", "host = \"127.0.0.1\"\nport = 10025"),
        ("preference = 30", "preference = 70000"),
        ("spool_connections = 2", "spool_connections = 0"),
        ("connections = 5", "conections = 5"),
    ] {
        assert!(!parse(&text.replacen(from, to, 1)).unwrap_err().is_empty(), "{to}");
    }
    assert!(!with("\n[next_hop.outbound]", "\n[next_hop]\noutbound = []\n[x]").is_empty());
}

#[test]
fn no_wait_for_a_next_hop_is_longer_than_the_whole() {
    let config = parse(&DOCUMENTED.replace("# hop_timeout = \"4 min\"", "hop_timeout = \"45 s\"")).unwrap();
    let seconds = Duration::from_secs;
    let HopWaits { connect, greeting, command, all } = config.limits.hop;
    assert_eq!((connect, greeting, command, all), (seconds(30), seconds(45), seconds(45), seconds(45)));
}

#[test]
fn the_spool_is_a_folder_or_a_table_with_bounds() {
    assert_eq!(parse(DOCUMENTED).unwrap().spool_limits, SpoolLimits::default());
    let documented = DOCUMENTED.lines().find_map(|line| line.strip_prefix("# spool = ")).unwrap();
    let table = DOCUMENTED.replace("\nspool = \"/var/spool/waxwing\"\n", &format!("\nspool = {documented}\n"));
    let written = parse(&table).unwrap();
    let defaults = SpoolLimits::default();
    assert_eq!(written.spool_limits, SpoolLimits { quota: 10 << 30, entries: 1_000_000, ..defaults });
    let without = DOCUMENTED.replace("\nspool = \"/var/spool/waxwing\"\n", "\n");
    let table = "\n[spool]\nfolder = \"/s\"\nquota = \"2 GiB\"\nentries = 7\ncommit_timeout = \"5 s\"\n";
    let config = parse(&format!("{without}{table}")).unwrap();
    assert_eq!(config.spool, std::path::Path::new("/s"));
    let SpoolLimits { quota, entries, reserve, commit_timeout } = config.spool_limits;
    assert_eq!((quota, entries, reserve, commit_timeout), (2 << 30, 7, 4 << 20, Duration::from_secs(5)));
    for (bad, key) in [("quota = \"1 MiB\"", "spool.folder"), ("folder = \"/s\"\nquta = 1", "spool.quta")] {
        let errors = parse(&format!("{without}\n[spool]\n{bad}\n")).unwrap_err();
        assert!(errors.iter().any(|error| error.key == key), "{errors:?}");
    }
}

#[test]
fn sources_are_read_and_what_is_dangerous_of_them_is_refused() {
    let config = parse(DOCUMENTED).unwrap();
    let [Source { kind: SourceKind::Ldap(ldap), .. }, Source { kind: SourceKind::Smimea(_), matches, .. }] =
        config.discovery.as_slice()
    else {
        panic!("{:?}", config.discovery)
    };
    assert!(matches.is_empty());
    let servers: Vec<String> = ldap.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["ldaps://ldap1.directory.example:636", "ldap://ldap2.directory.example:389"]);
    assert_eq!(ldap.base_for(&Domain::parse("a.example").unwrap()), "ou=people,dc=a,dc=example");
    let servers = "servers = [\"ldaps://ldap1.directory.example\", \"ldap://ldap2.directory.example:389\"]";
    let wrong = [
        (servers, "servers = []"),
        (servers, "servers = [\"http://x\"]"),
        (servers, "servers = [\"ldap://x:99999\"]"),
        (servers, "servers = [\"ldap://x\"]\ntls = \"off\"\naliases = true"),
        (servers, "servers = [\"ldap://x\"]\ntls = \"off\"\nmode = \"trust\""),
        (servers, "servers = [\"ldap://x\"]\ntls = \"off\"\nbind_dn = \"cn=a\"\npassword_file = \"b\""),
        (servers, "servers = [\"ldap://x\"]\nbind_dn = \"cn=a\""),
        (servers, "servers = [\"ldap://x\"]\nfilter = \"(mail=x)\""),
        ("\nbase = \"ou=people,{dc}\"", "\nbase = \"ou={address}\""),
        ("match = [\"@directory.example\"]", ""),
        ("name = \"partner-directory\"", "name = \"two words\""),
        ("name = \"partner-directory\"", "name = \"smimea-2\""),
        ("type = \"ldap\"", "type = \"http\""),
    ];
    for (line, other) in wrong {
        assert!(!with(line, other).is_empty());
    }
    let here =
        "servers = [\"ldap://127.0.0.1\", \"ldap://[::1]:1389\"]\ntls = \"off\"\nmode = \"trust\"\naliases = true";
    let config = parse(&DOCUMENTED.replacen(servers, here, 1)).unwrap();
    assert!(
        matches!(&config.discovery[0].kind, SourceKind::Ldap(ldap) if ldap.aliases && ldap.servers[1].port == 1389)
    );
}

fn routed(text: &str) -> Result<Config, Vec<ConfigError>> {
    parse(&DOCUMENTED.replace("\n[limits]\n", &format!("\n{text}\n[limits]\n")))
}

#[test]
fn the_first_route_that_takes_a_domain_and_direction_holds() {
    let text = "[[route]]\ndomain = [\"a.example\", \"*.b.example\"]\ndirection = \"outbound\"\nlmtp = true\nhost = \"one\"\n\
         [[route]]\ndomain = \"a.example\"\ndirection = \"inbound\"\nmx = false\n[[route.next_hop]]\nhost = \"two\"\n\
         [[route.next_hop]]\nhost = \"three\"\npreference = 5\n\
         [[route]]\ndomain = \"*\"\ndirection = \"outbound\"\nmx = true\nport = 26\ntls = \"verified\"\nsource = [\"192.0.2.1\", \"2001:db8::1\"]\n";
    let config = routed(text).unwrap();
    let target = |direction, domain: &str| config.target(direction, &Domain::parse(domain).unwrap());
    let hop = |direction, domain: &str| target(direction, domain).hop();
    let (out, inward) = (Direction::Outbound, Direction::Inbound);
    for (direction, domain, host, port) in [
        (out, "a.example", "one", 24),
        (out, "x.b.example", "one", 24),
        (out, "b.example", "b.example", 26),
        (out, "xb.example", "xb.example", 26),
        (inward, "a.example", "three", 25),
        (inward, "b.example", "127.0.0.1", 10026),
        (out, "partner.example", "mx.partner.example", 25),
    ] {
        let hop = hop(direction, domain);
        assert_eq!((hop.host.as_str(), hop.port), (host, port), "{domain}");
    }
    assert!(
        target(out, "a.example") == target(out, "y.b.example") && target(out, "c.example") != target(out, "d.example")
    );
    let Target::Domain(_, way) = target(out, "c.example") else { panic!() };
    assert!(way.dane && way.mta_sts && way.source.v4.is_some() && way.source.v6.is_some());
    assert_eq!(way.tls, HopTls::Verified);
}

#[test]
fn a_bad_route_is_told_with_its_key() {
    let by_mx = "[[route]]\ndomain = \"*\"\ndirection = \"outbound\"\nmx = true\n";
    let to_host = "[[route]]\ndomain = \"a.example\"\ndirection = \"outbound\"\nhost = \"one\"\n";
    routed(&format!("{to_host}{by_mx}")).unwrap();
    for (text, key) in [
        (by_mx.replace("\"*\"", "[]"), "domain"),
        (by_mx.replace("\"*\"", "\"a.*.example\""), "domain"),
        (by_mx.replace("domain = \"*\"\n", ""), "domain"),
        (by_mx.replace("outbound", "both"), "direction"),
        (by_mx.replace("outbound", "inbound"), "mx"),
        (by_mx.to_owned() + "tls = \"off\"\n", "tls"),
        (by_mx.to_owned() + "lmtp = true\n", "lmtp"),
        (by_mx.to_owned() + "host = \"one\"\n", "host"),
        (by_mx.to_owned() + "spool_connections = 20\n", "spool_connections"),
        (to_host.to_owned() + "dane = false\n", "dane"),
        (to_host.to_owned() + "source = [\"192.0.2.1\", \"192.0.2.2\"]\n", "source"),
        (to_host.to_owned() + "source = \"0.0.0.0\"\n", "source"),
        (to_host.to_owned() + "source = \"eth0\"\n", "source"),
        (to_host.replace("host = \"one\"\n", ""), "host"),
        (to_host.to_owned() + "[[route.next_hop]]\nhost = \"two\"\n", "host"),
        (format!("{by_mx}{to_host}"), "domain"),
        (format!("{to_host}{to_host}"), "domain"),
        ("[[route]]\ndomain = \"x.partner.example\"\ndirection = \"outbound\"\nmx = true\n".into(), "domain"),
    ] {
        let errors = routed(&text).expect_err(&text);
        assert!(
            errors.iter().any(|error| error.key.starts_with("route[") && error.key.ends_with(key)),
            "{text}: {errors:?}"
        );
    }
    for text in ["servers = [\"ns.example\"]", "timeout = \"1 h\"", "mta_sts_port = 0", "resolvers = []"] {
        let errors = parse(&DOCUMENTED.replace("\n[direct]\n", &format!("\n[direct]\n{text}\n"))).expect_err(text);
        assert!(errors[0].key.starts_with("direct."), "{errors:?}");
    }
}

/// The commented example of `[[dkim]]` is one.
#[test]
fn the_documented_dkim_section_is_read() {
    let section = DOCUMENTED.lines().skip_while(|line| *line != "# [[dkim]]").take_while(|line| !line.is_empty());
    let section: String = section.map(|line| format!("{}\n", line.trim_start_matches(['#', ' ']))).collect();
    let config = parse(&format!("{DOCUMENTED}\n{section}")).unwrap();
    assert_eq!(config.mail_authentication, MailAuthentication::default());
    let key =
        Dkim { domain: "example.org".parse().unwrap(), selector: "s2026".into(), key: "/etc/waxwing/dkim.pem".into() };
    assert_eq!(config.dkim, [key]);
    let errors = parse(&format!("{DOCUMENTED}\n{section}{section}")).unwrap_err();
    assert_eq!(errors[0].key, "dkim[2].selector", "{errors:?}");
    let errors = with("# signatures = 8 ", "signatures = 0\nsigns = 1 #");
    let keys: Vec<&str> = errors.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(keys, ["mail_authentication.signatures", "mail_authentication.signs"]);
}
