//! Worlds with a name: faults, shared networks, bad links. Each over many seeds, and each fault must be seen
//! to bite.

use proto_core::time::Duration;
use sim::nat::DropReason;
use sim::scenarios;
use sim::topology::Fate;
use sim::world::{Verdict, World};

const SEEDS: u64 = 25;
/// Data went on as if nothing had happened: the echoes go every 500 ms, and the rest is their way there and back.
const PAUSE: Duration = Duration::from_millis(650);

/// Runs a scenario over many seeds; each must keep the invariants and pass `check`.
fn each(name: &str, check: impl Fn(&Verdict) -> Result<(), &'static str>) -> Vec<Verdict> {
    let run = |seed| {
        let scenario = scenarios::find(name, seed).expect("the scenario's name");
        let verdict = World::new(scenario, false).run();
        if let Err(why) = verdict.check() {
            panic!("{why}");
        }
        if let Err(what) = check(&verdict) {
            panic!("it does not hold that {what}\n{verdict}");
        }
        verdict
    };
    (0..SEEDS).map(run).collect()
}

fn demand(holds: bool, what: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(what) }
}

fn bites(verdicts: &[Verdict], what: &str) {
    let sum: u64 = verdicts.iter().filter_map(|v| v.bites.get(what)).sum();
    assert!(sum > 0, "the fault \"{what}\" never touched anything");
}

fn ends(verdict: &Verdict, direct: bool) -> Result<(), &'static str> {
    let what = if direct { "both ends are direct at the end" } else { "both ends are relayed at the end" };
    demand(verdict.direct == [Some(direct); 2], what)
}

/// Of the echoes sent all but `missing` came back.
fn echoes(verdict: &Verdict, missing: u64) -> Result<(), &'static str> {
    let echo = &verdict.echo;
    demand(echo.sent > 20 && echo.answered + missing >= echo.sent, "the echoes came back")
}

/// So many NATs rewrote packets: the networks are what their names say.
fn translate(verdict: &Verdict, nats: usize) -> Result<(), &'static str> {
    demand(verdict.translating == nats, "every NAT translates")
}

/// A NAT met a packet to its own outside address and did not turn it round.
fn no_hairpin(verdict: &Verdict) -> Result<(), &'static str> {
    demand(verdict.fates.contains_key(&Fate::Nat(DropReason::Hairpin)), "a packet wanted to be turned round")
}

fn gap(verdict: &Verdict, most: Duration) -> Result<(), &'static str> {
    demand(verdict.echo.gap <= most, "data stalls no longer than allowed")
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn nodes_on_one_lan_talk_directly_and_locally() {
    for verdict in each("same-lan", |v| ends(v, true).and(echoes(v, 2))) {
        assert!(verdict.echo.fastest < Some(Duration::from_millis(1)), "{verdict}");
    }
}

#[test]
fn isolated_nodes_need_a_hairpin() {
    for verdict in each("isolated-hairpin", |v| ends(v, true).and(echoes(v, 2))) {
        assert!(verdict.nats.hairpinned > 0, "{verdict}");
    }
    each("isolated", |v| ends(v, false).and(echoes(v, 2)).and(no_hairpin(v)));
}

#[test]
fn customers_of_one_carrier_need_a_hairpin() {
    for verdict in each("same-carrier-hairpin", |v| ends(v, true).and(echoes(v, 2)).and(translate(v, 3))) {
        assert!(verdict.nats.hairpinned > 0, "{verdict}");
    }
    each("same-carrier", |v| ends(v, false).and(echoes(v, 2)).and(translate(v, 3)).and(no_hairpin(v)));
}

#[test]
fn two_carriers_are_punched_through() {
    each("carriers", |v| ends(v, true).and(echoes(v, 2)).and(translate(v, 4)));
}

#[test]
fn openers_keep_linux_routers_from_poisoning_the_port() {
    let verdicts = each("linux-race", |v| echoes(v, 20));
    bites(&verdicts, "loss");
    for verdict in &verdicts {
        // These routers do track what comes unsolicited, but all that came was the scan.
        assert!(verdict.nats.tracked > 0 && verdict.nats.poisoned == 0, "{verdict}");
        assert!(verdict.fates.contains_key(&Fate::Ttl), "no opener died on the way\n{verdict}");
    }
}

