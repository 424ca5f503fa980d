//! A lab: hosts, gateways and servers put onto turmoil's network, and a scenario run on them.

use super::gateway::{self, GatewayPlan};
use super::program::{self, Diary};
use super::server::{self, Orders, ServerPlan};
use super::socket::{Attachment, LabNetwork};
use super::verdict::LabVerdict;
use super::wire::Wire;
use crate::nat::NatProfile;
use crate::netem::LinkProfile;
use crate::relay_map::{relay_map, relay_node};
use crate::topology::{Meeting, Network, v4};
use crate::verdict::Violations;
use crate::world::node::AGENT;
use proto_core::relay_map::RelayMap;
use proto_core::seed::Seed;
use proto_core::time::{Duration, Time};
use proto_core::wire::control::NodeKind;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use tokio::sync::watch;

/// The server's address.
pub const SERVER: IpAddr = v4(198, 51, 100, 1);
/// The second relay's.
pub const RELAY: IpAddr = v4(198, 51, 100, 2);
/// The latency of every turmoil link: a LAN's and half of the internet's alike, since turmoil has one for all.
const LATENCY: Duration = Duration::from_millis(4);

/// Something that a scenario does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Cuts two hosts of the internet off from one another, or mends it.
    Partition(Spot, Spot, bool),
    /// The same one way.
    OneWay(Spot, Spot, bool),
    /// The client's own kernel knows no way to a host any more, and says so of each datagram; or knows one again.
    Unroute(Spot, bool),
    /// The host's process dies and begins anew.
    Bounce(Spot),
    /// The host dies; a bounce brings it back.
    Crash(Spot),
    /// TCP through a gateway stands still, or goes on.
    Pause(Spot, bool),
    /// A relay lets nobody in any more, and tells its clients that it is about to stop.
    Drain(Spot),
    /// The relay map names these from now on.
    Map(&'static [Spot]),
}

/// A host of a lab.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Spot {
    /// The server.
    Server,
    /// The second relay.
    Relay,
    /// The agent's own host.
    Agent,
    /// Where the client meets the internet: its outermost gateway, or itself.
    ClientEdge,
    /// Where the agent does.
    AgentEdge,
}

/// A lab and what happens in it.
#[derive(Clone, Debug)]
pub struct LabPlan {
    /// Everything random comes from it.
    pub seed: u64,
    /// The client's and the agent's networks.
    pub networks: [Network; 2],
    /// Other NATs than the networks' own, nearest to the node first.
    pub layers: Option<[Vec<NatProfile>; 2]>,
    /// How they meet.
    pub meeting: Meeting,
    /// How the gateways' links behave, besides turmoil's fixed latency.
    pub link: LinkProfile,
    /// The relays that the map names at first; the second one is there only if it is among them.
    pub relays: &'static [Spot],
    /// The relays are one region and send on for one another.
    pub mesh: bool,
    /// Bytes of a frame and the pause between two.
    pub frames: (usize, Duration),
    /// How long it lasts.
    pub until: Time,
    /// What happens when, in order.
    pub acts: Vec<(Time, Act)>,
}

impl LabPlan {
    /// Two nodes on these networks for 20 s.
    #[must_use]
    pub fn pair(seed: u64, client: Network, agent: Network) -> Self {
        Self {
            seed,
            networks: [client, agent],
            layers: None,
            meeting: Meeting::Internet,
            link: LinkProfile::clean(Duration::ZERO),
            relays: &[Spot::Server],
            mesh: false,
            frames: (64, Duration::from_millis(200)),
            until: Time::from_secs(20),
            acts: Vec::new(),
        }
    }

    /// With another end.
    #[must_use]
    pub fn until(mut self, secs: u64) -> Self {
        self.until = Time::from_secs(secs);
        self
    }

    /// With something that happens at `secs`.
    #[must_use]
    pub fn act(mut self, secs: u64, act: Act) -> Self {
        self.acts.push((Time::from_secs(secs), act));
        self.acts.sort_by_key(|(at, _)| *at);
        self
    }

