//! Every fuzz body of the library in one program, so that the sanitizer's build links once. The variable `FUZZ_TARGET` says which;
//! `scripts/fuzz` sets it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

type Body = fn(&[u8]);

static BODIES: &[(&str, Body)] = &[
    ("address", waxwing::address::fuzz_address),
    ("arrival", waxwing::load::sink::fuzz_arrival),
    ("audit_log", waxwing::audit::chain::fuzz_audit_log),
    ("ber", waxwing::cms::ber::fuzz_ber),
    ("canonical", waxwing::mime::canonical::fuzz_canonical),
    ("capabilities", waxwing::cms::algorithm::fuzz_capabilities),
    ("certificate", waxwing::pki::certificate::fuzz_certificate),
    ("compressed_data", waxwing::cms::compressed::fuzz_compressed_data),
    ("config", waxwing::config::fuzz_config),
    ("control", waxwing::admin::protocol::fuzz_control),
    ("crl", waxwing::pki::revocation::crl::fuzz_crl),
    ("data", waxwing::smtp::data::fuzz_data),
    ("entity", waxwing::mime::entity::fuzz_entity),
    ("enveloped_data", waxwing::cms::enveloped::fuzz_enveloped_data),
    ("header", waxwing::mime::header::fuzz_header),
    ("header_protection", waxwing::smime::header_protection::fuzz_header_protection),
    ("kek_file", waxwing::store::keyring::fuzz_kek_file),
    ("kem_recipient_info", waxwing::cms::enveloped::fuzz_kem_recipient_info),
    ("ldap_answer", waxwing::discovery::ldap::fuzz_ldap_answer),
    ("ldap_filter", waxwing::discovery::ldap::fuzz_ldap_filter),
    ("ldif", waxwing::pki::ldif::fuzz_ldif),
    ("load_report", waxwing::load::report::fuzz_report),
    ("mbox", waxwing::mime::mbox::fuzz_mbox),
    ("ocsp", waxwing::pki::revocation::ocsp::fuzz_ocsp),
    ("open", waxwing::smime::open::fuzz_open),
    ("open_sealed", waxwing::smime::open::fuzz_open_sealed),
    ("path", waxwing::pki::path::fuzz_path),
    ("pkcs12", waxwing::pki::pkcs12::fuzz_pkcs12),
    ("private_key", waxwing::keys::fuzz_private_key),
    ("public_key", waxwing::pki::public_key::fuzz_public_key),
    ("real_mail", waxwing::load::mails::fuzz_real_mail),
    ("proxy", waxwing::smtp::proxy::fuzz_proxy),
    ("reply", waxwing::smtp::client::fuzz_reply),
    ("sasl", waxwing::smtp::sasl::fuzz_sasl),
    ("sender_records", waxwing::authentication::check::fuzz_sender_records),
    ("signatures", waxwing::authentication::check::fuzz_signatures),
    ("scenario", waxwing::load::scenario::fuzz_scenario),
    ("session", waxwing::smtp::session::fuzz_session),
    ("shared_value", waxwing::store::etcd::fuzz_shared_value),
    ("signed_data", waxwing::cms::signed::fuzz_signed_data),
    ("smimea", waxwing::discovery::smimea::fuzz_smimea),
    ("spool_record", waxwing::spool::fuzz_spool_record),
    ("store_backup", waxwing::store::backup::fuzz_backup),
    ("store_header", waxwing::store::keyring::fuzz_store_header),
    ("store_record", waxwing::store::record::fuzz_store_record),
    ("strip", waxwing::smime::verdict::fuzz_strip),
    ("sts", waxwing::relay::direct::sts::fuzz_sts),
    ("users", waxwing::config::fuzz_users),
    ("xforward", waxwing::smtp::xforward::fuzz_xforward),
];

static BODY: LazyLock<Body> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    match BODIES.iter().find(|(known, _)| *known == name) {
        Some((_, body)) => *body,
        None => {
            let known: Vec<_> = BODIES.iter().map(|(name, _)| *name).collect();
            eprintln!("FUZZ_TARGET is \"{name}\"; it has to be one of: {}", known.join(" "));
            std::process::exit(2)
        }
    }
});

fuzz_target!(init: { LazyLock::force(&BODY); }, |data: &[u8]| BODY(data));
