//! What the cells have in common.

use serde_json::Value;
use std::time::{Duration, Instant};
use tests::Result;
use tests::deployment::{Deployment, Place, Running};
use tests::lab::{SERVER_SECOND, Town};

/// Seconds that a direct path may take on a busy machine.
const PATIENCE: &str = "40";
/// Pings, a second apart, until nobody need wait for a direct path any more: an attempt is over after ten seconds.
const PINGS: u64 = 14;

/// A town's server and the agents in it.
pub(crate) struct Twin<'a> {
    pub(crate) deployment: Deployment<'a>,
    agents: Vec<Running>,
}

impl<'a> Twin<'a> {
    /// A server, and an agent on each of these hosts, in a workspace of the same name.
    pub(crate) fn start(town: &'a Town, hosts: &[&str]) -> Result<Self> {
        let place = Place::Lab(town.lab());
        let deployment = Deployment::start(place, &["--stun-second-address", SERVER_SECOND])?;
        let mut agents = Vec::new();
        for host in hosts {
            let token = deployment.create_workspace(host)?;
            let command = deployment.agent_command_on(host, host, &token)?;
            agents.push(Running::start(command, deployment.path(&format!("{host}.log")))?);
        }
        let twin = Self { deployment, agents };
        twin.wait_for_agents()?;
        Ok(twin)
    }

    fn wait_for_agents(&self) -> Result {
        let began = Instant::now();
        loop {
            let list = self.deployment.json_on("server", &["workspaces", "list"])?;
            let up = list.as_array().into_iter().flatten().filter(|w| w["status"] == "connected").count();
            if up == self.agents.len() {
                return Ok(());
            }
            if began.elapsed() > Duration::from_secs(30) {
                let logs: Vec<_> = self.agents.iter().map(Running::log_end).collect();
                return Err(format!("{up} agents are up: {logs:#?}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Whether a client finds a direct path to an agent, with what was seen if it is not as it should be. By a direct
    /// path packets go straight from one's outer address to the other's, both ways.
    pub(crate) fn check(&self, (client, agent): (&str, &str), direct: bool) -> Result {
        let cell =
            format!("{client} to {agent}, {} in the simulator", if direct { "direct" } else { "relayed" });
        let report = if direct {
            let ping = ["ping", agent, "--until-direct", "--timeout", PATIENCE];
            self.deployment.json_on(client, &ping).map_err(|why| format!("{cell}: {why}"))?
        } else {
            let count = PINGS.to_string();
            self.deployment.json_on(client, &["ping", agent, "--count", &count, "--interval", "1"])?
        };
        let (path, why) = (text(&report["path"]), text(&report["why_relayed"]));
        let as_expected = match direct {
            true => path.starts_with("direct"),
            false => path.starts_with("relay") && !why.is_empty() && report["summary"]["received"] == PINGS,
        };
        if as_expected { Ok(()) } else { Err(format!("{cell}: {report:#}")) }
    }

    /// Checks these cells, those that are relayed all at once, since they only wait, and the others a few at a time.
    pub(crate) fn check_all(&self, cells: Vec<(&str, &str, bool)>) -> Result {
        /// Clients that look for paths at once, on two cores.
        const WORKERS: usize = 4;
        let (direct, relayed): (Vec<_>, Vec<_>) = cells.into_iter().partition(|(.., direct)| *direct);
        let direct = std::sync::Mutex::new(direct.into_iter());
        let next = || direct.lock().ok()?.next();
        let failed: Vec<String> = std::thread::scope(|scope| {
            let relayed = relayed.into_iter().map(|(client, agent, _)| {
                scope.spawn(move || self.check((client, agent), false).err().into_iter().collect::<Vec<_>>())
            });
            let mut tasks: Vec<_> = relayed.collect();
            for _ in 0..WORKERS {
                tasks.push(scope.spawn(|| {
                    let cells = std::iter::from_fn(next);
                    cells.filter_map(|(client, agent, _)| self.check((client, agent), true).err()).collect()
                }));
            }
            tasks.into_iter().flat_map(|task| task.join().expect("no check panics")).collect()
        });
        if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
    }
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