    /// With these relays in the map at first.
    #[must_use]
    pub fn relays(mut self, relays: &'static [Spot]) -> Self {
        self.relays = relays;
        self
    }

    /// With another meeting.
    #[must_use]
    pub fn meeting(mut self, meeting: Meeting) -> Self {
        self.meeting = meeting;
        self
    }
}

#[derive(Clone, Copy)]
struct Side {
    mesh: IpAddr,
    address: IpAddr,
    attachment: Attachment,
    edge: IpAddr,
}

/// Runs a lab to its end.
///
/// # Errors
/// What went wrong in one of its hosts.
pub fn run(plan: &LabPlan, text: bool) -> Result<LabVerdict, String> {
    let wire = Wire::new(text);
    let seed = Seed::from_u64(plan.seed);
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(plan.seed)
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(LATENCY)
        .max_message_latency(LATENCY)
        .simulation_duration(plan.until.since(Time::ZERO) + Duration::from_secs(30))
        .udp_capacity(4_096)
        .tcp_capacity(4_096)
        .ephemeral_ports(49_152..=60_999);
    let mut sim = builder.build();
    wire.name("server.sim", SERVER);
    wire.name("relay.sim", RELAY);
    let orders = servers(&mut sim, plan, &wire, &seed);
    let lab = Lab { sides: sides(&mut sim, plan, &wire, &seed), wire: wire.clone(), orders, mesh: plan.mesh };
    let diary = Diary::default();
    nodes(&mut sim, plan, (&wire, &seed, &diary), &lab.sides);
    let mut acts = plan.acts.iter().peekable();
    loop {
        let at = Time::from_micros(u64::try_from(sim.elapsed().as_micros()).unwrap_or(u64::MAX));
        while let Some((_, act)) = acts.next_if(|(when, _)| *when <= at) {
            lab.perform(&mut sim, *act);
        }
        match sim.step() {
            Ok(true) => break,
            Ok(false) => {}
            Err(e) => return Err(format!("{e}\n{}", wire.tail(40))),
        }
    }
    // Hosts that still run are dropped inside the world, where their sockets live.
    for host in [SERVER, lab.sides[1].mesh] {
        sim.crash(host);
    }
    Ok(LabVerdict {
        echoes: diary.echoes(),
        agent: diary.agent(),
        counters: wire.counters(),
        hash: wire.hash(),
        violations: Violations(wire.violations()),
        tail: wire.tail(400),
    })
}

/// The map that names these relays; as one region if they are a mesh.
fn map_of(relays: &[Spot], mesh: bool) -> RelayMap {
    let relays = relays.iter().filter_map(|spot| match spot {
        Spot::Server => Some((if mesh { 2 } else { 999 }, "server.sim", SERVER)),
        Spot::Relay => Some((2, "relay.sim", RELAY)),
        _ => None,
    });
    relay_map(&relays.collect::<Vec<_>>())
}

fn servers(
    sim: &mut turmoil::Sim<'_>,
    plan: &LabPlan,
    wire: &Wire,
    seed: &Seed,
) -> BTreeMap<Spot, watch::Sender<Orders>> {
    let mut places = vec![(Spot::Server, "server.sim", SERVER)];
    if plan.relays.contains(&Spot::Relay) {
        places.push((Spot::Relay, "relay.sim", RELAY));
    }
    let mut all = BTreeMap::new();
    for (number, (spot, name, address)) in places.into_iter().enumerate() {
        let network = LabNetwork::new(wire.clone(), Attachment::Internet, address);
        let map = (spot == Spot::Server).then(|| map_of(plan.relays, plan.mesh));
        let orders = watch::Sender::new(Orders { map, draining: false });
        let (seed, starts, wire) = (seed.fork(name), Arc::new(AtomicU64::new(0)), wire.clone());
        let ordered = orders.subscribe();
        let mesh = if plan.mesh { vec![("server.sim", SERVER), ("relay.sim", RELAY)] } else { Vec::new() };
        sim.host(address, move || {
            let process = starts.fetch_add(1, Ordering::Relaxed);
            wire.count(|c| c.servers += 1);
            server::run(ServerPlan {
                network: network.clone(),
                seed: seed.fork(&format!("process/{process}")),
                orders: ordered.clone(),
                mesh: mesh.iter().map(|(name, address)| relay_node(name, *address)).collect(),
                wire: (wire.clone(), number),
            })
        });
        all.insert(spot, orders);
    }
    all
}