#[test]
fn a_direct_path_that_dies_is_left_within_bounds_and_comes_back() {
    let verdicts = each("direct-blackhole", |v| ends(v, true).and(echoes(v, 2)).and(gap(v, secs(4))));
    bites(&verdicts, "partition");
    assert!(verdicts.iter().all(|v| v.switches >= 2), "nobody ever left the direct path");
}

#[test]
fn a_path_that_works_one_way_is_left_within_bounds() {
    let verdicts = each("one-way-blackhole", |v| ends(v, true).and(echoes(v, 2)).and(gap(v, secs(4))));
    bites(&verdicts, "partition");
}

#[test]
fn a_nat_that_forgets_is_punched_anew() {
    for name in ["nat-reboot", "nat-reboot-new-ports"] {
        let verdicts = each(name, |v| ends(v, true).and(echoes(v, 2)).and(gap(v, secs(5))));
        bites(&verdicts, "nat reboot");
    }
}

#[test]
fn a_server_that_is_away_disturbs_no_direct_tunnel() {
    let verdicts = each("server-away", |v| ends(v, true).and(echoes(v, 2)).and(gap(v, secs(1))));
    bites(&verdicts, "cut");
}

#[test]
fn a_relayed_tunnel_resumes_when_its_only_relay_returns() {
    let verdicts =
        each("server-away-relayed", |v| ends(v, false).and(gap(v, secs(20 + 7))).and(echoes(v, 2)));
    bites(&verdicts, "cut");
    assert!(verdicts.iter().all(|v| v.echo.gap > secs(15)));
}

#[test]
fn another_relay_takes_over_from_one_that_vanishes() {
    let verdicts = each("relay-lost", |v| ends(v, false).and(gap(v, secs(10))).and(echoes(v, 2)));
    for what in ["cut", "carried by the relay", "carried by the server"] {
        assert!(verdicts.iter().all(|v| touched(v, what) > 20), "{what}: too little\n{}", verdicts[0]);
    }
}

/// What a fault has touched in one run.
fn touched(verdict: &Verdict, what: &str) -> u64 {
    verdict.bites.get(what).copied().unwrap_or(0)
}

#[test]
fn a_restarted_relay_is_found_again_before_the_next_echo_is_late() {
    let verdicts = each("relay-restart", |v| ends(v, false).and(echoes(v, 2)).and(gap(v, secs(2))));
    assert!(verdicts.iter().all(|v| touched(v, "restart") >= 2), "both nodes were connected to it");
}

#[test]
fn a_relay_that_drains_is_left_without_a_pause_before_it_stops() {
    let verdicts = each("relay-drain", |v| ends(v, false).and(echoes(v, 2)).and(gap(v, PAUSE)));
    bites(&verdicts, "drain");
    for verdict in &verdicts {
        assert_eq!(touched(verdict, "restart"), 0, "somebody was still there when it stopped\n{verdict}");
    }
}

#[test]
fn a_relay_that_drains_is_used_to_its_end_if_there_is_no_other() {
    let verdicts = each("relay-drain-alone", |v| ends(v, false).and(echoes(v, 2)).and(gap(v, secs(2))));
    for what in ["drain", "restart"] {
        bites(&verdicts, what);
    }
}

#[test]
fn a_map_that_changes_moves_a_pair_to_another_relay_and_back() {
    let verdicts = each("map-change", |v| ends(v, false).and(echoes(v, 2)).and(gap(v, PAUSE)));
    for what in ["map without the relay", "map without the server"] {
        assert!(verdicts.iter().all(|v| touched(v, what) > 20), "{what}: it carried little\n{}", verdicts[0]);
    }
}

#[test]
fn nodes_at_two_relays_of_a_mesh_reach_one_another() {
    let verdicts = each("mesh", |v| ends(v, false).and(echoes(v, 2)).and(gap(v, secs(14))));
    for what in ["partition", "sent on by the mesh"] {
        assert!(verdicts.iter().all(|v| touched(v, what) > 10), "{what}: too little\n{}", verdicts[0]);
    }
}

