use std::net::IpAddr;

use super::*;
use crate::support::Sink;
use crate::support::mx::{Mx, StartTls};

fn route(domain: &str, direction: &str, to: &Sink, more: &str) -> String {
    format!(
        "[[route]]\ndomain = {domain}\ndirection = \"{direction}\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"\n{more}\n",
        to.address.port()
    )
}

#[tokio::test]
async fn the_first_route_that_takes_a_domain_holds_and_the_others_go_where_they_went() {
    let (partner, below, inside) = (Sink::start().await, Sink::start().await, Sink::start().await);
    let top = [
        route("[\"partner.example\", \"other.example\"]", "outbound", &partner, ""),
        route("\"*.partner.example\"", "outbound", &below, ""),
        route("\"ours.example\"", "inbound", &inside, ""),
    ]
    .concat();
    let house = house(&top).await;
    for (to, sink) in [
        ("a@partner.example", &partner),
        ("a@Other.example", &partner),
        ("a@x.partner.example", &below),
        ("a@y.x.partner.example", &below),
        ("a@xpartner.example", &house.world),
        ("a@elsewhere.example", &house.world),
    ] {
        sink.clear();
        assert_eq!(send(&house, &[to]).await.code, 250);
        // Straight through: it is there when the answer comes, and nothing else is.
        assert_eq!(sink.mails().len(), 1, "{to}");
        assert!(house.gateway.spool().entries().is_empty(), "{to}");
        let all = [&partner, &below, &inside, &house.world, &house.server].map(|one| one.mails().len());
        assert_eq!(all.iter().sum::<usize>(), 1, "{to}: {all:?}");
        sink.clear();
    }
    let mail = plain("x@partner.example", ANNA, "in", "hello");
    let came = house.send_in("x@partner.example", &[ANNA], mail.as_bytes());
    assert_eq!(came.await.code, 250);
    assert_eq!((inside.mails().len(), house.server.mails().len()), (1, 0));
}

#[tokio::test]
async fn of_routes_that_take_the_same_domain_the_first_holds_and_none_in_the_other_direction() {
    let (special, general, rest, inside) =
        (Sink::start().await, Sink::start().await, Sink::start().await, Sink::start().await);
    let top = [
        route("\"special.example\"", "outbound", &special, ""),
        route("\"*.example\"", "outbound", &general, ""),
        route("\"*\"", "outbound", &rest, ""),
        route("\"*\"", "inbound", &inside, ""),
    ]
    .concat();
    let house = house(&top).await;
    for to in ["a@special.example", "b@other.example", "c@else.test"] {
        assert_eq!(send(&house, &[to]).await.code, 250, "{to}");
    }
    let mail = plain("x@special.example", ANNA, "in", "x");
    assert_eq!(house.send_in("x@special.example", &[ANNA], mail.as_bytes()).await.code, 250);
    let all = [&special, &general, &rest, &inside, &house.world, &house.server];
    let to = all.map(|sink| sink.mails().iter().flat_map(|mail| mail.to.clone()).collect::<Vec<_>>().join(" "));
    assert_eq!(to, ["a@special.example", "b@other.example", "c@else.test", ANNA, "", ""]);
}

#[tokio::test]
async fn a_mail_to_several_ways_is_taken_whole_and_each_way_gets_its_recipients() {
    let partner = Sink::start().await;
    let house = house(&route("\"partner.example\"", "outbound", &partner, "")).await;
    let to = ["a@partner.example", "b@elsewhere.example", "c@partner.example"];
    partner.fault(crate::support::Fault::Dot(451));
    assert_eq!(send(&house, &to).await.code, 250);
    // One way that puts it off holds up no other.
    assert_eq!(house.world.wait(1).await[0].to, ["b@elsewhere.example"]);
    put_off(&house, "sink says 451").await;
    partner.fault(crate::support::Fault::None);
    assert_eq!(partner.wait(1).await[0].to, ["a@partner.example", "c@partner.example"]);
    house.settled().await;
    assert_eq!((partner.mails().len(), house.world.mails().len()), (1, 1));
}

#[tokio::test]
async fn a_route_has_several_hosts_and_the_next_one_takes_over() {
    let (last, dead) = (Sink::start().await, crate::directory::free_port());
    let hosts = [(20, last.address.port()), (10, dead)].map(|(preference, port)| {
        format!("[[route.next_hop]]\nhost = \"127.0.0.1\"\ntls = \"off\"\npreference = {preference}\nport = {port}\n")
    });
    let house = house(&format!("[[route]]\ndomain = \"*\"\ndirection = \"outbound\"\n{}", hosts.concat())).await;
    assert_eq!(send(&house, &["a@partner.example"]).await.code, 250);
    assert_eq!(last.mails()[0].to, ["a@partner.example"]);
    let first = tokio::net::TcpListener::bind(("127.0.0.1", dead)).await.unwrap();
    let tried = tokio::time::timeout(Duration::from_secs(60), async {
        tokio::select! {
            came = first.accept() => came.map(drop),
            () = async { loop { send(&house, &["b@partner.example"]).await; } } => Ok(()),
        }
    });
    tried.await.expect("the first is never tried again").unwrap();
    assert!(house.world.mails().is_empty());
}

#[tokio::test]
async fn connections_come_from_the_address_that_the_route_names_or_do_not_come() {
    let mx = Mx::start(StartTls::Stripped, None).await;
    let route = |domain: &str, source: &str| {
        let port = mx.address.port();
        format!(
            "[[route]]\ndomain = \"{domain}\"\ndirection = \"outbound\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"off\"\nsource = {source}\n"
        )
    };
    let top = route("one.example", "\"127.0.0.77\"") + &route("two.example", "[\"127.0.0.78\", \"::1\"]");
    let house = house(&(top + &route("six.example", "\"::1\"") + &route("not.example", "\"192.0.2.1\""))).await;
    for (domain, from) in [("one", "127.0.0.77"), ("two", "127.0.0.78"), ("one", "127.0.0.77")] {
        assert_eq!(send(&house, &[&format!("a@{domain}.example")]).await.code, 250);
        assert!(mx.seen(|state| state.peers.contains(&from.parse::<IpAddr>().unwrap())), "{from}");
    }
    assert_eq!(mx.seen(|state| state.peers.len()), 2, "a connection is used again for the same way, and for no other");
    assert_eq!(send(&house, &["a@six.example"]).await.code, 250);
    put_off(&house, "no address of its family in `source`").await;
    let id = house.gateway.spool().entries()[0].id;
    house.gateway.spool().delete(id).await.unwrap();
    assert_eq!(send(&house, &["a@not.example"]).await.code, 250);
    put_off(&house, "from 192.0.2.1").await;
    assert_eq!(mx.seen(|state| state.peers.len()), 2);
}
