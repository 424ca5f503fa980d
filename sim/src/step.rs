//! What may happen in a world, as data: who is there, on which networks, and which faults come when. A plan
//! is drawn once, or written down, and then never depends on the run.

use crate::nat::NatProfile;
use crate::netem::LinkProfile;
use crate::topology::{Meeting, Network};
use proto_core::seed::Seed;
use proto_core::time::{Duration, Time};

/// Somebody in a world.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// A person's client, which asks for the tunnel.
    Client,
    /// A workspace's agent.
    Agent,
    /// The server: coordinator, relay, STUN.
    Server,
    /// A second relay with STUN, without a coordinator.
    Relay,
    /// A copy of the agent's machine, with its key and its token, in a home of its own. It is off at first.
    Twin,
}

/// Something that happens at a moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Somebody's link to the internet is cut: outwards, inwards. Both false mends it.
    Cut {
        /// Whose.
        who: Role,
        /// What they send.
        up: bool,
        /// What they receive.
        down: bool,
    },
    /// Nothing passes on the internet from one to another, one way; or again.
    Partition {
        /// From.
        from: Role,
        /// To.
        to: Role,
        /// Whether it is in force.
        on: bool,
    },
    /// A host's own kernel knows no way to another's address, and says so of each datagram; or knows one again.
    Unroute {
        /// The host.
        who: Role,
        /// Whose address, as the internet sees it.
        to: Role,
        /// Whether it is in force.
        on: bool,
    },
    /// Somebody's link to the internet behaves so from now on, both ways.
    Link(Role, LinkProfile),
    /// The nearest NAT forgets everything.
    RebootNat(Role),
    /// The outermost NAT forgets everything and gets another address, and nobody behind it is told.
    Readdress(Role),
    /// A process's clock jumps ahead, as after a sleep in which nothing ran.
    ClockJump(Role, Duration),
    /// The process ends (its kernel says so) and a new one begins.
    Restart(Role),
    /// The process ends (its kernel says so) and none begins.
    Stop(Role),
    /// The host vanishes without a word.
    PowerOff(Role),
    /// It comes back, with a new process.
    PowerOn(Role),
    /// A node moves to another network, with a dead time between.
    Roam(Role, Network, Duration),
    /// The client gives the tunnel up.
    CloseTunnel,
    /// The client asks for it (again).
    OpenTunnel,
    /// Junk comes to every UDP port that the outermost NATs have open: from the server's address, but from a
    /// port that nobody has sent to, and from an address that nobody knows. It shows what the filters are.
    Scan,
    /// The coordinator withdraws it.
    Withdraw,
    /// A relay says that it is about to stop. It serves on until its process ends.
    Drain(Role),
    /// The relay map names these relays from now on.
    Map(&'static [Role]),
}

/// A world and what happens in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scenario {
    /// What to call it.
    pub name: String,
    /// Everything random comes from it.
    pub seed: u64,
    /// The client's and the agent's networks.
    pub networks: [Network; 2],
    /// Other NATs than the networks' own, nearest to the node first.
    pub layers: Option<[Vec<NatProfile>; 2]>,
    /// How they meet.
    pub meeting: Meeting,
    /// Links to the internet: the client's, the agent's, the server's.
    pub links: [LinkProfile; 3],
    /// The relays that the map names at first; the second one is there only if it is among them.
    pub relays: &'static [Role],
    /// The relays are one region and send on for one another.
    pub mesh: bool,
    /// Between two echoes; zero for none.
    pub echo: Duration,
    /// Bytes that the client sends in one stream once the tunnel stands, besides the echoes.
    pub transfer: u64,
    /// The client asks again whenever its peer went down, as a forwarded port does whose agent restarts.
    pub insists: bool,
    /// When the client asks for the tunnel; at its start if this is zero.
    pub tunnel_at: Time,
    /// How long it lasts.
    pub until: Time,
    /// What happens when, in order.
    pub steps: Vec<(Time, Step)>,
}

impl Scenario {
    /// Two nodes on these networks with an echo every 500 ms for 30 s; link latencies drawn from the seed.
    #[must_use]
    pub fn pair(seed: u64, client: Network, agent: Network) -> Self {
        let mut rng = Seed::from_u64(seed).fork("scenario").rng();
        let mut link = || {
            let latency = Duration::from_micros(rng.range(3_000..25_000));
            LinkProfile { jitter: Duration::from_micros(rng.range(0..3_000)), ..LinkProfile::clean(latency) }
        };
        Self {
            name: format!("{client}+{agent}"),
            seed,
            networks: [client, agent],
            layers: None,
            meeting: Meeting::Internet,
            links: [link(), link(), link()],
            relays: &[Role::Server],
            mesh: false,
            echo: Duration::from_millis(500),
            transfer: 0,
            insists: false,
            tunnel_at: Time::ZERO,
            until: Time::from_secs(30),
            steps: Vec::new(),
        }
    }

    /// Losing this many packets in a thousand on every link, each way.
    #[must_use]
    pub fn losing(mut self, permille: u32) -> Self {
        self.links = self.links.map(|link| link.losing(permille));
        self
    }

    /// With another end.
    #[must_use]
    pub fn until(mut self, secs: u64) -> Self {
        self.until = Time::from_secs(secs);
        self
    }

    /// With another meeting of the networks.
    #[must_use]
    pub fn meeting(mut self, meeting: Meeting) -> Self {
        self.meeting = meeting;
        self
    }

    /// With something that happens at `secs`.
    #[must_use]
    pub fn step(mut self, secs: u64, step: Step) -> Self {
        self.steps.push((Time::from_secs(secs), step));
        self
    }

    /// With a partition both ways from one moment to another.
    #[must_use]
    pub fn apart(mut self, a: Role, b: Role, (from, to): (u64, u64)) -> Self {
        for (at, on) in [(from, true), (to, false)] {
            for (from, to) in [(a, b), (b, a)] {
                self.steps.push((Time::from_secs(at), Step::Partition { from, to, on }));
            }
        }
        self.steps.sort_by_key(|(at, _)| *at);
        self
    }

    /// With these relays in the map at first.
    #[must_use]
    pub fn relays(mut self, relays: &'static [Role]) -> Self {
        self.relays = relays;
        self
    }

    /// With relays that are one region and send on for one another.
    #[must_use]
    pub fn meshed(mut self) -> Self {
        self.mesh = true;
        self
    }

    /// Whether anything happens to somebody of this role, by name.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.relays.contains(&role) || self.steps.iter().any(|(_, step)| *step == Step::PowerOn(role))
    }

    /// Called so.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// The NATs of both nodes' networks.
    #[must_use]
    pub fn nat_layers(&self) -> [Vec<NatProfile>; 2] {
        self.layers.clone().unwrap_or_else(|| self.networks.map(Network::layers))
    }
}
