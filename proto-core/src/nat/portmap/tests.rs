use super::*;
use crate::machine::laws::{OwnedInput, Subject};
use crate::nat::Reflexive;

const SECOND: Duration = Duration::from_secs(1);

fn grant(port: u16, external: &str) -> RouterWord {
    let mapped = Mapped { protocol: Protocol::Pcp, external: external.parse().unwrap(), port };
    RouterWord::Answer(Some(Grant { mapped, lifetime: Duration::from_secs(1_200) }))
}

/// A machine and what it said last.
struct Rig {
    machine: Portmap,
    now: Time,
    asked: Vec<u16>,
    released: u32,
    router: Router,
}

impl Rig {
    fn new(interfaces: &[&str]) -> Self {
        let machine = Portmap::new(Time::ZERO);
        let mut rig =
            Self { machine, now: Time::ZERO, asked: Vec::new(), released: 0, router: Router::default() };
        rig.link(LinkId(1), 7_000);
        rig.tell(PortmapCommand::Interfaces(interfaces.iter().map(|a| a.parse().unwrap()).collect()));
        rig.tell(PortmapCommand::Want(true));
        rig
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Event(PortmapEvent::Request(PortmapRequest::Ask { port })) => self.asked.push(port),
                Output::Event(PortmapEvent::Request(PortmapRequest::Release)) => self.released += 1,
                Output::Event(PortmapEvent::Router(router)) => self.router = router,
                other => panic!("{other:?}"),
            }
        }
    }

    fn tell(&mut self, command: PortmapCommand) {
        self.machine.handle(Input::Command(command), self.now);
        self.drain();
    }

    fn link(&mut self, link: LinkId, port: u16) {
        let address = SocketAddr::from(([0, 0, 0, 0], port));
        self.machine.handle(Input::LinkUp { link, address }, self.now);
        self.drain();
    }

    /// Lets its next deadline pass; how long that took.
    fn wait(&mut self) -> Duration {
        let (at, _) = self.machine.deadline().unwrap();
        let waited = at.since(self.now);
        self.now = at;
        self.machine.handle(Input::Deadline, at);
        self.drain();
        waited
    }
}

#[test]
fn whoever_has_a_public_address_asks_no_router() {
    assert_eq!(Rig::new(&["10.0.0.5", "2001:db8::5"]).asked, [7_000]);
    for public in [&["203.0.113.5"] as &[_], &["203.0.113.5", "172.17.0.1"], &["127.0.0.1"], &[]] {
        let rig = Rig::new(public);
        assert!(rig.asked.is_empty() && rig.router.complete, "{public:?}");
    }
}

#[test]
fn a_mapping_is_renewed_in_time_and_given_back_at_the_end() {
    let mut rig = Rig::new(&["192.168.1.5"]);
    rig.tell(PortmapCommand::Said(grant(7_000, "203.0.113.1:7000")));
    assert_eq!(rig.router.public(&Report::default()), Some("203.0.113.1:7000".parse().unwrap()));
    assert_eq!(rig.wait(), Duration::from_secs(600), "half of its life");
    assert_eq!(rig.asked, [7_000, 7_000]);
    rig.tell(PortmapCommand::Said(grant(7_000, "203.0.113.1:9000")));
    assert_eq!(rig.router.address(), Some("203.0.113.1:9000".parse().unwrap()), "another port this time");
    rig.tell(PortmapCommand::Want(false));
    assert_eq!((rig.released, rig.router.mapped), (1, None));
    assert_eq!(rig.machine.deadline(), None);
}

#[test]
fn a_router_that_answers_no_more_has_lost_the_mapping() {
    let mut rig = Rig::new(&["192.168.1.5"]);
    rig.tell(PortmapCommand::Said(grant(7_000, "203.0.113.1:7000")));
    rig.wait();
    rig.tell(PortmapCommand::Said(RouterWord::Answer(None)));
    assert!(rig.router.mapped.is_some(), "one packet may be lost");
    assert_eq!(rig.wait(), limits::PORTMAP_AGAIN);
    // This time the adapter says nothing at all.
    assert_eq!(rig.wait(), limits::PORTMAP_PATIENCE);
    assert_eq!(rig.router.mapped, None);
    assert_eq!(rig.wait(), limits::PORTMAP_RETRY);
    assert_eq!(rig.asked.len(), 4);
}

#[test]
fn a_doubt_asks_at_once_but_not_again_and_again() {
    let mut rig = Rig::new(&["192.168.1.5"]);
    rig.tell(PortmapCommand::Said(grant(7_000, "203.0.113.1:7000")));
    rig.now += SECOND * 60;
    rig.tell(PortmapCommand::Doubt);
    assert_eq!(rig.asked.len(), 2, "at once");
    rig.tell(PortmapCommand::Said(grant(7_000, "203.0.113.1:7000")));
    rig.tell(PortmapCommand::Doubt);
    rig.tell(PortmapCommand::Said(RouterWord::Started));
    assert_eq!(rig.asked.len(), 2);
    assert_eq!(rig.wait(), limits::PORTMAP_GAP);
    assert_eq!(rig.asked.len(), 3);
}