fn nodes(
    sim: &mut turmoil::Sim<'_>,
    plan: &LabPlan,
    (wire, seed, diary): (&Wire, &Seed, &Diary),
    [client, agent]: &[Side; 2],
) {
    let network = |side: &Side| LabNetwork::new(wire.clone(), side.attachment, side.address);
    let (net, agent_seed, agent_wire) = (network(agent), seed.fork(AGENT), wire.clone());
    let agent_diary = diary.clone();
    let starts = Arc::new(AtomicU64::new(0));
    sim.host(agent.mesh, move || {
        let (net, seed, wire) = (net.clone(), agent_seed.clone(), agent_wire.clone());
        let diary = agent_diary.clone();
        let process = starts.fetch_add(1, Ordering::Relaxed);
        async move {
            let node = program::node(net, NodeKind::Agent, (&seed, process), &wire).await?;
            program::agent(node, diary).await
        }
    });
    let (net, seed, wire, diary) = (network(client), seed.fork("client"), wire.clone(), diary.clone());
    let (frames, until) = (plan.frames, plan.until);
    sim.client(client.mesh, async move {
        let node = program::node(net, NodeKind::Client, (&seed, 0), &wire).await?;
        program::client(node.clone(), diary, frames, until).await?;
        node.shutdown().await;
        Ok(())
    });
}

/// Puts the gateways onto the network, and says where client and agent are.
fn sides(sim: &mut turmoil::Sim<'_>, plan: &LabPlan, wire: &Wire, seed: &Seed) -> [Side; 2] {
    let layers = plan.layers.clone().unwrap_or_else(|| plan.networks.map(Network::layers));
    match plan.meeting {
        Meeting::Internet => {
            let mut place = |n: u8| site(sim, (n, &layers[usize::from(n) - 1]), plan.link, (wire, seed));
            [place(1), place(2)]
        }
        Meeting::SameLan | Meeting::Isolated(_) => {
            let client = site(sim, (1, &layers[0]), plan.link, (wire, seed));
            let agent = Side { mesh: v4(10, 9, 1, 3), address: v4(192, 168, 1, 3), ..client };
            [client, agent]
        }
        Meeting::SameCarrier(hairpin) => {
            let profile = NatProfile { hairpin, ..NatProfile::port_restricted() };
            let carrier = v4(203, 0, 113, 100);
            let gateway = GatewayPlan {
                profile,
                mesh: carrier,
                outside: carrier,
                lan: [100, 64, 0],
                parent: None,
                link: plan.link,
            };
            add_gateway(sim, gateway, (wire, seed));
            let mut place = |n: u8| {
                let home = layers[usize::from(n) - 1].first().copied().unwrap_or(NatProfile::full_cone());
                let above = (v4(100, 64, 0, 1 + n), Some(carrier), LinkProfile::clean(Duration::ZERO));
                let mut side = home_of(sim, (n, home), above, (wire, seed));
                side.edge = carrier;
                side
            };
            [place(1), place(2)]
        }
    }
}

fn site(
    sim: &mut turmoil::Sim<'_>,
    (n, layers): (u8, &[NatProfile]),
    link: LinkProfile,
    (wire, seed): (&Wire, &Seed),
) -> Side {
    let public = v4(203, 0, 113, n);
    let Some((home, carriers)) = layers.split_first() else {
        return Side { mesh: public, address: public, attachment: Attachment::Internet, edge: public };
    };
    let mut above = (public, None, link);
    for carrier in carriers.iter().rev() {
        let mesh = above.1.map_or(public, |_| v4(10, 7, n, 1));
        let gateway = GatewayPlan {
            profile: *carrier,
            mesh,
            outside: above.0,
            lan: [100, 64, n],
            parent: above.1,
            link: above.2,
        };
        add_gateway(sim, gateway, (wire, seed));
        above = (v4(100, 64, n, 2), Some(mesh), LinkProfile::clean(Duration::ZERO));
    }
    let mut side = home_of(sim, (n, *home), above, (wire, seed));
    side.edge = public;
    side
}

