//! Every kind of fault over a few seeds: it bites, no session breaks, and the gap keeps its bound.
//! `cargo xtask scorecard` does the same over many.

use sim::scorecard::faults::measure;

const SEEDS: u64 = 12;

#[test]
fn each_fault_bites_and_is_survived_within_its_bound() {
    let rows = measure(SEEDS);
    assert!(rows.len() >= 12);
    let mut wrong = Vec::new();
    for row in &rows {
        assert!(
            row.seeds == SEEDS || row.fault.ends_with("-day") || row.fault.starts_with("storm"),
            "{row:?}"
        );
        let too_long = row.bound_ms.is_some_and(|bound| row.gap_ms.p99 > bound);
        if row.bites == 0 || row.lost > 0 || row.violated > 0 || too_long {
            wrong.push(format!(
                "{row:?}; replay: cargo run -p sim -- replay --seed 0 --scenario fault-{}",
                row.fault
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What was lost with a direct path is sent again by the relay, before the streams miss it.
    let blackhole = rows.iter().find(|row| row.fault == "direct-blackhole");
    assert!(blackhole.is_some_and(|row| row.gap_ms.p50 <= 300.0), "{blackhole:?}");
    let rainy = rows.iter().find(|row| row.fault == "loss-day").expect("a row");
    assert!(rainy.switches <= 24, "no more than once an hour: {rainy:?}");
    // What heals or comes back under another address is used directly again.
    for row in rows.iter().filter(|row| ["heal", "nat-reboot-new-ports", "roam-both"].contains(&&*row.fault))
    {
        assert!(row.direct_share == 1.0, "{row:?}");
    }
}