#[test]
fn another_socket_makes_the_mapping_worthless() {
    let mut rig = Rig::new(&["192.168.1.5"]);
    rig.tell(PortmapCommand::Said(grant(7_000, "203.0.113.1:7000")));
    rig.now += SECOND * 60;
    rig.link(LinkId(1), 7_001);
    assert_eq!((rig.router.mapped, rig.asked.as_slice()), (None, [7_000, 7_001].as_slice()));
    rig.tell(PortmapCommand::Said(grant(7_000, "203.0.113.1:7000")));
    assert_eq!(rig.router.mapped, None, "an answer to an old question");
    rig.tell(PortmapCommand::Said(grant(7_001, "203.0.113.1:7001")));
    assert!(rig.router.mapped.is_some(), "the one to this question counts still");
}

#[test]
fn behind_a_second_nat_a_mapping_is_not_public() {
    let mut rig = Rig::new(&["192.168.1.5"]);
    rig.tell(PortmapCommand::Said(grant(7_000, "100.64.0.9:7000")));
    assert_eq!((rig.router.public(&Report::default()), rig.router.address().is_some()), (None, true));
}

#[test]
fn what_servers_see_tells_of_a_second_nat_with_addresses_of_its_own() {
    let mut rig = Rig::new(&["192.168.1.5"]);
    rig.tell(PortmapCommand::Said(grant(7_000, "25.1.2.3:7000")));
    let seen = |address: &str| {
        let reflexive = vec![Reflexive { link: LinkId(1), address: address.parse().unwrap(), seen: 1 }];
        rig.router.public(&Report { reflexive, ..Report::default() }).is_some()
    };
    assert!(seen("25.1.2.3:9") && seen("[2001:db8::1]:9") && seen("10.0.0.1:9"), "nothing speaks against it");
    assert!(!seen("203.0.113.1:9"));
}

#[test]
fn a_router_without_an_address_maps_nothing() {
    for nowhere in
        ["0.0.0.0:7000", "127.0.0.1:7000", "224.0.0.1:7", "255.255.255.255:7", "169.254.1.1:7", "8.8.8.8:0"]
    {
        let mut rig = Rig::new(&["192.168.1.5"]);
        rig.tell(PortmapCommand::Said(grant(7_000, nowhere)));
        assert_eq!(rig.router.mapped, None, "{nowhere}");
        assert_eq!(rig.wait(), limits::PORTMAP_RETRY);
        rig.tell(PortmapCommand::Want(false));
        assert_eq!(rig.released, 1, "the router holds something all the same");
    }
}

#[test]
fn a_change_during_a_question_asks_once_more() {
    let mut rig = Rig::new(&["192.168.1.5"]);
    rig.now += SECOND;
    rig.tell(PortmapCommand::NetworkChanged);
    rig.tell(PortmapCommand::Said(grant(7_000, "203.0.113.1:7000")));
    assert_eq!(rig.wait(), limits::PORTMAP_GAP - SECOND, "the answer may be the last network's");
    assert_eq!(rig.asked.len(), 2);
}

#[test]
fn what_one_network_granted_is_not_told_in_the_next() {
    let mut rig = Rig::new(&["192.168.1.5"]);
    rig.tell(PortmapCommand::Said(grant(7_000, "203.0.113.1:7000")));
    rig.now += SECOND * 60;
    rig.tell(PortmapCommand::NetworkChanged);
    assert_eq!(rig.asked.len(), 2, "at once");
    assert!(rig.router.mapped.is_some(), "it may be the same network still");
    rig.tell(PortmapCommand::Said(RouterWord::Answer(None)));
    assert_eq!(rig.router.mapped, None);
}

#[test]
fn whatever_an_adapter_may_hold_is_given_back() {
    let mut rig = Rig::new(&["192.168.1.5"]);
    // It takes longer than it may, and is granted something then.
    assert_eq!(rig.wait(), limits::PORTMAP_PATIENCE);
    rig.tell(PortmapCommand::Said(grant(7_000, "203.0.113.1:7000")));
    assert_eq!(rig.router.mapped, None);
    rig.tell(PortmapCommand::Want(false));
    rig.tell(PortmapCommand::Want(false));
    assert_eq!(rig.released, 1, "once");
    assert!(rig.router.complete, "nobody waits for what is not wanted");
}

#[test]
fn the_seven_laws_hold() {
    Subject::new(|_| Portmap::new(Time::ZERO))
        .commands(|rng| match rng.range(0..8) {
            0 => PortmapCommand::Want(rng.permille(800)),
            7 => PortmapCommand::Said(RouterWord::Started),
            1 => PortmapCommand::NetworkChanged,
            2 => PortmapCommand::Doubt,
            3 => PortmapCommand::Said(RouterWord::Answer(None)),
            4 => PortmapCommand::Said(RouterWord::Offers(
                Offers { upnp: Some(true), ..Offers::default() },
                true,
            )),
            5 => PortmapCommand::Interfaces(vec!["192.168.1.5".parse().unwrap()]),
            _ => PortmapCommand::Said(grant(7_000, "203.0.113.1:7000")),
        })
        .inputs(|rng| match rng.permille(800) {
            true => OwnedInput::LinkUp { link: LinkId(1), address: SocketAddr::from(([0, 0, 0, 0], 7_000)) },
            false => OwnedInput::LinkDown { link: LinkId(1) },
        })
        .size(4_000, |machine| format!("{machine:?}").len())
        .check(200);
}