fn home_of(
    sim: &mut turmoil::Sim<'_>,
    (n, profile): (u8, NatProfile),
    (outside, parent, link): (IpAddr, Option<IpAddr>, LinkProfile),
    (wire, seed): (&Wire, &Seed),
) -> Side {
    let mesh = if parent.is_some() { v4(10, 8, n, 1) } else { outside };
    let gateway = GatewayPlan { profile, mesh, outside, lan: [192, 168, n], parent, link };
    add_gateway(sim, gateway, (wire, seed));
    let attachment = Attachment::Behind(mesh);
    Side { mesh: v4(10, 9, n, 2), address: v4(192, 168, n, 2), attachment, edge: mesh }
}

fn add_gateway(sim: &mut turmoil::Sim<'_>, plan: GatewayPlan, (wire, seed): (&Wire, &Seed)) {
    let (wire, seed) = (wire.clone(), seed.fork(&format!("gateway/{}", plan.mesh)));
    let starts = Arc::new(AtomicU64::new(0));
    sim.host(plan.mesh, move || {
        let start = starts.fetch_add(1, Ordering::Relaxed);
        gateway::run(plan.clone(), wire.clone(), seed.fork(&format!("start/{start}")))
    });
}

/// What a scenario acts upon.
struct Lab {
    sides: [Side; 2],
    wire: Wire,
    orders: BTreeMap<Spot, watch::Sender<Orders>>,
    mesh: bool,
}

impl Lab {
    fn host(&self, spot: Spot) -> IpAddr {
        match spot {
            Spot::Server => SERVER,
            Spot::Relay => RELAY,
            Spot::Agent => self.sides[1].mesh,
            Spot::ClientEdge => self.sides[0].edge,
            Spot::AgentEdge => self.sides[1].edge,
        }
    }

    fn order(&self, spot: Spot, change: impl FnOnce(&mut Orders)) {
        if let Some(orders) = self.orders.get(&spot) {
            orders.send_modify(change);
        }
    }

    fn perform(&self, sim: &mut turmoil::Sim<'_>, act: Act) {
        self.wire.said("scenario", 100, || format!("{act:?}"));
        match act {
            Act::Partition(a, b, on) => {
                let (a, b) = (self.host(a), self.host(b));
                self.wire.partition(a, b, on);
                self.wire.partition(b, a, on);
                if on {
                    sim.partition(a, b);
                } else {
                    sim.repair(a, b);
                }
            }
            Act::OneWay(a, b, on) => {
                let (a, b) = (self.host(a), self.host(b));
                self.wire.partition(a, b, on);
                if on {
                    sim.partition_oneway(a, b);
                } else {
                    sim.repair_oneway(a, b);
                }
            }
            Act::Unroute(spot, on) => self.wire.unroute(self.sides[0].address, self.host(spot), on),
            Act::Bounce(spot) => {
                if let Some(number) = [Spot::Server, Spot::Relay].iter().position(|s| *s == spot) {
                    self.wire.count(|c| c.cut_off += std::mem::take(&mut c.connected[number]));
                }
                self.order(spot, |orders| orders.draining = false);
                sim.bounce(self.host(spot));
            }
            Act::Crash(spot) => sim.crash(self.host(spot)),
            Act::Pause(spot, on) => self.wire.pause(self.host(spot), on),
            Act::Drain(spot) => self.order(spot, |orders| orders.draining = true),
            Act::Map(relays) => {
                self.order(Spot::Server, |orders| orders.map = Some(map_of(relays, self.mesh)))
            }
        }
    }
}