#[test]
fn a_mesh_that_was_parted_heals_with_the_partition() {
    let verdicts = each("mesh-partition", |v| ends(v, false).and(echoes(v, 2)).and(gap(v, secs(20 + 5))));
    for verdict in &verdicts {
        assert!(touched(verdict, "sent on by the mesh") > 200, "{verdict}");
        assert!(verdict.echo.gap > secs(18), "the partition of the mesh was not felt\n{verdict}");
    }
}

#[test]
fn an_agent_is_found_though_the_relay_believes_in_its_old_connection() {
    let verdicts = each("duplicate-agent", |v| ends(v, false).and(echoes(v, 6)).and(gap(v, secs(2 + 3))));
    for what in ["power", "duplicate login"] {
        assert!(verdicts.iter().all(|v| touched(v, what) > 0), "{what} never happened\n{}", verdicts[0]);
    }
}

#[test]
fn two_copies_of_an_agent_share_the_relay_and_the_one_that_stays_serves_on() {
    // For 30 s, in which 60 echoes go, both run, and the relay sends to whichever spoke last.
    // A change of speaker costs the client a handshake with the other one, 5 s after the last; two may follow closely.
    let verdicts = each("cloned-agent", |v| ends(v, false).and(echoes(v, 60)).and(gap(v, secs(2 * 7))));
    for what in ["power", "duplicate login"] {
        assert!(verdicts.iter().all(|v| touched(v, what) > 0), "{what} never happened\n{}", verdicts[0]);
    }
}

#[test]
fn a_restarted_agent_and_a_restarted_server_are_found_again() {
    let verdicts = each("agent-restart", |v| ends(v, true).and(gap(v, secs(5))).and(echoes(v, 12)));
    bites(&verdicts, "restart");
    assert!(verdicts.iter().all(|v| v.echo.lost_flows > 0), "no stream ever noticed");
    let verdicts = each("server-restart", |v| ends(v, false).and(gap(v, secs(5))).and(echoes(v, 2)));
    bites(&verdicts, "restart");
}

#[test]
fn an_agent_that_loses_power_comes_back() {
    let verdicts = each("agent-power-cut", |v| ends(v, true).and(gap(v, secs(20 + 10))).and(echoes(v, 62)));
    for what in ["power", "cut"] {
        bites(&verdicts, what);
    }
    assert!(verdicts.iter().all(|v| v.echo.gap > secs(20)), "somebody answered for a dead agent");
}

#[test]
fn a_client_that_roams_keeps_its_streams() {
    let verdicts = each("roam", |v| ends(v, true).and(echoes(v, 2)).and(gap(v, secs(6))));
    bites(&verdicts, "roam");
    assert!(verdicts.iter().all(|v| v.echo.lost_flows == 0));
}

#[test]
fn bad_links_are_survived() {
    let verdicts = each("bad-link", |v| ends(v, true).and(echoes(v, 10)).and(gap(v, secs(4))));
    for what in ["loss", "duplicate", "reorder", "jitter"] {
        bites(&verdicts, what);
    }
}

#[test]
fn a_transfer_arrives_whole_beside_the_echoes() {
    let verdicts =
        each("transfer", |v| demand(v.received == 4 << 20, "the whole transfer arrived").and(echoes(v, 2)));
    bites(&verdicts, "rate");
}

#[test]
fn a_tunnel_that_was_given_up_can_be_had_again() {
    let verdicts = each("reopened", |v| ends(v, true).and(gap(v, secs(10 + 3))).and(echoes(v, 4)));
    assert!(
        verdicts.iter().all(|v| v.echo.gap > Duration::from_millis(9_500)),
        "the tunnel was never closed"
    );
}

#[test]
fn a_withdrawn_tunnel_carries_nothing_more() {
    let verdicts = each("withdrawn", |v| demand(v.direct == [None, None], "no route is left"));
    assert!(verdicts.iter().all(|v| v.echo.answered > 20 && v.echo.answered < 50), "{}", verdicts[0]);
}
